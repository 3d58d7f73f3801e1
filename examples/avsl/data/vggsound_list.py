"""VGGSound's lists of single clips."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..clip_ids import check_name
from ..files import read_rows


def read_vggsound_list(path: Path) -> Iterator[tuple[str, str]]:
    """Id and class of each line ``id,class``; the class may hold commas ("race car, auto racing"), quoted or not.

    Raises:
        ValueError: naming the file and the line, if one is of another form, or its id no name of a file or there twice.
    """
    first: dict[str, int] = {}
    for number, (name, *rest) in read_rows(path):
        label = ", ".join(rest)
        where = f"line {number} of {path}"
        if not name or not any(rest) or not label.isprintable():
            raise ValueError(f"Expected 'id,class' in {where}, but got {','.join([name, *rest])[:80]!r}")
        check_name(name, where)
        if first.setdefault(name, number) != number:
            raise ValueError(f"Expected each clip once, but {name!r} of {where} is in line {first[name]} too")
        yield name, label
