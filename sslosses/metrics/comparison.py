"""Compares two metrics on the same samples: differences with paired bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities import rank_zero_warn

from sslosses.metrics._pipeline.bootstrap import interval, resampled, videos_of
from sslosses.metrics._pipeline.notes import few_videos
from sslosses.metrics._pipeline.tables import (
    AREA,
    CLASS,
    EMPTY,
    GROUP,
    SOURCE,
    SOURCES,
    VIDEO,
    metrics_of,
    samples_of,
)
from sslosses.metrics._protocol import labeled
from sslosses.metrics.localization import LocalizationTables, QuietLocalization, SoundLocalization
from sslosses.metrics.result import MetricValues, described, percent, plain, shown_interval
from sslosses.metrics.single import LocalizationMetric
from sslosses.metrics.spread import RESAMPLES, Bootstrap, Interval, check_groups, shown_count

_CLOSE = 1e-6  # between areas of one mask, whose pixels may be summed in another order


@dataclass(frozen=True)
class Comparison:
    """Differences between two metrics on the same samples.

    Args:
        protocol: the protocol's name.
        task: ``"mixtures"`` or ``"single"``.
        a: values of the first metric.
        b: values of the second one.
        differences: a − b.
        intervals: low and high end of the difference over resamples of whole videos; NaN with a single video.
        samples: number of samples.
        videos: number of videos; samples without an id of a video are one each.
        effective_videos: effective number of videos, see :class:`~sslosses.metrics.Spread`; the smaller one of the two.
        level: share of the resamples that an interval holds.
        resamples: number of resamples.
        seed: seed of the draws.
        notes: what a reader has to know.
        oracle: whether the scored ground truth set the area or the threshold of the marked pixels.
    """

    protocol: str
    task: str
    a: MetricValues
    b: MetricValues
    differences: MetricValues
    intervals: Mapping[str, Interval]
    samples: int
    videos: int
    effective_videos: float
    level: float
    resamples: int
    seed: int
    notes: tuple[str, ...] = ()
    oracle: bool = False

    @property
    def label(self) -> str:
        """The protocol's name as it is printed, with “(oracle)” behind it for an oracle."""
        return labeled(self.protocol, self.oracle)

    def __str__(self) -> str:
        """One line in percent: the differences with their intervals."""
        cells = [
            f"{name} {signed(value)} ({shown_interval(self.intervals.get(name))})"
            for name, value in self.differences.items()
        ]
        return f"{self.protocol} ({described(self.task, self.oracle)}) | {' | '.join(cells)} | {self.shown_counts()}"

    def shown_counts(self) -> str:
        """Returns the counts in words, as in "1,020 samples of 6 videos (effectively 1.0)"."""
        effective, unit = shown_count(self.effective_videos), "video" if self.videos == 1 else "videos"
        return f"{self.samples:,} samples of {self.videos:,} {unit} (effectively {effective})"

    def rows(self) -> list[list[str]]:
        """Returns one row of cells per metric, in percent: its name, a, b, a − b and the interval."""
        return [
            [
                name,
                percent(self.a[name]),
                percent(self.b[name]),
                signed(value),
                shown_interval(self.intervals.get(name)),
            ]
            for name, value in self.differences.items()
        ]

    def to_markdown(self) -> str:
        """Returns a Markdown table in percent with one row per metric."""
        head = [f"{self.label}, {self.task}", "a", "b", "a − b", f"{100 * self.level:g} % interval"]
        first, *others = (f"| {' | '.join(row)} |" for row in (head, *self.rows()))
        return "\n".join([first, "|" + "---|" * len(head), *others])

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain numbers, strings, lists and dicts; NaN becomes None."""
        content: dict[str, Any] = plain(asdict(self))
        return content


def compare(
    a: SoundLocalization | LocalizationMetric,
    b: SoundLocalization | LocalizationMetric,
    *,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    r"""Computes the differences between two metrics on the same samples, with paired bootstrap intervals.

    Each resample draws whole videos, the same ones for both metrics, so that samples that are hard for both do not
    widen the interval of :math:`m_a - m_b`. It is the percentile interval of the resamples' differences.

    Args:
        a: a metric that was given samples, such as :class:`~sslosses.metrics.SoundLocalization`.
        b: another one of the same rules, with the same samples in the same order, and with maps of another model.
        resamples: number of resamples; 0: no intervals.
        level: share of the resamples that an interval holds, in (0, 1).
        seed: seed of the draws.

    Returns:
        See :class:`Comparison`. Metrics that only one of the two computes are left out.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if the metrics have other rules (protocol, task or layout), other samples (their number, or a
            sample's video, group, classes or ground truth), or no metric in common, or an option is out of range.

    Warns:
        UserWarning: if the samples are of a few videos only, as
            :meth:`SoundLocalization.result <sslosses.metrics.SoundLocalization.result>`.

    Example:
        >>> import torch
        >>> from sslosses.metrics import SoundLocalization, compare, protocols
        >>> truths = torch.zeros(60, 1, 4, 4, dtype=torch.bool)
        >>> truths[..., :2] = True  # every object is the left half of the frame
        >>> good, noisy = truths.float(), torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        >>> metrics = [SoundLocalization(protocols.lvs.replace(size=4)) for _ in range(2)]
        >>> for metric, maps in zip(metrics, (good, noisy)):
        ...     metric.update(maps, truths, videos=[i // 3 for i in range(60)])
        >>> print(compare(*metrics).to_markdown())
        | lvs (changed), mixtures | a | b | a − b | 95 % interval |
        |---|---|---|---|---|
        | CIoU@0.5 | 100.0 | 13.3 | +86.7 | 80.0 to 93.3 |
        | AUC | 100.0 | 32.8 | +67.2 | 64.1 to 70.5 |
    """
    for name, metric in (("a", a), ("b", b)):
        if not isinstance(metric, SoundLocalization | LocalizationMetric):
            raise TypeError(f"Expected `{name}` to be a localization metric, but got {type(metric).__name__}")
    options = Bootstrap(resamples, level, seed)
    _check_rules(a, b)
    names = tuple(name for name in a.metrics if name in b.metrics)
    if not names:
        raise ValueError(f"Expected `b` to compute one of {', '.join(a.metrics)}, but got {', '.join(b.metrics)}")
    tables_a, tables_b = (_on_cpu(metric.gathered_tables()) for metric in (a, b))
    _check_samples(tables_a, tables_b)
    check_groups(tables_a[1])
    positions = a.protocol.average_positions
    first, second = (_values(names, tables, positions) for tables in (tables_a, tables_b))
    units = [videos_of(samples) for _, samples in (tables_a, tables_b)]
    count = len(units[0].keys)
    intervals = {}
    if resamples and count < 2:  # all resamples of one video are equal
        intervals = dict.fromkeys(names, (float("nan"), float("nan")))
    elif resamples:
        drawn_a, drawn_b = (
            resampled(names, *tables, unit, positions, resamples=resamples, seed=seed).values
            for tables, unit in zip((tables_a, tables_b), units, strict=True)
        )
        intervals = {name: interval(drawn_a[:, k] - drawn_b[:, k], level) for k, name in enumerate(names)}
    notes = tuple(dict.fromkeys(note for _, samples in (tables_a, tables_b) for note in few_videos(samples)))
    for note in notes if not isinstance(a, QuietLocalization) else ():
        rank_zero_warn(note, UserWarning)
    return Comparison(
        protocol=a.protocol.name,
        task=a.task,
        a=first,
        b=second,
        differences={name: first[name] - second[name] for name in names},
        intervals=intervals,
        samples=len(tables_a[1]),
        videos=count,
        effective_videos=min(unit.effective_count() for unit in units),
        level=options.level,
        resamples=options.resamples,
        seed=options.seed,
        notes=notes,
        oracle=a.protocol.oracle,
    )


_Tables = tuple[Tensor, Tensor]


def _on_cpu(tables: _Tables) -> _Tables:
    return tables[0].cpu(), tables[1].cpu()


def _values(names: tuple[str, ...], tables: _Tables, average_positions: bool) -> dict[str, float]:
    return {name: float(value) for name, value in metrics_of(names, *tables, average_positions).items()}


def signed(value: float) -> str:
    """Returns a difference in percent with its sign; a dash if there is none."""
    return "–" if value != value else f"{100 * value:+.1f}"


def _check_rules(a: LocalizationTables, b: LocalizationTables) -> None:
    rules = [
        {f"protocol {field.name}": getattr(metric.protocol, field.name) for field in fields(metric.protocol)}
        | {"task": metric.task, "layout": metric.layout, "scorer": type(metric.scorer).__qualname__}
        for metric in (a, b)
    ]
    for name, value in rules[0].items():
        other = rules[1][name]
        if value != other:
            name = "protocol" if name == "protocol name" else name
            raise ValueError(f"Expected `b` to have the rules of `a`, {name} {value!r}, but got {other!r}")


def _check_samples(a: _Tables, b: _Tables) -> None:
    if len(a[1]) != len(b[1]):
        raise ValueError(f"Expected `b` to hold the samples of `a` ({len(a[1]):,}), but got {len(b[1]):,}")
    for column, name in ((VIDEO, "video"), (GROUP, "group"), (SOURCES, "number of sources"), (EMPTY, "ground truth")):
        _refuse_first(a[1][:, column] != b[1][:, column], name)
    keys_a, truth_a = _truths(*a)
    keys_b, truth_b = _truths(*b)
    # A sample without a map has no entries under some protocols, so only those in both can be compared.
    truth_a, truth_b = truth_a[torch.isin(keys_a, keys_b)], truth_b[torch.isin(keys_b, keys_a)]
    sample = keys_a[torch.isin(keys_a, keys_b)] // _MOST
    for column, name in ((0, "class"), (1, "ground truth")):
        wrong = torch.zeros(len(a[1]), dtype=torch.bool)
        wrong[sample[(truth_a[:, column] - truth_b[:, column]).abs() > _CLOSE]] = True
        _refuse_first(wrong, name)


_MOST = 64  # sources per sample


def _truths(entries: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
    """A number for each entry's sample and source, sorted, and the class and area of that source."""
    own = entries[:, SOURCE] >= 0
    keys, order = (samples_of(samples)[own] * _MOST + entries[own, SOURCE].long()).sort()
    return keys, entries[own][order][:, [CLASS, AREA]]


def _refuse_first(wrong: Tensor, what: str) -> None:
    if bool(wrong.any()):
        sample = int(wrong.long().argmax())
        raise ValueError(
            f"Expected `b` to hold the samples of `a` in the same order, but sample {sample} has another {what}"
        )
