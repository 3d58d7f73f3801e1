"""Plots of a table: curves over its axis, or one line of points per row."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import matplotlib

from ..evaluation.sheet import entitle
from ..files import atomic_buffer
from .collect import Result
from .specification import TestSet

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def plot(result: Result, path: Path, title: str = "") -> None:
    """Draws one panel per test set: our values with their intervals, the paper's (crosses), and chance (dotted)."""
    by_axis = result.table.axis is not None
    height = 4.0 if by_axis else 1.4 + 0.3 * len(result.rows)
    figure, axes = plt.subplots(
        1,
        len(result.sets),
        figsize=((5.2 if by_axis else 5.6) * len(result.sets), height),
        squeeze=False,
        sharey=not by_axis,
        layout="constrained",
    )
    for axis, s in zip(axes[0], result.sets, strict=True):
        (_curves if by_axis else _points)(axis, result, s)
        # Above the panel, where the legend hides no points.
        legend = axis.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False)
        axis.set_title(s.name, pad=12 + 14 * math.ceil(len(legend.get_texts()) / 3))
    if by_axis:
        axes[0, 0].set_xlabel(result.table.axis)
    if title:
        entitle(figure, title)
    with atomic_buffer(path) as buffer:
        figure.savefig(buffer, format="png", dpi=90)
    plt.close(figure)


class Series(NamedTuple):
    """One metric of all rows: the numbers of the rows with their values, and half widths of 0 for a single seed."""

    name: str
    color: str
    rows: list[int]
    means: list[float]
    half_widths: list[float]
    paper: dict[int, float]
    chance: float | None


def _series(result: Result, test_set: TestSet) -> Iterator[Series]:
    for i, name in enumerate(test_set.metrics):
        cells = [row.cells[test_set.name][i] for row in result.rows]
        ours = {row: cell.ours for row, cell in enumerate(cells) if cell.ours is not None}
        yield Series(
            name,
            f"C{i}",
            list(ours),
            [e.mean for e in ours.values()],
            [0.0 if math.isnan(e.half_width) else e.half_width for e in ours.values()],
            {row: cell.paper for row, cell in enumerate(cells) if cell.paper is not None},
            _chance(result, test_set, i),
        )


def _curves(axis: plt.Axes, result: Result, test_set: TestSet) -> None:
    for s in _series(result, test_set):
        if s.rows:
            axis.errorbar(s.rows, s.means, s.half_widths, color=s.color, marker="o", capsize=3, label=s.name)
        if s.paper:
            style = {"linestyle": "--", "marker": "x", "alpha": 0.5}
            axis.plot(list(s.paper), list(s.paper.values()), color=s.color, label=f"{s.name}, paper", **style)
        if s.chance is not None:
            axis.axhline(s.chance, color=s.color, linestyle=":", linewidth=1)
    axis.set_xticks(range(len(result.rows)), [row.name for row in result.rows], rotation=25, ha="right")
    axis.set_ylabel("%")


def _points(axis: plt.Axes, result: Result, test_set: TestSet) -> None:
    """Rows have no order, so their points are not joined. The first row is at the top."""
    for i, s in enumerate(_series(result, test_set)):
        shift = 0.2 * (i - (len(test_set.metrics) - 1) / 2)  # metrics of one row below each other
        style = {"color": s.color, "linestyle": ""}
        if s.rows:
            at = [row + shift for row in s.rows]
            axis.errorbar(s.means, at, xerr=s.half_widths, marker="o", capsize=2, label=s.name, **style)
        if s.paper:
            at = [row + shift for row in s.paper]
            axis.plot(list(s.paper.values()), at, marker="x", alpha=0.5, label=f"{s.name}, paper", **style)
        if s.chance is not None:
            axis.axvline(s.chance, color=s.color, linestyle=":", linewidth=1)
    axis.set_yticks(range(len(result.rows)), [row.name for row in result.rows])
    axis.set_ylim(len(result.rows) - 0.5, -0.5)
    axis.set_xlim(0, 100)  # some intervals of few seeds leave the scale
    axis.set_xlabel("%")
    axis.grid(axis="y", alpha=0.2)


def _chance(result: Result, test_set: TestSet, metric: int) -> float | None:
    """The highest mean of the baselines that need no model; None if there is none."""
    cells = (row.cells[test_set.name][metric] for row in result.baselines[1:])
    return max((c.ours.mean for c in cells if c.ours), default=None)
