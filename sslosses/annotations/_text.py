"""Text of annotation files: checks of names, and excerpts for errors."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from typing import Any

from sslosses.annotations.records import AnnotationError

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 100
_SHORT.maxlist = _SHORT.maxdict = 8
_SEPARATORS = "/\\:"  # the colon separates drives and streams on Windows
_LONGEST = 200  # bytes: a file name with its suffix may have 255


def shown(value: Any) -> str:
    """Formats a value for an error, shortened if it is long."""
    return _SHORT.repr(value)


def enumerated(names: Iterable[str]) -> str:
    """Joins names for an error, cut off if there are many."""
    text = ", ".join(names) or "nothing"
    return text if len(text) <= 200 else f"{text[:200]}…"


def check_clip(where: str, clip: str) -> None:
    """Raises unless ``clip`` is a plain file name, as clip ids become file names."""
    if clip in ("", ".", "..") or any(letter in _SEPARATORS or not letter.isprintable() for letter in clip):
        raise AnnotationError(f"{where} to be a clip id without path separators, but got {shown(clip)}")
    if len(clip.encode()) > _LONGEST:
        raise AnnotationError(f"{where} to be a clip id of at most {_LONGEST} bytes, but got {shown(clip)}")


def check_name(where: str, name: Any) -> None:
    """Raises unless ``name`` is a non-empty, printable string."""
    if not isinstance(name, str) or not name:
        raise AnnotationError(f"{where} to be a non-empty string, but got {shown(name)}")
    if not name.isprintable():
        raise AnnotationError(f"{where} to be of printable characters, but got {shown(name)}")
