"""A finished table as Markdown, CSV, LaTeX and a plot."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib

from ..evaluation.report import pipe_table
from ..files import atomic_write, write_text
from .collect import Cell, Line, Result
from .specification import TestSet
from .statistics import Estimate

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def write_all(result: Result, folder: Path, note: str) -> list[Path]:
    """``table<number>.md``, ``.csv``, ``.tex`` and ``.png`` in ``folder``."""
    stem = folder / f"table{result.table.number}"
    texts = {".md": markdown(result, note), ".csv": as_csv(result), ".tex": latex(result, note)}
    for suffix, text in texts.items():
        write_text(stem.with_suffix(suffix), text)
    plot(result, stem.with_suffix(".png"))
    return [stem.with_suffix(suffix) for suffix in (*texts, ".png")]


def markdown(result: Result, note: str) -> str:
    """One table a test set; where there are several seeds, the differences from its first row and the contrasts."""
    parts = [f"# Table {result.table.number}: {result.table.title}\n\n{note}\n"]
    for s in result.sets:
        header, rows = _grid(result, s)
        parts.append(f"\n## {s.name}\n\n{_pipes([header, *rows])}")
        most = max(len(c.values) for line in result.lines for c in line.cells[s.name])
        differences = result.differences(s) if most > 1 else []
        if differences:
            names = [c.metric for c in result.lines[0].cells[s.name] if c.values]
            title = f"Difference from “{result.lines[0].name}”, seed by seed (bold: the interval leaves out 0):"
            parts.append(_differences(title, names, differences))
            if result.table.contrasts:
                title = "Mean difference over the pairs of rows that differ in one thing alone, seed by seed:"
                parts.append(_differences(title, names, result.contrasts(s)))
    return "".join(parts)


def _differences(
    title: str, metrics: Sequence[str], rows: Sequence[tuple[str, Sequence[tuple[str, Estimate | None]]]]
) -> str:
    lines = [[name, *(_difference(dict(cells).get(metric)) for metric in metrics)] for name, cells in rows]
    return f"\n{title}\n\n{_pipes([['points', *metrics], *lines])}"


def _grid(result: Result, test_set: TestSet) -> tuple[list[str], list[list[str]]]:
    lines = (*result.lines, *result.others, *result.levels)
    cells = [line.cells[test_set.name] for line in lines]
    metrics = [c.metric for c in cells[0]]
    columns = []
    for i, metric in enumerate(metrics):
        if any(row[i].paper is not None for row in cells):
            columns.append((f"{metric}, paper", [_number(row[i].paper) for row in cells]))
        if any(row[i].values for row in cells):
            columns.append((metric, ["" if row[i].ours is None else str(row[i].ours) for row in cells]))
    header = [result.table.axis or "", *(name for name, _ in columns)]
    most = max(len(c.values) for row in cells for c in row)
    rows = [[_named(line, test_set, most), *(column[i] for _, column in columns)] for i, line in enumerate(lines)]
    return header, [row for row in rows if any(row[1:])]


def _named(line: Line, test_set: TestSet, most: int) -> str:
    """The row's name, with the number of its seeds where others have more."""
    count = max(len(cell.values) for cell in line.cells[test_set.name])
    return f"{line.name} ({count} of {most} seeds)" if 0 < count < most else line.name


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _difference(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    text = f"{estimate.mean:+.1f}" + ("" if math.isnan(estimate.half_width) else f" ± {estimate.half_width:.1f}")
    return f"**{text}**" if abs(estimate.mean) > estimate.half_width else text


def _pipes(rows: Sequence[Sequence[str]]) -> str:
    header, *body = rows
    rule = ["---", *("---:" for _ in header[1:])]
    return pipe_table([header, rule, *body])


def as_csv(result: Result) -> str:
    """One line a metric, with the value of every seed."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["table", "set", "row", "metric", "paper", "mean", "ci95", "seeds", "values"])
    for line in (*result.lines, *result.others, *result.levels):
        for s in result.sets:
            for cell in line.cells[s.name]:
                if cell.paper is not None or cell.values:
                    writer.writerow([result.table.number, s.name, line.name, cell.metric, *_columns(cell)])
    return out.getvalue()


def _columns(cell: Cell) -> list[object]:
    ours, paper = cell.ours, "" if cell.paper is None else cell.paper
    if ours is None:
        return [paper, "", "", 0, ""]
    return [
        paper,
        round(ours.mean, 3),
        round(ours.half_width, 3),
        ours.count,
        " ".join(f"{seed}:{v:.3f}" for seed, v in cell.values.items()),
    ]


_ESCAPES = {"&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_", ">": r"$>$", "±": r"$\pm$", "τ": r"$\tau$"}
_ESCAPES |= {"λ₁": r"$\lambda_1$", "λ₂": r"$\lambda_2$"}


def latex(result: Result, note: str) -> str:
    """``booktabs`` tables, one a test set."""

    def escaped(text: str) -> str:
        for plain, command in _ESCAPES.items():
            text = text.replace(plain, command)
        return text

    parts = [f"% Table {result.table.number}: {result.table.title}. {' '.join(note.split())}\n"]
    for s in result.sets:
        header, *rows = (" & ".join(map(escaped, row)) + r" \\" for row in (lambda h, r: [h, *r])(*_grid(result, s)))
        columns = "l" + "r" * header.count("&")
        body = "\n".join(rows)
        parts.append(
            f"% {s.name}\n\\begin{{tabular}}{{{columns}}}\n\\toprule\n{header}\n\\midrule\n{body}\n"
            "\\bottomrule\n\\end{tabular}\n"
        )
    return "".join(parts)


def plot(result: Result, path: Path) -> None:
    """A panel for each set: our metrics over the rows with their intervals, the paper's dashed, chance dotted."""
    figure, axes = plt.subplots(
        1, len(result.sets), figsize=(5.2 * len(result.sets), 4), squeeze=False, layout="constrained"
    )
    for axis, s in zip(axes[0], result.sets, strict=True):
        for i, name in enumerate(s.metrics):
            _curve(axis, [line.cells[s.name][i] for line in result.lines], f"C{i}", name)
            chance = _best([line.cells[s.name][i] for line in result.levels[1:]])
            if chance is not None:
                axis.axhline(chance, color=f"C{i}", linestyle=":", linewidth=1)
        axis.set_xticks(range(len(result.lines)), [line.name for line in result.lines], rotation=25, ha="right")
        axis.set_ylabel("%")
        # Above, as it would hide points.
        legend = axis.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False)
        axis.set_title(s.name, pad=12 + 14 * math.ceil(len(legend.get_texts()) / 3))
    axes[0, 0].set_xlabel(result.table.axis or "")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=90)
    plt.close(figure)


def _curve(axis: plt.Axes, cells: Sequence[Cell], color: str, name: str) -> None:
    ours = [(i, c.ours) for i, c in enumerate(cells) if c.ours is not None]
    if ours:
        heights = [0.0 if math.isnan(e.half_width) else e.half_width for _, e in ours]
        axis.errorbar(
            [i for i, _ in ours], [e.mean for _, e in ours], heights, color=color, marker="o", capsize=3, label=name
        )
    paper = [(i, c.paper) for i, c in enumerate(cells) if c.paper is not None]
    if paper:
        axis.plot(*zip(*paper, strict=True), color=color, linestyle="--", marker="x", alpha=0.5, label=f"{name}, paper")


def _best(cells: Sequence[Cell]) -> float | None:
    """The highest chance level."""
    return max((c.ours.mean for c in cells if c.ours), default=None)


__all__ = ["Line", "as_csv", "latex", "markdown", "plot", "write_all"]
