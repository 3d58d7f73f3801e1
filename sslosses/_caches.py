"""Folders in which compilers keep their results: whether they can be used, and one process at a time in them."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def find_folder_problem(folder: Path) -> str | None:
    """Says why no file can be written in ``folder``, which it makes if need be; None if one can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return f"{folder} is not writable ({error.strerror or error})"


def lock_folder(folder: Path) -> int | None:
    """Waits until no other process has locked ``folder``, and locks it until the returned descriptor is closed.

    Returns None without a lock where files can't be locked. The end of the process closes the descriptor, too.
    """
    try:
        descriptor = os.open(folder / ".sslosses.lock", os.O_WRONLY | os.O_CREAT, 0o666)
    except OSError:
        return None
    try:
        _flock(descriptor)
    except OSError:  # some network file systems, and Windows
        os.close(descriptor)
        return None
    return descriptor


def _flock(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError as error:  # Windows
        raise OSError("no locks") from error
    fcntl.flock(descriptor, fcntl.LOCK_EX)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes out of ``folder`` that also ask for this, where files can be locked."""
    descriptor = lock_folder(folder)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)
