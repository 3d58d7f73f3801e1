"""One table of all identifications: how much of a row's score comes from the way its sources are told apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..evaluation.report import pipe_table
from ..files import write_text
from .collect import Result
from .specification import TestSet

#: What the columns are called.
COLUMNS = {
    "iterative": "iterative",
    "clustering": "clustering",
    "repeat": "same map for all",
    "single": "one map, others missing",
    "own": "own maps",
    "given": "own maps, classes given",
}


def write_ways(results: Sequence[Result], folder: Path, note: str) -> list[Path]:
    """Writes ``table<number>-ways.md`` if the rows are known by more than the two ways that every table shows.

    It has one table per test set and metric of the paper, with one column per identification.
    """
    if len(results) < 3:
        return []
    first = results[0]
    parts = [f"# Table {first.table.number}: {first.table.title}, by how the sources are told apart\n\n{note}\n"]
    for test_set in first.sets:
        for metric in test_set.metrics:
            parts.append(f"\n## {test_set.name}, {metric}\n\n{_grid(results, test_set, metric)}")
    path = folder / f"table{first.table.number}-ways.md"
    write_text(path, "".join(parts))
    return [path]


def _grid(results: Sequence[Result], test_set: TestSet, metric: str) -> str:
    rows = [["", *(COLUMNS[result.identification] for result in results)], ["---", *["---:"] * len(results)]]
    for i, row in enumerate(results[0].rows):
        cells = [_cell(result, i, test_set, metric) for result in results]
        if any(cell != "–" for cell in cells):
            rows.append([row.name, *cells])
    return pipe_table(rows)


def _cell(result: Result, row: int, test_set: TestSet, metric: str) -> str:
    (cell,) = (cell for cell in result.rows[row].cells[test_set.name] if cell.metric == metric)
    return "–" if cell.ours is None else str(cell.ours)
