"""Files of ``torch.save``: read without running code, and compared with their checksums."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from ..machine_errors import of_this_machine

_FOLDER = 0x10  # the bit of a part's attributes in an archive that says so


def read_values(file: Path) -> Any:
    """Reads a file of ``torch.save`` and compares all of it with its checksums, which torch does not.

    Only tensors and plain values are unpickled.

    Raises:
        ValueError: if the file is damaged or holds anything else; the message does not name the file.
        OSError: if the file can't be opened.
        MemoryError: if memory runs out.
    """
    with file.open("rb"):  # so that torch's errors below are about the content
        pass
    try:
        damaged = _damaged_part(file)
        values = None if damaged else torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # malformed files cause errors of any type
        if of_this_machine(error):
            raise
        raise ValueError("it can't be read as weights and plain values; it may be damaged") from error
    if damaged:
        raise ValueError(f"it is damaged: {damaged} is not as it was written")
    return values


def _damaged_part(file: Path) -> str | None:
    """The name of the first part of an archive that is not as torch wrote it."""
    if not zipfile.is_zipfile(file):  # as torch wrote it before version 1.6, without checksums
        return None
    with zipfile.ZipFile(file) as archive:
        # A part that is marked as a folder has a right checksum, but torch reads none of it, without an error.
        folders = (part.filename for part in archive.infolist() if part.external_attr & _FOLDER or part.is_dir())
        return next(folders, None) or archive.testzip()
