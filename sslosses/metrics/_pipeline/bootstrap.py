"""Bootstrap over units, such as videos: metrics of resamples that draw whole units with replacement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sslosses.metrics._pipeline.tables import (
    CLASS,
    GROUP,
    OF_GROUPS,
    OF_SAMPLES,
    SOURCE,
    VIDEO,
    metrics_of,
    per_threshold,
    samples_of,
    terms_of,
)
from sslosses.metrics._protocol import DETECTION, parse_metric

_CELLS = 2**23  # of the table of draws, at once


class Units(NamedTuple):
    """The units that are drawn as a whole: videos or classes."""

    keys: Tensor  # (U,), digest of the video or id of the class; negative for a sample that is its own video
    of_entries: Tensor  # (n,), index of each entry's unit, −1 without one
    of_samples: Tensor | None  # (m,); None for classes, as a sample can hold several

    def sizes(self) -> Tensor:
        """Number of entries of each unit, (U,)."""
        return torch.bincount(self.of_entries[self.of_entries >= 0], minlength=len(self.keys))

    def effective_count(self) -> float:
        """1 / Σ share², where the shares are those of the entries; NaN without an entry."""
        sizes = self.sizes().double()
        return float(sizes.sum() ** 2 / (sizes**2).sum())

    def largest_share(self) -> float:
        """Share of the entries that are of the largest unit; NaN without an entry."""
        sizes = self.sizes().double()
        return float(sizes.max() / sizes.sum()) if len(sizes) else float("nan")


def videos_of(samples: Tensor) -> Units:
    """Returns the videos of the samples; a sample without a video is one of its own."""
    own = -1.0 - torch.arange(len(samples), dtype=samples.dtype, device=samples.device)
    keys, unit = torch.unique(torch.where(samples[:, VIDEO] < 0, own, samples[:, VIDEO]), return_inverse=True)
    return Units(keys, unit[samples_of(samples)], unit)


def classes_of(entries: Tensor) -> Units:
    """Returns the classes of the entries."""
    keys, unit = torch.unique(entries[:, CLASS], return_inverse=True)
    unknown = int((keys < 0).sum())  # one key at most, the first
    return Units(keys[unknown:], unit - unknown, None)


def split_group(samples: Tensor) -> bool:
    """Whether a group has samples of several videos."""
    grouped = samples[samples[:, GROUP] >= 0]
    pairs = torch.unique(grouped[:, [VIDEO, GROUP]], dim=0)
    return len(pairs) > len(torch.unique(grouped[:, GROUP]))


class Sums(NamedTuple):
    """Sums and numbers of a metric's terms in each unit, by the source's position if the metric averages over them.

    A metric is its best value over the thresholds of the protocol, of which there is one with most protocols.
    """

    totals: Tensor  # (thresholds, U, P)
    counts: Tensor  # (thresholds, U, P)

    def values(self) -> Tensor:
        """The metric of each unit, (U,), NaN where it has no term."""
        return (self.totals / self.counts).nanmean(2).amax(0)

    def means(self, drawn: Tensor) -> Tensor:
        """The metric of each resample, (r,), where ``drawn`` (r, U) says how often each unit is drawn."""
        return ((drawn @ self.totals) / (drawn @ self.counts)).nanmean(2).amax(0)


def has_sums(name: str, units: Units) -> bool:
    """Whether a metric is a mean of terms that each belong to one unit."""
    kind, _ = parse_metric(name)
    return kind not in DETECTION and (units.of_samples is not None or kind not in (*OF_SAMPLES, *OF_GROUPS))


def sums_of(name: str, entries: Tensor, samples: Tensor, units: Units, average_positions: bool) -> Sums:
    """Returns the sums of one metric, see :func:`has_sums`."""
    parts = [_sums_at(name, part, samples, units, average_positions) for part in per_threshold(entries)]
    totals, counts = (torch.stack(tables) for tables in zip(*parts, strict=True))
    return Sums(totals, counts)


def _sums_at(
    name: str, entries: Tensor, samples: Tensor, units: Units, average_positions: bool
) -> tuple[Tensor, Tensor]:
    """Totals and counts (U, P) of entries at one threshold."""
    terms = terms_of(name, entries, samples)
    per_entry = parse_metric(name)[0] not in (*OF_SAMPLES, *OF_GROUPS)
    if per_entry:
        unit = units.of_entries
    else:
        assert units.of_samples is not None
        unit = units.of_samples[terms.samples]
    position, count = torch.zeros_like(unit), 1
    if average_positions and per_entry:
        position = entries[:, SOURCE].long()
        count = int(position.max()) + 1 if len(position) else 1
    kept = (unit >= 0) & (position >= 0)
    place = (unit * count + position)[kept]
    cells = terms.values.new_zeros(len(units.keys) * count)
    totals, counts = (cells.index_add(0, place, v) for v in (terms.values[kept], torch.ones_like(terms.values[kept])))
    return totals.reshape(-1, count), counts.reshape(-1, count)


def draws(units: int, resamples: int, seed: int) -> Iterator[Tensor]:
    """Yields how often each unit is drawn in some resamples, (r, U), float64; the r add up to ``resamples``."""
    generator = torch.Generator().manual_seed(seed)
    length = max(1, _CELLS // max(1, units))
    for start in range(0, resamples, length):
        rows = min(length, resamples - start)
        drawn = torch.randint(units, (rows, units), generator=generator)
        cells = (drawn + units * torch.arange(rows)[:, None]).flatten()
        yield torch.bincount(cells, minlength=rows * units).reshape(rows, units).double()


class Resampled(NamedTuple):
    """Metrics of the resamples."""

    values: Tensor  # (R, K)
    means: Tensor  # (R, K), means over units; NaN for a metric without sums


def resampled(
    names: Sequence[str],
    entries: Tensor,
    samples: Tensor,
    units: Units,
    average_positions: bool,
    *,
    resamples: int,
    seed: int,
) -> Resampled:
    """Computes metrics of bootstrap resamples of units.

    Tables of the same units get the same draws, so that their resamples are pairs.
    """
    known = {name: sums_of(name, entries, samples, units, average_positions) for name in names if has_sums(name, units)}
    values: list[Tensor] = []
    means: list[Tensor] = []
    for drawn in draws(len(units.keys), resamples, seed):
        nothing = drawn.new_full((len(drawn),), torch.nan)
        together = tuple(name for name in names if parse_metric(name)[0] in DETECTION)
        of_all = _of_all(together, entries, samples, units, average_positions, drawn) if together else {}
        values.append(torch.stack([known[n].means(drawn) if n in known else of_all.get(n, nothing) for n in names], 1))
        means.append(torch.stack([_mean_over_units(known[n], drawn) if n in known else nothing for n in names], 1))
    if not values:
        return Resampled(torch.zeros(0, len(names), dtype=torch.float64), torch.zeros(0, len(names)))
    return Resampled(torch.cat(values), torch.cat(means))


def _mean_over_units(sums: Sums, drawn: Tensor) -> Tensor:
    values = sums.values()
    known = ~values.isnan()
    return (drawn @ values.nan_to_num(0.0)) / (drawn @ known.double())


def _of_all(
    names: tuple[str, ...], entries: Tensor, samples: Tensor, units: Units, average_positions: bool, drawn: Tensor
) -> dict[str, Tensor]:
    """Metrics that need the rows of all entries: one resample after the other."""
    known = units.of_entries >= 0
    entries, unit = entries[known], units.of_entries[known]
    rows = []
    for times in drawn.long():
        others = samples if units.of_samples is None else _repeated(samples, times[units.of_samples])
        rows.append(metrics_of(names, _repeated(entries, times[unit]), others, average_positions))
    return {name: torch.stack([row[name] for row in rows]) for name in names}


def _repeated(table: Tensor, times: Tensor) -> Tensor:
    return table[torch.arange(len(table)).repeat_interleave(times)]


def interval(values: Tensor, level: float) -> tuple[float, float]:
    """Returns the percentile interval of resamples, (R,), without those that have no value; NaN if none has one."""
    tail = (1 - level) / 2
    known = values[~values.isnan()].double()
    if not len(known):
        return float("nan"), float("nan")
    low, high = torch.quantile(known, torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high
