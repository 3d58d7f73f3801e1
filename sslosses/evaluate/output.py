"""Tables and files of the command."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sslosses.evaluate.benchmark import Benchmark
from sslosses.evaluate.scoring import Result, Scores


def tables(results: Sequence[Result]) -> str:
    """A Markdown table a protocol, in percent, with its counts below; aligned, so a terminal shows it well too."""
    return "\n".join(_table(result) for result in results)


def _table(result: Result) -> str:
    rows = [[f"{result.protocol.name}, %", "maps", *result.chance]]
    rows += [
        [name, _percent(value), *(_percent(level[name]) for level in result.chance.values())]
        for name, value in result.figures.items()
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    first, *others = ("-" * width for width in widths)
    lines = [_line(rows[0], widths), f"| {' | '.join([first, *(f'{dashes[1:]}:' for dashes in others)])} |"]
    lines += [_line(row, widths) for row in rows[1:]]
    counts = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in result.counts.items())
    return "\n".join([*lines, "", counts, ""])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return f"| {' | '.join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])} |"


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def as_json(scores: Scores, benchmark: Benchmark, missing: Sequence[str], **settings: Any) -> str:
    """Everything that was measured, and on what; figures are fractions, null where there is none."""
    report = benchmark.annotations.report
    content = {
        **settings,
        "task": benchmark.task,
        "frames": benchmark.frames,
        "clips": len(benchmark.records),
        "clips_without_map": list(missing),
        "annotation_report": {
            "entries": report.entries,
            "boxes": report.boxes,
            "invalid": [str(box) for box in report.invalid],
            "without_box": list(report.without_box),
            "dropped": list(report.dropped),
        },
        "protocols": {
            result.protocol.name: {
                "definition": str(result.protocol),
                "figures": _plain(result.figures),
                "counts": result.counts,
                "chance": {name: _plain(level) for name, level in result.chance.items()},
            }
            for result in scores.results
        },
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(figures: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {name: None if math.isnan(value) else value for name, value in figures.items()}


@contextmanager
def written_aside(folder: Path) -> Iterator[Path]:
    """A temporary folder beside ``folder``, whose files are moved into it when all of them are written."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield aside
        folder.mkdir(exist_ok=True)
        for file in sorted(aside.iterdir()):
            file.replace(folder / file.name)
    finally:
        shutil.rmtree(aside)
