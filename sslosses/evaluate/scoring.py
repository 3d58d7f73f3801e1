"""Scores saved maps by several protocols in one pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sslosses.annotations import Record
from sslosses.evaluate.benchmark import Benchmark, LazyTruths
from sslosses.evaluate.errors import CommandError, named
from sslosses.evaluate.frame_only import FrameMaps
from sslosses.evaluate.maps_to_score import OtherMaps
from sslosses.evaluate.saved_maps import SavedMaps
from sslosses.metrics import Comparison, LocalizationResult, Protocol, SoundLocalization, chance_levels, compare
from sslosses.metrics.localization import QuietLocalization

_CHUNK = 64


class BenchmarkScores(NamedTuple):
    """Result of :func:`score`."""

    results: list[LocalizationResult]  #: one per protocol
    ranking: list[tuple[str, float]]
    #: clips with a source from best to worst, with their AUC by the first protocol, −1 without one
    resolution: tuple[int, int] | None  #: height and width of a frame of the first maps; None without any map
    surplus: Surplus  #: clips with more maps than sources
    comparisons: tuple[Comparison, ...] = ()  #: with other maps, one per protocol; empty without any


class Surplus(NamedTuple):
    """Clips with more maps than sources."""

    clips: int = 0
    shape: tuple[int, ...] = ()  #: of the maps of the clip with most of them
    sources: int = 0  #: of that clip
    clip: str = ""

    def with_clip(self, record: Record, maps: Tensor) -> Surplus:
        """Returns the count with one more clip, if it has more maps than sources."""
        sources = len(record.boxes)
        if len(maps) <= sources or not sources:  # without a source, each map is a false alarm
            return self
        if self.shape and len(maps) - sources <= self.shape[0] - self.sources:
            return self._replace(clips=self.clips + 1)
        return Surplus(self.clips + 1, tuple(maps.shape), sources, record.clip)

    def __str__(self) -> str:
        """A sentence, empty without such a clip."""
        if not self.clips:
            return ""
        return (
            f"{self.clips:,} clips have more maps than sources, such as {named(self.clip)}: {self.shape[0]:,} maps for "
            f"{self.sources} source(s), from an array of shape {self.shape}"
        )


def steps(
    benchmark: Benchmark, protocols: Sequence[Protocol], chance: bool, against: bool = False, frame_only: int = 0
) -> int:
    """Returns the number of steps that :func:`score` reports, with a number of predictions that see the frame only."""
    return len(benchmark.records) * (1 + len(protocols) * ((4 if chance else 1) + against) + frame_only)


def score(
    saved: SavedMaps,
    benchmark: Benchmark,
    protocols: Sequence[Protocol],
    *,
    missing: Collection[str],
    chance: bool,
    seed: int,
    tick: Callable[[int], None],
    resamples: int = 1000,
    against: OtherMaps | None = None,
    frame_only: Mapping[str, FrameMaps] | None = None,
) -> BenchmarkScores:
    """Scores all records.

    Args:
        saved: the maps.
        benchmark: the annotations.
        protocols: the protocols to score by; the first one ranks the clips.
        missing: clips without a file, scored as clips without a map.
        chance: whether to compute chance levels.
        seed: seed of the random maps of the chance levels, and of the bootstrap.
        tick: called with the number of steps done.
        resamples: number of bootstrap resamples for the intervals.
        against: maps to compare with; None: no comparison.
        frame_only: predictions to score beside the chance levels, by name.

    Raises:
        CommandError: if maps cannot be scored; the message names their clips.
    """
    task, layout = benchmark.task, benchmark.layout.name
    metrics = [QuietLocalization(protocol, task=task, layout=layout) for protocol in protocols]
    single_clip = QuietLocalization(protocols[0], task=task, layout=layout)
    ranking: list[tuple[tuple[float, float], str]] = []
    problems: list[str] = []
    resolution = None
    surplus = Surplus()
    for records in _chunks(benchmark.records):
        maps = [_load(saved, benchmark, record, missing, problems) for record in records]
        if problems:  # only these will be reported: read the remaining maps to name all of them
            tick(len(records) * (1 + len(protocols)))
            continue
        pairs = zip(maps, records, strict=True)
        resolution = resolution or next((_resolution(m, r, benchmark) for m, r in pairs if len(m)), None)
        for metric in metrics:
            _update(metric, benchmark, records, maps)
            tick(len(records))
        for record, clip_maps in zip(records, maps, strict=True):
            surplus = surplus.with_clip(record, clip_maps)
            if not record.boxes:
                continue
            single_clip.reset()
            _update(single_clip, benchmark, [record], [clip_maps])
            values = single_clip.compute()
            key = _ranking_key([float(values[name]) for name in single_clip.metrics], single_clip.metrics)
            ranking.append((key, record.clip))
        tick(len(records))
    _raise_if_any(problems)
    comparisons: tuple[Comparison, ...] = ()
    if against is not None:
        others = _scored(against, benchmark, protocols, tick)
        pairs_of_metrics = zip(metrics, others, strict=True)
        comparisons = tuple(compare(a, b, resamples=resamples, seed=seed) for a, b in pairs_of_metrics)
    ranking.sort(key=lambda item: item[0], reverse=True)
    looked = _frame_only_levels(benchmark, protocols, frame_only or {}, tick)
    results = []
    for protocol, metric, other in zip(protocols, metrics, looked, strict=True):
        levels: Mapping[str, Mapping[str, Tensor]] = {}
        if chance:
            truths = LazyTruths(benchmark, protocol, tick)
            levels = chance_levels(
                truths,
                protocol,
                resolution=resolution or (7, 7),
                seed=seed,
                task=task,
                layout=layout,
                groups=_group_ids(benchmark.records),
            )
        results.append(
            metric.result(chance={**levels, **other}, class_names=benchmark.class_names, resamples=resamples, seed=seed)
        )
    return BenchmarkScores(results, [(clip, key[0]) for key, clip in ranking], resolution, surplus, comparisons)


def _scored(
    maps: OtherMaps, benchmark: Benchmark, protocols: Sequence[Protocol], tick: Callable[[int], None]
) -> list[SoundLocalization]:
    """One metric per protocol with all records."""
    metrics = [QuietLocalization(p, task=benchmark.task, layout=benchmark.layout.name) for p in protocols]
    problems: list[str] = []
    for records in _chunks(benchmark.records):
        loaded = [_load(maps.saved, benchmark, record, maps.missing, problems) for record in records]
        for metric in metrics if not problems else ():
            _update(metric, benchmark, records, loaded)
        tick(len(records) * len(protocols))
    _raise_if_any(problems, f" of {maps.saved.path}")
    return list(metrics)


def _raise_if_any(problems: Sequence[str], where: str = "") -> None:
    if problems:
        shown = "\n  ".join(problems[:20])
        more = f"\n  and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise CommandError(
            f"Expected maps{where} that can be scored, but got {len(problems)} that cannot:\n  {shown}{more}"
        )


def _frame_only_levels(
    benchmark: Benchmark,
    protocols: Sequence[Protocol],
    predictions: Mapping[str, FrameMaps],
    tick: Callable[[int], None],
) -> list[dict[str, Mapping[str, Tensor]]]:
    """Scores the predictions by each protocol; the maps of a clip are made once for all protocols."""
    levels: list[dict[str, Mapping[str, Tensor]]] = [{} for _ in protocols]
    task, layout = benchmark.task, benchmark.layout.name
    for name, maps_of in predictions.items():
        metrics = [QuietLocalization(protocol, task=task, layout=layout) for protocol in protocols]
        for records in _chunks(benchmark.records):
            maps = [maps_of(record) for record in records]
            pairs = zip(maps, records, strict=True)
            # As with chance levels, one map is that of every source.
            maps = [m.expand(max(1, len(r.boxes)), -1, -1) if len(m) == 1 else m for m, r in pairs]
            for metric in metrics:
                inverted = metric.protocol.inverts_maps  # maps of this protocol are low on sounding objects
                _update(metric, benchmark, records, [-m for m in maps] if inverted else maps)
            tick(len(records))
        for level, metric in zip(levels, metrics, strict=True):
            level[name] = metric.compute()
    return levels


def _load(
    saved: SavedMaps, benchmark: Benchmark, record: Record, missing: Collection[str], problems: list[str]
) -> Tensor:
    no_maps = torch.zeros(0, 1, 1)
    if record.clip in missing:
        return no_maps
    try:
        maps = saved.load(record.clip)
    except CommandError as error:
        problems.append(str(error))
        return no_maps
    wrong = benchmark.layout_error(record, maps)
    if wrong:
        problems.append(f"{record.clip}: {wrong}")
    return maps if len(maps) else no_maps


def _update(metric: SoundLocalization, benchmark: Benchmark, records: Sequence[Record], maps: list[Tensor]) -> None:
    truths = [benchmark.truth(record, metric.protocol) for record in records]
    classes = [benchmark.class_ids(record) for record in records]
    videos, groups = [benchmark.video(record) for record in records], _group_ids(records)
    try:
        metric.update(maps, truths, source_classes=classes, videos=videos, groups=groups)
    except ValueError as error:
        if len(records) == 1:
            raise CommandError(f"{records[0].clip}: {metric.protocol.name}: {error}") from error
        probe = SoundLocalization(metric.protocol, task=metric.task, layout=metric.layout)
        for record, clip_maps in zip(records, maps, strict=True):
            _update(probe, benchmark, [record], [clip_maps])
        raise


def _group_ids(records: Sequence[Record]) -> list[str]:
    """The group of each record; a record without one is its own."""
    return [record.group or record.clip for record in records]


def _resolution(maps: Tensor, record: Record, benchmark: Benchmark) -> tuple[int, int]:
    height, width = maps.shape[-2:]
    down, across = benchmark.layout.grid(len(record.boxes))
    return height // down, width // across


def _ranking_key(values: list[float], names: Sequence[str]) -> tuple[float, float]:
    """The AUC of a clip, and the mean of its metrics, which orders clips of the same AUC."""
    auc = values[names.index("AUC") if "AUC" in names else 0]
    known = [0.0 if math.isnan(value) else value for value in values]
    return (-1.0 if math.isnan(auc) else auc), sum(known) / len(known)


def _chunks(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    for start in range(0, len(records), _CHUNK):
        yield records[start : start + _CHUNK]
