"""Saved maps to metrics of several protocols at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sslosses.annotations import Record
from sslosses.evaluate.benchmark import Benchmark, Truths
from sslosses.evaluate.errors import CommandError, some
from sslosses.evaluate.saved_maps import SavedMaps
from sslosses.metrics import LocalizationResult, Protocol, SoundLocalization, chance_levels

_CHUNK = 64


class Scores(NamedTuple):
    """results: one a protocol. ranking: clips from best to worst, with their own AUC by the first protocol (−1 where
    it gives none). resolution: height and width of the first maps, a frame; None without any map."""

    results: list[LocalizationResult]
    ranking: list[tuple[str, float]]
    resolution: tuple[int, int] | None


def steps(benchmark: Benchmark, protocols: Sequence[Protocol], chance: bool) -> int:
    """How often :func:`score` ticks."""
    return len(benchmark.records) * (1 + len(protocols) * (4 if chance else 1))


def score(
    saved: SavedMaps,
    benchmark: Benchmark,
    protocols: Sequence[Protocol],
    *,
    missing: Collection[str],
    chance: bool,
    seed: int,
    tick: Callable[[int], None],
) -> Scores:
    """Score all records; clips of ``missing`` have no map.

    Raises:
        CommandError: naming the clips whose maps can't be scored.
    """
    metrics = [SoundLocalization(p, task=benchmark.task, layout=benchmark.layout) for p in protocols]
    alone = SoundLocalization(protocols[0], task=benchmark.task, layout=benchmark.layout)
    ranking: list[tuple[tuple[float, float], str]] = []
    problems: list[str] = []
    resolution = None
    for records in _chunks(benchmark.records):
        maps = [_load(saved, benchmark, record, missing, problems) for record in records]
        if problems:  # nothing will be reported but these; read on to name all
            tick(len(records) * (1 + len(protocols)))
            continue
        pairs = zip(maps, records, strict=True)
        resolution = resolution or next((_resolution(m, r, benchmark) for m, r in pairs if len(m)), None)
        for metric in metrics:
            _update(metric, benchmark, records, maps)
            tick(len(records))
        for record, own in zip(records, maps, strict=True):
            alone.reset()
            _update(alone, benchmark, [record], [own])
            values = alone.compute()
            ranking.append((_key([float(values[name]) for name in alone.metrics], alone.metrics), record.clip))
        tick(len(records))
    if problems:
        shown = "\n  ".join(problems[:20])
        more = f"\n  and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise CommandError(f"Expected maps that can be scored, but got {len(problems)} that cannot:\n  {shown}{more}")
    ranking.sort(key=lambda item: item[0], reverse=True)
    results = []
    for protocol, metric in zip(protocols, metrics, strict=True):
        levels: Mapping[str, Mapping[str, Tensor]] = {}
        if chance:
            truths = Truths(benchmark, protocol, tick)
            levels = chance_levels(
                truths,
                protocol,
                resolution=resolution or (7, 7),
                seed=seed,
                task=benchmark.task,
                layout=benchmark.layout,
            )
        results.append(metric.result(chance=levels, class_names=benchmark.class_names))
    return Scores(results, [(clip, key[0]) for key, clip in ranking], resolution)


def check_clips(saved: SavedMaps, benchmark: Benchmark, allow_missing: bool) -> set[str]:
    """The clips to score that have no map.

    Raises:
        CommandError: if there are any and they aren't allowed, or maps of clips without annotation.
    """
    known = {record.clip for record in benchmark.annotations} | set(benchmark.annotations.report.dropped)
    extra = [clip for clip in saved.clips if clip not in known]
    if extra:
        raise CommandError(
            f"Expected maps of annotated clips only, but {saved.path} holds {len(extra)} of others: {some(extra)}"
        )
    present = set(saved.clips)
    missing = [record.clip for record in benchmark.records if record.clip not in present]
    if missing and not allow_missing:
        raise CommandError(
            f"Expected maps of all {len(benchmark.records)} clips, but {saved.path} has none of {len(missing)}: "
            f"{some(missing)}. --allow-missing scores them as clips without a map"
        )
    return set(missing)


def _load(
    saved: SavedMaps, benchmark: Benchmark, record: Record, missing: Collection[str], problems: list[str]
) -> Tensor:
    nothing = torch.zeros(0, 1, 1)
    if record.clip in missing:
        return nothing
    try:
        maps = saved.load(record.clip)
    except CommandError as error:
        problems.append(str(error))
        return nothing
    wrong = benchmark.layout_error(record, maps)
    if wrong:
        problems.append(f"{record.clip}: {wrong}")
    return maps if len(maps) else nothing


def _update(metric: SoundLocalization, benchmark: Benchmark, records: Sequence[Record], maps: list[Tensor]) -> None:
    truths = [benchmark.truth(record, metric.protocol) for record in records]
    classes = [benchmark.class_ids(record) for record in records]
    try:
        metric.update(maps, truths, source_classes=classes)
    except ValueError as error:
        if len(records) == 1:
            raise CommandError(f"{records[0].clip}: {metric.protocol.name}: {error}") from error
        probe = SoundLocalization(metric.protocol, task=metric.task, layout=metric.layout)
        for record, own in zip(records, maps, strict=True):
            _update(probe, benchmark, [record], [own])
        raise


def _resolution(maps: Tensor, record: Record, benchmark: Benchmark) -> tuple[int, int]:
    height, width = maps.shape[-2:]
    sources = len(record.boxes)
    down, across = {"one": (1, 1), "stacked": (sources, 1), "side-by-side": (1, sources)}[benchmark.layout]
    return height // down, width // across


def _key(values: list[float], names: Sequence[str]) -> tuple[float, float]:
    """Of a clip: its AUC, and among clips of one AUC the mean of all metrics."""
    auc = values[names.index("AUC") if "AUC" in names else 0]
    known = [0.0 if math.isnan(value) else value for value in values]
    return (-1.0 if math.isnan(auc) else auc), sum(known) / len(known)


def _chunks(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    for start in range(0, len(records), _CHUNK):
        yield records[start : start + _CHUNK]
