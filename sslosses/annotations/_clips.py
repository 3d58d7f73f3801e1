"""Clip ids: they become names of files, so what could lead out of a folder is refused."""

from __future__ import annotations

from sslosses.annotations.records import AnnotationError

_SEPARATORS = "/\\:"  # the colon separates drives and streams on Windows


def check_clip(where: str, clip: str) -> None:
    """Raise unless ``clip`` is the plain name of a file in a folder."""
    if clip in ("", ".", "..") or any(letter in _SEPARATORS or not letter.isprintable() for letter in clip):
        raise AnnotationError(f"{where} to be a clip id without path separators, but got {clip!r}")
