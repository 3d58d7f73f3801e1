"""Builds the result of an evaluation from the tables of a metric."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from torch import Tensor

from sslosses.metrics._pipeline.bootstrap import Units, classes_of, has_sums, sums_of, videos_of
from sslosses.metrics._pipeline.notes import notes_of
from sslosses.metrics._pipeline.tables import (
    CLASS,
    OF_GROUPS,
    OF_SAMPLES,
    SAMPLE_COLUMNS,
    VIDEO,
    by_size,
    counts_of,
    empty_truths_of,
    metrics_of,
)
from sslosses.metrics._protocol import Protocol, parse_metric
from sslosses.metrics.result import LocalizationResult
from sslosses.metrics.spread import RESAMPLES, Bootstrap, Spread, check_groups, spread_of

ChanceLevels = Mapping[str, Mapping[str, Tensor]]


def result_of(
    metrics: tuple[str, ...],
    tables: tuple[Tensor, Tensor],
    protocol: Protocol,
    task: str,
    *,
    chance: ChanceLevels | None,
    class_names: Sequence[str] | None,
    video_names: Mapping[int, str],
    resamples: int | None,
    level: float,
    seed: int,
    over_classes: bool,
) -> LocalizationResult:
    """Builds the result; arguments as for :meth:`SoundLocalization.result`."""
    entries, samples = (table.cpu() for table in tables)
    known = [int(c) for c in sorted(set(entries[:, CLASS].tolist())) if c >= 0]
    names = {c: str(c) for c in known} if class_names is None else _named(known, class_names)
    levels = _levels(metrics, chance or {})
    has_videos = bool((samples[:, VIDEO] >= 0).any())
    if resamples is None:
        resamples = RESAMPLES if has_videos or over_classes else 0
    check_groups(samples)

    bootstrap = Bootstrap(resamples, level, seed)

    def spread(unit: str, units: Units) -> Spread:
        return spread_of(unit, metrics, entries, samples, units, protocol.average_positions, bootstrap)

    def part(rows: Tensor) -> dict[str, float]:
        # These belong to a sample or a group, not to one of its entries.
        own = tuple(name for name in metrics if parse_metric(name)[0] not in (*OF_SAMPLES, *OF_GROUPS))
        # Samples without a source belong to no class and no size.
        no_samples = rows.new_zeros(0, SAMPLE_COLUMNS)
        return _numbers(metrics_of(own, rows, no_samples, protocol.average_positions)) | {"entries": len(rows)}

    videos = videos_of(samples)
    return LocalizationResult(
        protocol=protocol.name,
        oracle=protocol.oracle,
        description=str(protocol),
        task=task,
        metrics=_numbers(metrics_of(metrics, entries, samples, protocol.average_positions)),
        counts={name: int(value) for name, value in counts_of(entries, samples).items()},
        empty_truths=empty_truths_of(samples),
        chance=levels,
        per_class={name: part(entries[entries[:, CLASS] == c]) for c, name in names.items()},
        per_size={name: part(rows) for name, rows in by_size(entries).items() if len(rows)},
        notes=notes_of(metrics, samples, protocol),
        videos=spread("videos", videos) if has_videos or resamples else None,
        classes=spread("classes", classes_of(entries)) if over_classes else None,
        per_video=_per_video(metrics, entries, samples, videos, protocol, video_names) if has_videos else {},
    )


def _levels(metrics: tuple[str, ...], chance: ChanceLevels) -> dict[str, dict[str, float]]:
    for prediction, levels in chance.items():
        missing = [name for name in metrics if name not in levels]
        if missing:
            raise ValueError(
                f"Expected `chance` to hold levels of {', '.join(metrics)}, but {prediction!r} lacks "
                f"{', '.join(missing)}"
            )
    return {prediction: _numbers({name: levels[name] for name in metrics}) for prediction, levels in chance.items()}


def _per_video(
    metrics: tuple[str, ...],
    entries: Tensor,
    samples: Tensor,
    videos: Units,
    protocol: Protocol,
    names: Mapping[int, str],
) -> dict[str, dict[str, float]]:
    """The metrics of each video, largest video first."""
    columns = {
        name: sums_of(name, entries, samples, videos, protocol.average_positions).values().tolist()
        for name in metrics
        if has_sums(name, videos)
    }
    sizes = videos.sizes().tolist()
    titles = _titles([int(key) for key in videos.keys.tolist()], names)
    order = sorted(range(len(titles)), key=lambda v: (-sizes[v], titles[v]))
    return {titles[v]: {name: column[v] for name, column in columns.items()} | {"entries": sizes[v]} for v in order}


def _titles(keys: Sequence[int], names: Mapping[int, str]) -> list[str]:
    """The ids of the videos; a sample without one is named by its number."""
    titles = [f"sample {-1 - key}" if key < 0 else names[key] for key in keys]
    times = Counter(titles)
    return [title if times[title] == 1 else f"{title} ({key})" for title, key in zip(titles, keys, strict=True)]


def _named(known: Sequence[int], class_names: Sequence[str]) -> dict[int, str]:
    names: dict[int, str] = {}
    for number in known:
        try:
            name = class_names[number]
        except LookupError:
            raise ValueError(
                f"Expected `class_names` to name class {number}, but got {len(class_names)} names"
            ) from None
        if name in names.values():
            raise ValueError(f"Expected `class_names` to be distinct, but got {name!r} twice")
        names[number] = name
    return names


def _numbers(metrics: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}
