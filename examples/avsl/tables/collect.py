"""Collects the results of runs into the cells of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..evaluation.report import ROW_SUFFIX
from ..evaluation.score import Metrics
from ..files import read_json
from .runs import Run
from .specification import Row, Table, TestSet
from .statistics import Estimate

#: Metrics beside the paper's, where the data allow them: shares of pairs with the higher map on the sounding object.
PAIR_METRICS = ("> silent", "> twin")
#: A metric of the run, not of a test set: see ``evaluation.score.mean_reference_deviation``.
DEVIATION = "deviation of reference maps"
BASELINES = ("untrained", "centered Gaussian", "whole frame", "random maps")
FILE_SUFFIX = {name: suffix.replace(", ", "-").replace(" ", "-") for name, suffix in ROW_SUFFIX.items()}
#: Per row or contrast: its name, and the mean difference per metric.
Differences = list[tuple[str, list[tuple[str, Estimate | None]]]]


@dataclass(frozen=True)
class Cell:
    """One metric of one row on one test set: the paper's value, and our values by seed."""

    metric: str
    paper: float | None
    values: dict[int, float]

    @property
    def ours(self) -> Estimate | None:
        return Estimate.of(list(self.values.values()))

    def minus(self, other: Cell) -> Estimate | None:
        """Estimates the difference from the seeds that both cells have."""
        return Estimate.of([value - other.values[seed] for seed, value in self.values.items() if seed in other.values])


@dataclass(frozen=True)
class ResultRow:
    """One row of the finished table: the cells of each test set, by its name."""

    name: str
    cells: dict[str, tuple[Cell, ...]]


@dataclass(frozen=True)
class Result:
    """A finished table by one identification: our rows, the paper's rows of other methods, and the baselines."""

    table: Table
    identification: str
    sets: tuple[TestSet, ...]
    rows: tuple[ResultRow, ...]
    others: tuple[ResultRow, ...]
    baselines: tuple[ResultRow, ...]

    @property
    def name(self) -> str:
        """Name of the table's files."""
        return f"table{self.table.number}{FILE_SUFFIX[self.identification]}"

    @property
    def title(self) -> str:
        """Number and title of the table, with the identification unless it is the paper's."""
        return f"Table {self.table.number}: {self.table.title}{ROW_SUFFIX[self.identification]}"

    @property
    def has_values(self) -> bool:
        """Whether any of our rows has a value."""
        return any(cell.values for row in self.rows for cells in row.cells.values() for cell in cells)

    def rows_with_values(self, test_set: TestSet) -> list[ResultRow]:
        """Our rows that have a value on the test set."""
        return [row for row in self.rows if any(cell.values for cell in row.cells[test_set.name])]

    def differences(self, test_set: TestSet) -> Differences:
        """Estimates how much each row with values differs from the first of them, seed by seed."""
        name = test_set.name
        first, *rest = self.rows_with_values(test_set)
        return [
            (
                row.name,
                [
                    (cell.metric, cell.minus(base))
                    for cell, base in zip(row.cells[name], first.cells[name], strict=True)
                ],
            )
            for row in rest
        ]

    def contrasts(self, test_set: TestSet) -> Differences:
        """Estimates each contrast of the table from the seeds that all of its rows have."""
        cells = {row.name: row.cells[test_set.name] for row in self.rows}
        contrasts = []
        for contrast in self.table.contrasts:
            estimates = []
            for i, cell in enumerate(self.rows[0].cells[test_set.name]):
                pairs = [(cells[present][i].values, cells[absent][i].values) for present, absent in contrast.pairs]
                seeds = set.intersection(*(set(values) for pair in pairs for values in pair))
                means = [sum(a[seed] - b[seed] for a, b in pairs) / len(pairs) for seed in sorted(seeds)]
                estimates.append((cell.metric, Estimate.of(means)))
            contrasts.append((contrast.name, estimates))
        return contrasts


def collect(
    table: Table, sets: Sequence[TestSet], runs: dict[tuple[Row, TestSet], list[Run]], identification: str
) -> Result:
    """Fills ``table`` from the runs that are complete; ``runs`` are sorted by seed."""
    suffix = ROW_SUFFIX[identification]
    rows = [
        ResultRow(
            row.name,
            {s.name: _cells(s, table.paper(row, s), _row(runs[row, s], f"{_model(row)}{suffix}")) for s in sets},
        )
        for row in table.rows
    ]
    others = [ResultRow(row.name, {s.name: _cells(s, table.paper(row, s), {}) for s in sets}) for row in table.others]
    baselines = [
        ResultRow(name, {s.name: _cells(s, (None,) * 3, _first(table, s, runs, key)) for s in sets})
        for name, key in zip(BASELINES, (f"untrained{suffix}", *BASELINES[1:]), strict=True)
    ]
    return Result(table, identification, tuple(sets), tuple(rows), tuple(others), tuple(baselines))


def _model(row: Row) -> str:
    return "untrained" if row.untrained else "trained"


def _first(
    table: Table, test_set: TestSet, runs: dict[tuple[Row, TestSet], list[Run]], name: str
) -> dict[int, Metrics]:
    """The metrics of a baseline in the first row that has it: not every method has every identification."""
    by_row = (_row(runs[row, test_set], name) for row in table.rows)
    return next((metrics for metrics in by_row if any(metrics.values())), {})


def _row(runs: Sequence[Run], name: str) -> dict[int, Metrics]:
    return {run.seed: read_json(run.metrics, "percent").get(name, {}) for run in runs if run.complete}


def _cells(test_set: TestSet, paper: Sequence[float | None], metrics_by_seed: dict[int, Metrics]) -> tuple[Cell, ...]:
    paper_values = dict(zip(test_set.metrics, paper, strict=True))
    cells = []
    for name in (*test_set.metrics, *PAIR_METRICS, DEVIATION):
        key = name if name == DEVIATION else f"{test_set.subset} {name}"
        values = {seed: metrics[key] for seed, metrics in metrics_by_seed.items() if key in metrics}
        cells.append(Cell(name, paper_values.get(name), values))
    return tuple(cells)
