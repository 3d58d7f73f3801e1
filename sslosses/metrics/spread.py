"""How much metrics are worth: means and intervals over videos, or over classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from sslosses._checks import check_count, check_number, check_seed
from sslosses.metrics._pipeline.bootstrap import Units, has_sums, interval, resampled, split_group, sums_of

Interval = tuple[float, float]
RESAMPLES = 1000
_UNKNOWN: Interval = (float("nan"), float("nan"))


@dataclass(frozen=True)
class Spread:
    r"""Means over videos and bootstrap intervals, if whole videos (or classes) are the independent samples.

    The intervals are percentiles of bootstrap resamples: each draws as many videos as there are, with replacement, and
    takes all entries of a video as often as it was drawn.

    Args:
        unit: ``"videos"`` or ``"classes"``.
        count: number of units.
        effective_count: the number of equally large units that would have the same weight,
            :math:`1 / \sum_v p_v^2`, where :math:`p_v` is the share of the entries that are of unit v.
        largest_share: the largest :math:`p_v`.
        means: mean over units of the metrics of each unit, without metrics of all entries together, such as DetAP.
        intervals: low and high end for each metric, NaN with a single unit; empty without resamples.
        mean_intervals: the same for ``means``.
        level: share of the resamples that an interval holds.
        resamples: number of resamples.
        seed: seed of the draws.
    """

    unit: str
    count: int
    effective_count: float
    largest_share: float
    means: Mapping[str, float]
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    mean_intervals: Mapping[str, Interval] = field(default_factory=dict)
    level: float = 0.95
    resamples: int = 0
    seed: int = 0

    def __str__(self) -> str:
        """The number of units, and the effective one, as in "20 videos (effectively 6.8)"."""
        unit = {"videos": "video", "classes": "class"}[self.unit] if self.count == 1 else self.unit
        return f"{self.count:,} {unit} (effectively {shown_count(self.effective_count)})"


def shown_count(effective: float) -> str:
    """Returns an effective number with one decimal below 100."""
    return "–" if effective != effective else f"{effective:.1f}" if effective < 100 else f"{effective:,.0f}"


@dataclass(frozen=True)
class Bootstrap:
    """Options of a bootstrap, checked."""

    resamples: int
    level: float
    seed: int

    def __post_init__(self) -> None:
        check_count("resamples", self.resamples, least=0)
        check_number("level", self.level, above=0, most=1 - 1e-9)
        check_seed("seed", self.seed)


def check_groups(samples: Tensor) -> None:
    """Raises if a group has samples of several videos, since resamples would tear it apart."""
    if split_group(samples):
        raise ValueError("Expected each group of `groups` to be of one video of `videos`, but got one of several")


def spread_of(
    unit: str,
    names: tuple[str, ...],
    entries: Tensor,
    samples: Tensor,
    units: Units,
    average_positions: bool,
    options: Bootstrap,
) -> Spread:
    """Computes the means over units and the intervals of the named metrics; a metric without either is left out."""
    with_sums = [name for name in names if has_sums(name, units)]
    values = {n: sums_of(n, entries, samples, units, average_positions).values() for n in with_sums}
    intervals: dict[str, Interval] = {}
    mean_intervals: dict[str, Interval] = {}
    if options.resamples and len(units.keys) < 2:  # all resamples of one unit are equal
        intervals = dict.fromkeys(names, _UNKNOWN)
        mean_intervals = dict.fromkeys(with_sums, _UNKNOWN)
    elif options.resamples:
        drawn = resampled(
            names, entries, samples, units, average_positions, resamples=options.resamples, seed=options.seed
        )
        intervals = {name: interval(drawn.values[:, k], options.level) for k, name in enumerate(names)}
        mean_intervals = {
            name: interval(drawn.means[:, k], options.level) for k, name in enumerate(names) if name in with_sums
        }
    return Spread(
        unit,
        len(units.keys),
        units.effective_count(),
        units.largest_share(),
        {name: float(value.nanmean()) for name, value in values.items()},
        intervals,
        mean_intervals,
        options.level,
        options.resamples,
        options.seed,
    )
