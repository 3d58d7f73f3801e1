"""From the results of runs to the cells of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..files import read_json
from .runs import Run
from .specification import Row, Table, TestSet
from .statistics import Estimate

#: Metrics beside the paper's, where the data allow them: pairs with the higher map on the sounding object.
BESIDE = ("> silent", "> twin")
#: Of a run rather than of a set: see ``evaluation.score.mean_reference_deviation``.
COLLAPSE = "deviation of reference maps"
LEVELS = ("untrained", "centered Gaussian", "whole frame", "random maps")


@dataclass(frozen=True)
class Cell:
    """One metric of one row on one set: the paper's, and ours by seed."""

    metric: str
    paper: float | None
    values: dict[int, float]

    @property
    def ours(self) -> Estimate | None:
        return Estimate.of(list(self.values.values()))

    def minus(self, other: Cell) -> Estimate | None:
        """The difference, seed by seed, over the seeds that both have."""
        return Estimate.of([value - other.values[seed] for seed, value in self.values.items() if seed in other.values])


@dataclass(frozen=True)
class Line:
    """One row of the finished table: a cell for each metric of each set."""

    name: str
    cells: dict[str, tuple[Cell, ...]]


@dataclass(frozen=True)
class Result:
    """A finished table."""

    table: Table
    sets: tuple[TestSet, ...]
    lines: tuple[Line, ...]
    others: tuple[Line, ...]
    levels: tuple[Line, ...]

    def differences(self, test_set: TestSet) -> list[tuple[str, list[tuple[str, Estimate | None]]]]:
        """Each row minus the first, seed by seed: name, and for every metric the mean difference."""
        first, *rest = (line for line in self.lines if any(c.values for c in line.cells[test_set.name]))
        return [
            (
                line.name,
                [
                    (cell.metric, cell.minus(base))
                    for cell, base in zip(line.cells[test_set.name], first.cells[test_set.name], strict=True)
                ],
            )
            for line in rest
        ]

    def contrasts(self, test_set: TestSet) -> list[tuple[str, list[tuple[str, Estimate | None]]]]:
        """Each of the table's contrasts, seed by seed over the seeds that all its rows have."""
        of = {line.name: line.cells[test_set.name] for line in self.lines}
        found = []
        for contrast in self.table.contrasts:
            metrics = []
            for i, cell in enumerate(self.lines[0].cells[test_set.name]):
                pairs = [(of[with_it][i].values, of[without][i].values) for with_it, without in contrast.pairs]
                seeds = set.intersection(*(set(values) for pair in pairs for values in pair))
                means = [sum(a[seed] - b[seed] for a, b in pairs) / len(pairs) for seed in sorted(seeds)]
                metrics.append((cell.metric, Estimate.of(means)))
            found.append((contrast.name, metrics))
        return found


def collect(table: Table, sets: Sequence[TestSet], runs: dict[tuple[Row, TestSet], list[Run]]) -> Result:
    """Fill ``table`` from the complete ones of ``runs``, which are in order of the seeds."""
    lines = []
    for row in table.rows:
        cells = {}
        for s in sets:
            found = {run.seed: read_json(run.metrics, "percent", "trained") for run in runs[row, s] if run.complete}
            cells[s.name] = _cells(s, table.paper(row, s), found)
        lines.append(Line(row.name, cells))
    others = [Line(row.name, {s.name: _cells(s, table.paper(row, s), {}) for s in sets}) for row in table.others]
    levels = []
    for level in LEVELS:
        cells = {}
        for s in sets:
            some = {
                r.seed: read_json(r.metrics, "percent").get(level, {}) for r in runs[table.rows[0], s] if r.complete
            }
            cells[s.name] = _cells(s, (None,) * 3, some)
        levels.append(Line(level, cells))
    return Result(table, tuple(sets), tuple(lines), tuple(others), tuple(levels))


def _cells(test_set: TestSet, paper: Sequence[float | None], found: dict[int, dict[str, float]]) -> tuple[Cell, ...]:
    printed = dict(zip(test_set.metrics, paper, strict=True))
    cells = []
    for name in (*test_set.metrics, *BESIDE, COLLAPSE):
        key = name if name == COLLAPSE else f"{test_set.subset} {name}"
        cells.append(Cell(name, printed.get(name), {seed: f[key] for seed, f in found.items() if key in f}))
    return tuple(cells)
