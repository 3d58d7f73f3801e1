"""Reads annotation JSON. Every error names the file, the entry and what was expected there."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from sslosses.annotations._text import check_clip, check_name, enumerated, shown
from sslosses.annotations.records import AnnotationError
from sslosses.annotations.text_files import text_of


def read_entries(path: Path, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """Reads a list of objects from a file, each with at least the given keys."""
    entries = _read(path, "list")
    if not isinstance(entries, list):
        raise AnnotationError(f"{path}: expected a JSON list of entries, but got {_kind(entries)}")
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise AnnotationError(f"{path}: entry {index}: expected an object, but got {_kind(entry)}")
        check_keys(f"{path}: entry {index}", entry, keys)
    return entries


def read_object(path: Path) -> dict[str, Any]:
    """Reads an object from a file."""
    content = _read(path, "object")
    if not isinstance(content, dict):
        raise AnnotationError(f"{path}: expected a JSON object of entries, but got {_kind(content)}")
    return content


def check_keys(where: str, entry: dict[str, Any], keys: tuple[str, ...]) -> None:
    """Raises unless an entry has at least the given keys."""
    missing = [key for key in keys if key not in entry]
    if missing:
        raise AnnotationError(
            f"{where}: expected the keys {', '.join(keys)}, but {', '.join(missing)} is missing; "
            f"the entry holds {enumerated(entry)}"
        )


def _read(path: Path, kind: str) -> Any:
    content = text_of(path, "JSON")
    try:
        return json.loads(content, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        raise AnnotationError(
            f"{path}: expected a complete JSON {kind}, but line {error.lineno}, column {error.colno} cannot be read "
            f"({error.msg}); the file may be truncated or of another format"
        ) from error
    except (RecursionError, ValueError) as error:  # deep nesting, integers of thousands of digits, duplicate keys
        raise AnnotationError(f"{path}: expected a JSON {kind} of entries, but it cannot be read ({error})") from error


def text(path: Path, index: int, entry: dict[str, Any], key: str) -> str:
    """Returns a non-empty, printable string."""
    value = entry[key]
    check_name(f"{path}: entry {index}: expected {key!r}", value)
    name: str = value
    return name


def clip_id(path: Path, index: int, entry: dict[str, Any], key: str) -> str:
    """Returns a clip id."""
    value = entry[key]
    where = f"{path}: entry {index}: expected {key!r}"
    if not isinstance(value, str) or not value:
        raise AnnotationError(f"{where} to be a non-empty string, but got {shown(value)}")
    check_clip(where, value)
    return value


def four_numbers(path: Path, index: int, entry: dict[str, Any], key: str) -> tuple[float, float, float, float]:
    """Returns four finite numbers."""
    return check_four_numbers(f"{path}: entry {index}: expected {key!r}", entry[key])


def boxes(path: Path, index: int, entry: dict[str, Any], key: str) -> list[tuple[float, float, float, float]]:
    """Returns a list of boxes of four finite numbers."""
    value = entry[key]
    if not isinstance(value, list):
        raise AnnotationError(f"{path}: entry {index}: expected {key!r} to be a list of boxes, but got {shown(value)}")
    return [check_four_numbers(f"{path}: entry {index}: expected {key}[{i}]", box) for i, box in enumerate(value)]


def check_four_numbers(where: str, value: Any) -> tuple[float, float, float, float]:
    """Returns four finite numbers."""
    if not isinstance(value, list) or len(value) != 4 or not all(_is_finite_number(v) for v in value):
        raise AnnotationError(f"{where} to be a list of 4 finite numbers, but got {shown(value)}")
    a, b, c, d = (float(v) for v in value)
    return a, b, c, d


def _is_finite_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond float
        return False


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    for key, value in pairs:
        if key in entry:
            raise ValueError(f"an object holds the key {shown(key)} twice")
        entry[key] = value
    return entry


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "a string", type(None): "null"}.get(type(value), shown(value))
