"""Atomic writes, so that no reader ever sees an incomplete file, and reading with errors that name the file."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Adds ``path`` to errors of writing, such as a full disk, that name no file."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside ``path``; on success synced to disk and renamed to ``path``, else deleted.

    Only for writers that need a path and report a full disk, as PyAV and Lightning do. Pillow and libsndfile don't: use
    :func:`atomic_buffer`. The temporary name keeps the suffix and contains the id of this process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        with naming(path):
            yield temporary
            with temporary.open("r+b") as file:
                os.fsync(file.fileno())  # some file systems report a full disk no earlier
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_buffer(path: Path) -> Iterator[io.BytesIO]:
    """Gives a buffer in memory for an encoder; on success, its content is written to ``path`` atomically.

    Encoders that get a path may ignore that the disk is full, and leave half a file. Python's own writes do not.
    """
    buffer = io.BytesIO()
    yield buffer
    write_bytes(path, buffer.getbuffer())


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Writes ``content`` to ``path`` atomically."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Writes ``text`` to ``path`` atomically, in UTF-8 and with its own line ends."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Writes ``value`` to ``path`` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path: Path, *keys: str) -> Any:
    """Reads a JSON file; with ``keys``, returns the nested value under these keys.

    Raises:
        ValueError: naming the file, if it is not JSON or lacks a key.
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
    """Parses a line as a JSON object; gives an empty one if the line is anything else."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields the rows of a file of comma-separated values with their line numbers, without blank lines and # comments.

    Empty fields at the end of a line are left out.

    Raises:
        ValueError: naming file and line, if it is not valid UTF-8 text or CSV.
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"Expected {path} to be lines of text in UTF-8, but line {line} is not: {error}") from error
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    try:
        for row in reader:
            stripped = [field.strip() for field in row]
            while stripped and not stripped[-1]:
                stripped.pop()
            if stripped and not stripped[0].startswith("#"):
                yield reader.line_num, stripped
    except csv.Error as error:
        raise ValueError(f"Expected {path} to be lines of text, but line {reader.line_num + 1}: {error}") from error
