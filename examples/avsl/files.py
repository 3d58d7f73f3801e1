"""Files written aside and moved into place, so that a reader never meets half of one, and files read with errors that
name them."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``, with its suffix and this process's; moved there on success, else deleted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` in one move."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON in one move."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path: Path, *keys: str) -> Any:
    """What a JSON file holds; with ``keys``, the value that they lead to.

    Raises:
        ValueError: naming the file, if it is no JSON or lacks a key.
    """
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"Expected {path} to be JSON, but it can't be read: {error}") from error
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            raise ValueError(f"Expected {path} to hold the key {' / '.join(keys)}, but there is no {key!r}")
        value = value[key]
    return value


def parse_object(line: bytes) -> dict[str, Any]:
    """The JSON object of a line; an empty one if it is none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows of comma-separated values with the numbers of their lines; blank lines and comments (#) are left out.

    Raises:
        ValueError: naming the file, if it is no such text.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, skipinitialspace=True)
        try:
            for row in reader:
                stripped = [field.strip() for field in row]
                if any(stripped) and not stripped[0].startswith("#"):
                    yield reader.line_num, stripped
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"Expected {path} to be lines of text, but line {reader.line_num + 1}: {error}") from error


def read_picture(path: Path) -> Image.Image:
    """A picture as it is stored, decoded.

    Raises:
        OSError: naming the file, if it is none.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError:
        raise
    except Exception as error:  # of bytes that are no picture, the decoders raise anything
        raise OSError(f"Expected {path} to be a picture, but it can't be read: {error}") from error
