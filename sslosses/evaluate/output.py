"""Tables and JSON that the command writes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sslosses.evaluate.benchmark import Benchmark
from sslosses.evaluate.scoring import BenchmarkScores
from sslosses.metrics import Comparison, LocalizationResult
from sslosses.metrics.result import MetricValues, percent

PARTS = ("oracle", "metrics", "counts", "videos", "chance", "per_class", "per_size", "per_video", "notes")


def tables(scores: BenchmarkScores, share: str, breakdown: bool) -> str:
    """Formats one Markdown table per protocol, in percent, with the counts and notes below.

    Args:
        scores: one result per protocol.
        share: sentences on the clips that were scored, one per line.
        breakdown: whether to add tables by size and by class of the object.
    """
    parts = []
    comparisons: Sequence[Comparison | None] = scores.comparisons or [None] * len(scores.results)
    for result, comparison in zip(scores.results, comparisons, strict=True):
        parts.append(_table(result))
        if comparison is not None:
            parts.append(_comparison(comparison, result.notes))
        if breakdown:
            parts += [_breakdown(f"{result.label}, %, by {kind}", groups) for kind, groups in _groups(result)]
    parts.append("".join(f"{line}\n" for line in _closing(scores, share)))
    return "\n".join(parts)


def latex(scores: BenchmarkScores, share: str) -> str:
    """Formats one LaTeX ``tabular`` per protocol, with its definition, counts and notes as comments."""
    parts = []
    for result in scores.results:
        comments = [result.description, result.printed_counts, *map(_note, result.notes), *_closing(scores, share)]
        parts.append("".join(f"% {line}\n" for line in comments) + f"{result.to_latex()}\n")
    return "\n".join(parts)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Formats a Markdown table; the first row is the head, and all columns but the first are aligned on the right."""
    return _grid(rows)


def _closing(scores: BenchmarkScores, share: str) -> list[str]:
    return [*share.splitlines(), *([_note(str(scores.surplus))] if scores.surplus.clips else [])]


def _note(text: str) -> str:
    return f"Note: {text}."


def _table(result: LocalizationResult) -> str:
    spread = [[title, *cells] for title, cells in result.spread_rows()]  # one column each
    columns = [["maps", *map(percent, result.metrics.values())], *spread]
    columns += [[name, *(percent(level[metric]) for metric in result.metrics)] for name, level in result.chance.items()]
    rows = [list(row) for row in zip([f"{result.label}, %", *result.metrics], *columns, strict=True)]
    notes = "".join(f"\n{_note(note)}\n" for note in result.notes)
    return f"{_grid(rows)}\n{result.printed_counts}\n{notes}"


def _comparison(comparison: Comparison, known: Sequence[str]) -> str:
    head = [f"{comparison.label}, %", "maps", "against", "difference", f"{100 * comparison.level:g} % interval"]
    notes = "".join(f"\n{_note(note)}\n" for note in comparison.notes if note not in known)
    return f"{_grid([head, *comparison.rows()])}\nDifferences over {comparison.shown_counts()}\n{notes}"


def _groups(result: LocalizationResult) -> list[tuple[str, Mapping[str, MetricValues]]]:
    groups = [("size", result.per_size), ("class", result.per_class)]
    return [(kind, parts) for kind, parts in groups if parts]


def _breakdown(title: str, groups: Mapping[str, MetricValues]) -> str:
    names = [name for name in next(iter(groups.values())) if name != "entries"]
    rows = [[title, *names, "entries"]]
    rows += [
        [group.replace("|", "\\|"), *(percent(part[n]) for n in names), f"{part['entries']:,.0f}"]
        for group, part in groups.items()
    ]
    return _grid(rows)


def _grid(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    first, *others = ("-" * width for width in widths)
    rule = f"| {' | '.join([first, *(f'{dashes[1:]}:' for dashes in others)])} |"
    return "\n".join([_row(rows[0], widths), rule, *(_row(row, widths) for row in rows[1:]), ""])


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return f"| {' | '.join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])} |"


def as_json(scores: BenchmarkScores, benchmark: Benchmark, missing: Sequence[str], **settings: Any) -> str:
    """Formats all metrics with the data they were measured on; metrics are fractions, null for NaN."""
    report = benchmark.annotations.report
    content = {
        **settings,
        "task": benchmark.task,
        "layout": benchmark.layout.name,
        "clips": len(benchmark.records),
        "listed_clips": benchmark.listed,
        "share": benchmark.share(len(missing)),
        "clips_without_map": list(missing),
        "clips_with_surplus_maps": scores.surplus._asdict(),
        "annotation_report": {
            "entries": report.entries,
            "boxes": report.boxes,
            "invalid": [str(box) for box in report.invalid],
            "without_box": list(report.without_box),
            "dropped": list(report.dropped),
        },
        "protocols": {
            result.protocol: {"definition": result.description, **{name: result.to_dict()[name] for name in PARTS}}
            for result in scores.results
        },
        "comparisons": {comparison.protocol: comparison.to_dict() for comparison in scores.comparisons},
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
