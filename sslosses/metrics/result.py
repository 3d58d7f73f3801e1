"""The result of an evaluation: metric values with counts, chance levels and breakdowns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sslosses.metrics._protocol import labeled
from sslosses.metrics.spread import Spread

#: Values of metrics by name.
MetricValues = Mapping[str, float]


@dataclass(frozen=True)
class LocalizationResult:
    """Metrics of one protocol on one data set, with counts, chance levels and breakdowns.

    Args:
        protocol: the protocol's name.
        description: the protocol in one line.
        task: ``"mixtures"`` or ``"single"``.
        metrics: the protocol's metrics as fractions in [0, 1], NaN where there is nothing to average.
        counts: ``entries``, ``samples``, ``samples_without_map``, ``empty_truths`` and ``samples_without_source``. The
            last one is printed where there are any.
        empty_truths: sources whose ground truth has no pixel, as (sample, source) in the order of the updates; with
            several processes, one process after the other.
        chance: the same metrics for input-independent predictions, by name of the prediction.
        per_class: metrics by class, with the number of ``entries``.
        per_size: metrics by size of the object, with the number of ``entries``: "small" below 32² of 224² pixels,
            "medium" below 96², "large" below 144², "huge" above, as in AVGN's code.
        notes: what a reader has to know, such as how many samples the metrics leave out; one text each.
        videos: number of videos, means over them and intervals; None if no ids of videos are known.
        classes: the same over classes; None unless asked for.
        per_video: metrics by video with the number of ``entries``, largest video first, without metrics of all entries
            together, such as DetAP.
        oracle: whether the scored ground truth set the area or the threshold of the marked pixels.

    Example:
        >>> from sslosses.metrics import LocalizationResult
        >>> counts = {"entries": 2040, "samples": 1020, "samples_without_map": 0, "empty_truths": 0}
        >>> chance = {"whole frame": {"CAP": 0.116}}
        >>> result = LocalizationResult("paper", "…", "mixtures", {"CAP": 0.443}, counts, chance=chance)
        >>> print(result)
        paper (mixtures) | CAP 44.3 (chance 11.6) | 2,040 entries, 1,020 samples, 0 samples without map, 0 empty truths
        >>> print(result.to_markdown())
        | paper, mixtures | CAP | entries |
        |---|---|---|
        | result | 44.3 | 2,040 |
        | whole frame | 11.6 | |
    """

    protocol: str
    description: str
    task: str
    metrics: MetricValues
    counts: Mapping[str, int]
    empty_truths: tuple[tuple[int, int], ...] = ()
    chance: Mapping[str, MetricValues] = field(default_factory=dict)
    per_class: Mapping[str, MetricValues] = field(default_factory=dict)
    per_size: Mapping[str, MetricValues] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    videos: Spread | None = None
    classes: Spread | None = None
    per_video: Mapping[str, MetricValues] = field(default_factory=dict)
    oracle: bool = False

    @property
    def label(self) -> str:
        """The protocol's name as it is printed, with “(oracle)” behind it for an oracle."""
        return labeled(self.protocol, self.oracle)

    @property
    def printed_counts(self) -> str:
        """The counts in words, as in "2,040 entries of 6 videos (effectively 1.0), 1,020 samples, …"."""
        shown = {n: v for n, v in self.counts.items() if v or n != "samples_without_source"}
        words = {name: f"{value:,} {name.replace('_', ' ')}" for name, value in shown.items()}
        if self.videos is not None:
            words["entries"] += f" of {self.videos}"
        return ", ".join(words.values())

    def __str__(self) -> str:
        """One line in percent, with the best chance level beside each metric."""
        cells = [f"{name} {percent(value)}{self._best_chance(name)}" for name, value in self.metrics.items()]
        return f"{self.protocol} ({described(self.task, self.oracle)}) | {' | '.join(cells)} | {self.printed_counts}"

    def _best_chance(self, name: str) -> str:
        levels = [levels[name] for levels in self.chance.values() if name in levels]
        known = [level for level in levels if level == level]
        return f" (chance {percent(max(known))})" if known else ""

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain numbers, strings, lists and dicts; NaN becomes None."""
        content: dict[str, Any] = plain(asdict(self))
        return content

    def to_json(self) -> str:
        """Returns everything as JSON; NaN becomes null."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)

    def to_markdown(self) -> str:
        """Returns a Markdown table in percent: one row for the result and one row per chance level.

        If videos are known, rows follow for the interval, the mean over videos and its interval. Samples without a map
        or a source and empty ground truth have a column where there are any.
        """
        head, rows = self._table()
        first, *others = ("|" + "".join(f" {cell} |" if cell else " |" for cell in cells) for cells in (head, *rows))
        return "\n".join([first, "|" + "---|" * len(head), *others])

    def to_latex(self) -> str:
        """Returns the same table as a LaTeX ``tabular`` with the rules of ``booktabs``."""
        head, rows = self._table()
        lines = [" & ".join(map(_latex, cells)) + r" \\" for cells in (head, *rows)]
        body = ["\\toprule", lines[0], "\\midrule", *lines[1:], "\\bottomrule"]
        return "\n".join([f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", *body, "\\end{tabular}"])

    def spread_rows(self) -> list[tuple[str, list[str]]]:
        """Returns the title and one cell per metric for the interval, the mean over videos and its interval."""
        if self.videos is None:
            return []
        spread, title = self.videos, f"{100 * self.videos.level:g} % interval"
        rows = [("mean over videos", [percent(spread.means.get(name, float("nan"))) for name in self.metrics])]
        if spread.intervals:
            rows.insert(0, (title, [shown_interval(spread.intervals.get(name)) for name in self.metrics]))
            rows.append((f"its {title}", [shown_interval(spread.mean_intervals.get(name)) for name in self.metrics]))
        return rows

    def _table(self) -> tuple[list[str], list[list[str]]]:
        names = list(self.metrics)
        counts = {"entries": f"{self.counts['entries']:,}"}
        if self.counts.get("samples_without_map"):
            counts["samples without map"] = f"{self.counts['samples_without_map']:,} of {self.counts['samples']:,}"
        if self.counts.get("empty_truths"):
            counts["empty truths"] = f"{self.counts['empty_truths']:,}"
        if self.counts.get("samples_without_source"):
            counts["samples without source"] = f"{self.counts['samples_without_source']:,}"
        head = [f"{self.label}, {self.task}", *names, *counts]
        rows = [["result", *(percent(self.metrics[n]) for n in names), *counts.values()]]
        rows += [[title, *cells, *("" for _ in counts)] for title, cells in self.spread_rows()]
        for prediction, levels in self.chance.items():
            rows.append([prediction, *(percent(levels.get(n, float("nan"))) for n in names), *("" for _ in counts)])
        return head, rows


_LATEX = {sign: f"\\{sign}" for sign in "&%_#${}"} | {"–": "--", "\\": "\\textbackslash{}"}
_LATEX |= {"^": "\\textasciicircum{}", "~": "\\textasciitilde{}"}


def described(task: str, oracle: bool) -> str:
    """Returns the task as it is printed in parentheses, with “oracle” behind it for an oracle."""
    return f"{task}, oracle" if oracle else task


def percent(value: float) -> str:
    """Returns a share in percent; a dash for NaN."""
    return "–" if value != value else f"{100 * value:.1f}"


def shown_interval(ends: Sequence[float] | None) -> str:
    """Returns an interval in percent, as in "30.1 to 42.5"; a dash if there is none."""
    if ends is None or ends[0] != ends[0]:
        return "–"
    return f"{percent(ends[0])} to {percent(ends[1])}"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def plain(value: Any) -> Any:
    """Returns plain lists and dicts, with None for NaN."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and value != value else value
