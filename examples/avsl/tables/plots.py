"""Plots of a table: curves over its axis, or one line of points per row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib

from ..evaluation.report import entitle
from ..files import atomic_buffer
from .collect import Cell, Result
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


def _curves(axis: plt.Axes, result: Result, test_set: TestSet) -> None:
    for i, name in enumerate(test_set.metrics):
        cells = [row.cells[test_set.name][i] for row in result.rows]
        at, means, half_widths = _estimates(cells)
        if at:
            axis.errorbar(at, means, half_widths, color=f"C{i}", marker="o", capsize=3, label=name)
        paper = _paper(cells)
        if paper:
            style = {"linestyle": "--", "marker": "x", "alpha": 0.5}
            axis.plot(*zip(*paper, strict=True), color=f"C{i}", label=f"{name}, paper", **style)
        chance = _chance(result, test_set, i)
        if chance is not None:
            axis.axhline(chance, color=f"C{i}", linestyle=":", linewidth=1)
    axis.set_xticks(range(len(result.rows)), [row.name for row in result.rows], rotation=25, ha="right")
    axis.set_ylabel("%")


def _points(axis: plt.Axes, result: Result, test_set: TestSet) -> None:
    """Rows have no order, so their points are not joined. The first row is at the top."""
    for i, name in enumerate(test_set.metrics):
        cells = [row.cells[test_set.name][i] for row in result.rows]
        shift = 0.2 * (i - (len(test_set.metrics) - 1) / 2)  # metrics of one row below each other
        at, means, half_widths = _estimates(cells)
        if at:
            heights = [row + shift for row in at]
            axis.errorbar(means, heights, xerr=half_widths, color=f"C{i}", marker="o", capsize=2, ls="", label=name)
        paper = _paper(cells)
        if paper:
            rows, values = zip(*paper, strict=True)
            heights = [row + shift for row in rows]
            axis.plot(values, heights, color=f"C{i}", marker="x", ls="", alpha=0.5, label=f"{name}, paper")
        chance = _chance(result, test_set, i)
        if chance is not None:
            axis.axvline(chance, color=f"C{i}", linestyle=":", linewidth=1)
    axis.set_yticks(range(len(result.rows)), [row.name for row in result.rows])
    axis.set_ylim(len(result.rows) - 0.5, -0.5)
    axis.set_xlim(0, 100)  # some intervals of few seeds leave the scale
    axis.set_xlabel("%")
    axis.grid(axis="y", alpha=0.2)


def _estimates(cells: Sequence[Cell]) -> tuple[list[int], list[float], list[float]]:
    """The rows that have our values, with their means and half widths; 0 for those of one seed."""
    ours = [(i, c.ours) for i, c in enumerate(cells) if c.ours is not None]
    half_widths = [0.0 if math.isnan(e.half_width) else e.half_width for _, e in ours]
    return [i for i, _ in ours], [e.mean for _, e in ours], half_widths


def _paper(cells: Sequence[Cell]) -> list[tuple[int, float]]:
    return [(i, c.paper) for i, c in enumerate(cells) if c.paper is not None]


def _chance(result: Result, test_set: TestSet, metric: int) -> float | None:
    """The highest mean of the baselines that need no model; None if there is none."""
    cells = (row.cells[test_set.name][metric] for row in result.baselines[1:])
    return max((c.ours.mean for c in cells if c.ours), default=None)
