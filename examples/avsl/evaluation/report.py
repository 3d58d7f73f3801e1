"""The report of a run: a table, and the metrics as JSON. Imports no torch, so that a finished run is shown at once."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from ..config import Config
from ..data.overlap import overlap_note
from ..files import write_json, write_text

if TYPE_CHECKING:
    from .held_out import HeldOutScenes

Metrics = dict[str, float]
WITHOUT_MAP = "without map"  # a number of scenes
SHARE_OF_LIST = "share of the public list"
SAMPLES = "samples"
#: What the names of a model's rows end with, by identification; the paper's comes first and adds nothing.
ROW_SUFFIX = {
    "iterative": "",
    "clustering": ", clustering",
    "repeat": ", same map",
    "single": ", one map",
    "own": ", own maps",
    "given": ", given classes",
}
#: Heads every result of a run whose configuration says ``smoke_test``.
SMOKE_TEST = "Smoke test: the numbers mean nothing. They show only that every step works."


def metric_notes(config: Config, trained: Collection[str], tests: Sequence[HeldOutScenes]) -> list[str]:
    """Returns what to know about metrics: that they are of a smoke test, and which test clips were trained on.

    ``config`` is that of the run, ``trained`` are the ids of its training clips.
    """
    overlaps = (overlap_note(trained, (clip.name for clip in test.test.clips), test.subset) for test in tests)
    return [note for note in (SMOKE_TEST if config.smoke_test else "", *overlaps) if note]


def rich_table(rows: Mapping[str, Metrics], title: str, texts: Mapping[str, Mapping[str, str]] | None = None) -> Table:
    """Makes a table for the terminal, one row per metric, bold where a trained model exceeds all references.

    ``texts`` are further columns after the first one: a text per metric.
    """
    # One word per line and no outer edges, so that all rows of a run fit a terminal of 80 columns.
    table = Table("%", title=escape(title), box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    texts = texts or {}
    for row in (*list(rows)[:1], *texts, *list(rows)[1:]):
        table.add_column(row.replace(" ", "\n"), justify="right")
    trained = [row for row in rows if row.startswith("trained")] or list(rows)[:1]
    for name in _common(rows):
        best = max((values[name] for row, values in rows.items() if row not in trained), default=math.inf)
        bold = {row for row in trained if rows[row][name] > best}
        cells = {row: f"{values[name]:.1f}" for row, values in rows.items()}
        first, *others = (f"[bold]{cell}[/]" if row in bold else cell for row, cell in cells.items())
        table.add_row(name, first, *(column.get(name, "") for column in texts.values()), *others)
    for name, first, *others in _remarks(rows):
        first, *others = (cell.replace(" ", "\n") for cell in (first, *others))
        table.add_row(name, first, *("" for _ in texts), *others)
    return table


def markdown_table(rows: Mapping[str, Metrics]) -> str:
    """Returns the same table as Markdown."""
    cells = [["%", *rows], ["---", *("---:" for _ in rows)]]
    cells += [[name, *(f"{row[name]:.1f}" for row in rows.values())] for name in _common(rows)]
    cells += _remarks(rows)
    return pipe_table(cells)


def pipe_table(rows: Sequence[Sequence[str]]) -> str:
    """Returns rows of cells as Markdown; the second row is the rule below the header."""
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _common(rows: Mapping[str, Metrics]) -> list[str]:
    """Names of the metrics that all rows have, in the order of the first row."""
    first, *others = rows.values()
    remarks = (WITHOUT_MAP, SHARE_OF_LIST, SAMPLES)
    return [name for name in first if not name.endswith(remarks) and all(name in row for row in others)]


def _remarks(rows: Mapping[str, Metrics]) -> list[list[str]]:
    """Rows on what the metrics are of: the number of samples, scenes without a map, the share of the public list."""
    names = dict.fromkeys(name for row in rows.values() for name in row)
    cells = []
    for name in names:
        values = [row.get(name) for row in rows.values()]
        if name.endswith(WITHOUT_MAP) and any(values):
            cells.append([name, *("–" if v is None else f"{v:,.0f} scenes" for v in values)])
        elif name == SAMPLES:
            cells.append([name, *("" if v is None else f"{v:,.0f}" for v in values)])
        elif name.endswith(SHARE_OF_LIST):
            cells.append([name, *("–" if v is None else f"{min(max(v, 0.1), 99.9):.1f}" for v in values)])
    return cells


def write_report(
    run: Path, rows: Mapping[str, Metrics], seconds: Mapping[str, float], notes: Sequence[str] = ()
) -> None:
    """Writes ``metrics.json`` and ``table.md``; ``notes`` say what to know about the metrics."""
    write_text(run / "table.md", "".join(f"{note}\n\n" for note in notes) + markdown_table(rows))
    write_json(run / "metrics.json", {"percent": rows, "seconds": seconds, "notes": list(notes)})
