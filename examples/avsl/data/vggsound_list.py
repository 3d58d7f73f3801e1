"""Reader of VGGSound's lists of single clips."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..clip_ids import check_name
from ..files import read_rows


def read_vggsound_list(path: Path) -> Iterator[tuple[str, str]]:
    """Yields id and class of each line ``id,class``. The class may contain commas, quoted or not.

    Raises:
        ValueError: naming file and line, if a line is malformed, or if its id cannot be a file name or occurs twice.
    """
    first: dict[str, int] = {}
    for number, (name, *rest) in read_rows(path):
        label = ", ".join(rest)
        where = f"line {number} of {path}"
        if not name or not any(rest) or not label.isprintable():
            raise ValueError(f"Expected 'id,class' in {where}, but got {','.join([name, *rest])[:80]!r}")
        check_name(name, where)
        if first.setdefault(name, number) != number:
            raise ValueError(f"Expected each clip once, but {name!r} of {where} is also in line {first[name]}")
        yield name, label
