"""Writes the results' folder: all files or none, and what a killed run has left behind is removed."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_SUFFIX = ".partial"


@contextlib.contextmanager
def atomic_write(folder: Path, names: tuple[str, ...]) -> Iterator[Path]:
    """Yields a temporary folder and, on success, moves its files into ``folder``.

    A run that is killed leaves its temporary folder. The next run into the same folder removes it.

    Args:
        folder: the folder; created if it does not exist.
        names: names of the files that a run may write. Those of an earlier run that this one does not write are
            deleted, since they would belong to other maps.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder)
    temporary = Path(tempfile.mkdtemp(prefix=_prefix(folder), suffix=_SUFFIX, dir=folder.parent))
    with _locked(temporary):
        try:
            yield temporary
            folder.mkdir(exist_ok=True)
            written = sorted(temporary.iterdir())
            for file in written:
                file.replace(folder / file.name)
            for name in set(names) - {file.name for file in written}:
                (folder / name).unlink(missing_ok=True)
        finally:
            shutil.rmtree(temporary)


def _prefix(folder: Path) -> str:
    return f".{folder.name}."


def _remove_abandoned(folder: Path) -> None:
    """Removes temporary folders of this folder that no living process holds."""
    for path in folder.parent.iterdir():
        if path.name.startswith(_prefix(folder)) and path.name.endswith(_SUFFIX) and path.is_dir():
            with _locked(path) as mine:
                if mine:
                    shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Holds the lock of a folder, which ends with its process; yields False if another process holds it.

    Without such locks, on Windows and some network drives, a folder counts as held.
    """
    if sys.platform == "win32":
        yield False
        return
    descriptor = None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine = True
    except OSError:
        mine = False
    try:
        yield mine
    finally:
        if descriptor is not None:
            os.close(descriptor)
