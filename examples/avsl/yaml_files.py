"""Small YAML files: plain keys and values, every error with the file's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

LONGEST = 1 << 16  # bytes; a configuration has about a thousand
DEEPEST = 8


class _Loader(yaml.SafeLoader):
    """Refuses keys that are no text, or there twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = self.construct_object(key)
            if not isinstance(name, str) or name in seen:
                wrong = "twice" if isinstance(name, str) else "and is no text"
                raise yaml.MarkedYAMLError(problem=f"the key {name!r} is there {wrong}", problem_mark=key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values of a file; none if it is empty.

    Aliases are refused, since a few lines of them can stand for more values than memory holds, and so is what is
    nested deeply.

    Raises:
        ValueError: naming the file, if it is of another form.
    """
    size = path.stat().st_size
    if size > LONGEST:
        raise ValueError(f"Expected {path} to have at most {LONGEST:,} bytes, but got {size:,}")
    try:
        text = path.read_text(encoding="utf-8")
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
            raise ValueError(f"it holds an alias, *{event.anchor}")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} deep")
