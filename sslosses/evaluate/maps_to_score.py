"""The maps to score: which clips have some, and what else is scored beside them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from sslosses.evaluate.benchmark import Benchmark
from sslosses.evaluate.errors import CommandError, some
from sslosses.evaluate.frame_only import FrameMaps
from sslosses.evaluate.saved_maps import SavedMaps


class OtherMaps(NamedTuple):
    """Maps to compare with."""

    saved: SavedMaps
    missing: Collection[str]  #: clips without a file, scored as clips without a map


class MapsToScore(NamedTuple):
    """The maps, and what is scored beside them."""

    saved: SavedMaps
    missing: Collection[str]  #: clips without a file, scored as clips without a map
    against: OtherMaps | None  #: maps to compare with
    frame_only: Mapping[str, FrameMaps]  #: predictions that see the frame only, by name


def check_clips(saved: SavedMaps, benchmark: Benchmark, allow_missing: bool) -> set[str]:
    """Returns the clips to score that have no map.

    Raises:
        CommandError: if there are any without ``allow_missing``, if all are, or if there are maps of clips without
            annotation.
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
        also = f"It holds {saved.contents} besides maps. " if saved.contents.others else ""
        raise CommandError(
            f"Expected maps of all {len(benchmark.records)} clips, but {saved.path} has none of {len(missing)}: "
            f"{some(missing)}. {also}Use --allow-missing to score them as clips without a map"
        )
    if len(missing) == len(benchmark.records):
        raise CommandError(f"Expected a map of at least one clip, but {saved.path} has none of {len(missing)}")
    return set(missing)
