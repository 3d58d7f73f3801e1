"""Reading of small YAML files with plain keys and values; every error names the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 1 << 16  # bytes; a configuration has about a thousand
MAX_DEPTH = 8


class _Loader(yaml.SafeLoader):
    """Rejects keys that are not text and keys that occur twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = self.construct_object(key)
            if not isinstance(name, str) or name in seen:
                problem = "occurs twice" if isinstance(name, str) else "is not text"
                raise yaml.MarkedYAMLError(problem=f"the key {name!r} {problem}", problem_mark=key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads the keys and values of a file; an empty file gives an empty dict.

    Aliases are rejected, since a few lines of them can expand to more values than fit into memory. Deep nesting is
    rejected as well.

    Raises:
        ValueError: naming the file, if it does not hold plain keys and values.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"Expected {path} to have at most {MAX_BYTES:,} bytes, but got {size:,}")
    try:
        text = path.read_text(encoding="utf-8-sig")
        _check_events(text)
        values = yaml.load(text, _Loader) or {}
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise ValueError(f"Expected {path} to hold lines of `key: value`, but {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"Expected {path} to hold lines of `key: value`, but got {str(values)[:80]!r}")
    return values


def _check_events(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"it contains an alias, *{event.anchor}")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
