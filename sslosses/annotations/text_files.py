"""Reads text files. Every list and JSON file of the library is read here, with or without a byte-order mark."""

from __future__ import annotations

from pathlib import Path

from sslosses.annotations.records import AnnotationError

_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def text_of(path: Path, kind: str = "text") -> str:
    """Reads a file in UTF-8; ``kind`` names its content in the error.

    Raises:
        AnnotationError: if it is not UTF-8.
    """
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        hint = ", and it begins like UTF-16. Save it as UTF-8" if content.startswith(_UTF_16) else ""
        raise AnnotationError(f"{path}: expected {kind} in UTF-8, but byte {error.start} is not UTF-8{hint}") from error


def lines_of(path: Path) -> list[str]:
    """Reads the lines of a text file.

    Raises:
        AnnotationError: as :func:`text_of`.
    """
    return text_of(path).splitlines()
