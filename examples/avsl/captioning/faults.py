"""Tells errors of this machine from errors of a picture or a server, so that no clip is blamed for them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ..machine_errors import chain

T = TypeVar("T")
#: Errors that mean a lack of this machine's resources, whatever was asked of it.
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ENOSPC, errno.EDQUOT, errno.EIO})


class MachineError(OSError):
    """This machine is at fault: too few file descriptors, no memory, a disk that can't be read."""


class FrameError(Exception):
    """The picture is at fault."""


def read_frame(load: Callable[[Path, int], T], path: Path, longest: int) -> T:
    """Reads a frame with ``load``.

    Raises:
        FrameError: if the file is not a readable picture.
        MachineError: if the file could not be read.
    """
    try:
        return load(path, longest)
    except (OSError, MemoryError) as error:
        # Decoders raise errors without a number, the system raises them with one.
        system = (e for e in chain(error) if isinstance(e, OSError) and e.errno is not None)
        fault = next((_machine_error(e) for e in system), None) or shortage_of(error)
        if fault is not None:
            raise fault from error
        raise FrameError(f"the frame can't be read: {error}") from error


def shortage_of(error: BaseException) -> MachineError | None:
    """The lack of a resource of this machine that led to ``error``, or ``None``."""
    for e in chain(error):
        if isinstance(e, MachineError):
            return e
        if isinstance(e, MemoryError):
            return MachineError(errno.ENOMEM, "this machine is out of memory")
        if isinstance(e, RuntimeError) and "start new thread" in str(e):
            return MachineError(errno.EAGAIN, f"this machine starts no more threads ({e})")
        if isinstance(e, OSError) and e.errno in _SHORTAGES:
            return _machine_error(e)
    try:  # looking up a name fails without this number if its files can't be opened
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as e:
        return _machine_error(e)
    return None


def _machine_error(error: OSError) -> MachineError:
    hint = ": allow more open files (`ulimit -n`) or lower --concurrency" if error.errno == errno.EMFILE else ""
    where = f" {error.filename!r}" if error.filename else ""
    return MachineError(error.errno, f"{error.strerror}{where}{hint}")
