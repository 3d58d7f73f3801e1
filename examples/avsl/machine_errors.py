"""Tells errors of this machine (no memory, no space, no file descriptors) from those of the data that are read."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

_ENOUGH = 2**28  # bytes; who can allocate them does not lack memory
_LACKS = frozenset(
    {
        *(errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO),
        *(errno.EACCES, errno.EPERM, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT),  # also a mount that went away
    }
)
#: The last one is of a worker that was killed, as the kernel does when memory runs out.
_LACKS_IN_WORDS = ("out of memory", "allocate memory", "can't start new thread", "DataLoader worker (pid")


def of_this_machine(error: BaseException) -> bool:
    """Whether ``error`` says that this machine lacks something. It must stop the job and not count against a file.

    A reader may have wrapped the error into one of its own that names the file.
    """
    return any(_is_lack(e) for e in chain(error))


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yields ``error``, the errors that it was raised from, and the members of groups, each once."""
    waiting, seen = [error], set[int]()
    while waiting:
        e = waiting.pop()
        if id(e) in seen:
            continue
        seen.add(id(e))
        yield e
        members = getattr(e, "exceptions", ())
        waiting += [x for x in (e.__cause__, e.__context__, *members) if isinstance(x, BaseException)]


def _is_lack(error: BaseException) -> bool:
    if isinstance(error, RuntimeError):  # torch and Python have no errors of their own for these
        return any(text in str(error) for text in _LACKS_IN_WORDS)
    if isinstance(error, av.FFmpegError) and error.errno in (errno.EPERM, errno.EIO, errno.ENOMEM):
        return error.errno != errno.EPERM and not _works(error.filename)
    return isinstance(error, MemoryError) or getattr(error, "errno", None) in _LACKS


def _works(filename: str | None) -> bool:
    """Whether this machine has memory and can read a file: FFmpeg has the same errors for damaged data.

    For a missing permission, it has only EACCES. Its EPERM is the -1 of old decoders.
    """
    try:
        np.empty(_ENOUGH, np.uint8)
        if filename and Path(filename).is_file():
            with Path(filename).open("rb") as file:
                while file.read(2**20):
                    pass
    except (OSError, MemoryError):
        return False
    return True
