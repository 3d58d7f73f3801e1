"""Writes a finished table as Markdown, CSV, LaTeX and a plot."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from ..evaluation.report import pipe_table
from ..files import write_text
from .collect import Cell, Differences, Result, ResultRow
from .plots import plot
from .specification import TestSet
from .statistics import Estimate


def write_all(result: Result, folder: Path, note: str, title: str) -> list[Path]:
    """Writes the table as ``.md``, ``.csv``, ``.tex`` and ``.png`` to ``folder``; returns their paths.

    ``note`` is in all texts, ``title`` above the plot.
    """
    stem = folder / result.name
    texts = {".md": markdown(result, note), ".csv": as_csv(result, note), ".tex": latex(result, note)}
    for suffix, text in texts.items():
        write_text(stem.with_suffix(suffix), text)
    plot(result, stem.with_suffix(".png"), title)
    return [stem.with_suffix(suffix) for suffix in (*texts, ".png")]


def markdown(result: Result, note: str) -> str:
    """Returns one table per test set and, with several seeds, the differences from its first row and the contrasts."""
    parts = [f"# {result.title}\n\n{note}\n"]
    for s in result.sets:
        header, rows = _grid(result, s)
        parts.append(f"\n## {s.name}\n\n{_pipes([header, *rows])}")
        seeds = max(len(c.values) for row in result.rows for c in row.cells[s.name])
        differences = result.differences(s) if seeds > 1 else []
        if differences:
            first = result.rows_with_values(s)[0]
            names = [c.metric for c in first.cells[s.name] if c.values]
            title = f"Difference from “{first.name}”, seed by seed (bold: the interval does not contain 0):"
            parts.append(_differences(title, names, differences))
            if result.table.contrasts:
                title = "Mean difference over the pairs of rows that differ in one component alone, seed by seed:"
                parts.append(_differences(title, names, result.contrasts(s)))
    return "".join(parts)


def _differences(title: str, metrics: Sequence[str], differences: Differences) -> str:
    rows = [[name, *(_difference(dict(cells).get(metric)) for metric in metrics)] for name, cells in differences]
    return f"\n{title}\n\n{_pipes([['points', *metrics], *rows])}"


def _grid(result: Result, test_set: TestSet) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of one test set; columns and rows without any value are left out."""
    result_rows = (*result.rows, *result.others, *result.baselines)
    cells = [row.cells[test_set.name] for row in result_rows]
    columns = []
    for i, metric in enumerate(cell.metric for cell in cells[0]):
        if any(row[i].paper is not None for row in cells):
            columns.append((f"{metric}, paper", [_number(row[i].paper) for row in cells]))
        if any(row[i].values for row in cells):
            columns.append((metric, ["" if row[i].ours is None else str(row[i].ours) for row in cells]))
    header = [result.table.axis or "", *(name for name, _ in columns)]
    seeds = max(len(cell.values) for row in cells for cell in row)
    rows = [
        [_row_name(row, test_set, seeds), *(column[i] for _, column in columns)] for i, row in enumerate(result_rows)
    ]
    return header, [row for row in rows if any(row[1:])]


def _row_name(row: ResultRow, test_set: TestSet, seeds: int) -> str:
    """The name of the row, with the number of its seeds if other rows have more."""
    count = max(len(cell.values) for cell in row.cells[test_set.name])
    return f"{row.name} ({count} of {seeds} seeds)" if 0 < count < seeds else row.name


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


def as_csv(result: Result, note: str) -> str:
    """Returns one line per metric, with the value of every seed and the note."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["table", "set", "row", "metric", "paper", "mean", "ci95", "seeds", "values", "note"])
    for row in (*result.rows, *result.others, *result.baselines):
        for s in result.sets:
            for cell in row.cells[s.name]:
                if cell.paper is not None or cell.values:
                    writer.writerow([result.table.number, s.name, row.name, cell.metric, *_columns(cell), note])
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
    """Returns one ``booktabs`` table per test set."""

    def escaped(text: str) -> str:
        for plain, command in _ESCAPES.items():
            text = text.replace(plain, command)
        return text

    parts = [f"% {result.title}. {' '.join(note.split())}\n"]
    for s in result.sets:
        head, body = _grid(result, s)
        header, *rows = (" & ".join(map(escaped, row)) + r" \\" for row in (head, *body))
        columns = "l" + "r" * header.count("&")
        lines = "\n".join(rows)
        parts.append(
            f"% {s.name}\n\\begin{{tabular}}{{{columns}}}\n\\toprule\n{header}\n\\midrule\n{lines}\n"
            "\\bottomrule\n\\end{tabular}\n"
        )
    return "".join(parts)
