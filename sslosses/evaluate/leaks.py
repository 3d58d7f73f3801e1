"""Clips that are scored and in a training list, and the metrics with and without them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from sslosses.annotations import Record, lists
from sslosses.evaluate.benchmark import Benchmark
from sslosses.evaluate.clip_lists import OWN
from sslosses.evaluate.output import markdown
from sslosses.evaluate.progress import progress
from sslosses.evaluate.saved_maps import SavedMaps
from sslosses.evaluate.scoring import BenchmarkScores, score, steps
from sslosses.metrics import LocalizationResult, Protocol
from sslosses.metrics.comparison import signed
from sslosses.metrics.result import percent

# YouTube's ids have eleven characters, which may include "_" and "-".
_VIDEO = re.compile(r"[\w-]{11}", re.ASCII)
_START = re.compile(r"([\w-]{11})_(\d{1,6})", re.ASCII)  # VGGSound: the start second, with or without zeros before it
_FRAME = re.compile(r"([\w-]{11})_\d{3,6}_\d{5,8}", re.ASCII)  # MUSIC: second and frame


class Leak(NamedTuple):
    """Scored clips that a training list holds.

    Args:
        path: the list.
        recognized: the public list of exactly these ids, if it is one.
        listed: number of ids in it.
        scored: number of scored clips.
        same: ids of the scored clips that are in it. A list of videos holds all clips of these videos.
        related: ids of other scored clips that are of a video of the list.
    """

    path: Path
    recognized: lists.ClipList | None
    listed: int
    scored: int
    same: tuple[str, ...]
    related: tuple[str, ...]

    @property
    def seen(self) -> frozenset[str]:
        """Ids of the clips that are in the list or of a video of it."""
        return frozenset((*self.same, *self.related))

    @property
    def name(self) -> str:
        """Name of the public list, or that it is none."""
        return self.recognized.name if self.recognized else OWN

    def __str__(self) -> str:
        """A sentence, such as "3,709 of the 5,158 scored clips are in the training list vggsound-144k-slavc"."""
        text = (
            f"{len(self.same):,} of the {self.scored:,} scored clips are in the training list "
            f"{self.path.name} ({self.name}, {self.listed:,} ids)"
        )
        if self.related:
            text += f", and {len(self.related):,} more are of videos in it"
        return f"{text}. No clip is left without them" if len(self.seen) == self.scored else text

    def to_dict(self) -> dict[str, Any]:
        """Returns name, counts and the ids of the clips."""
        return {
            "file": str(self.path),
            "name": self.name,
            "ids": self.listed,
            "scored_clips_in_it": list(self.same),
            "scored_clips_of_its_videos": list(self.related),
        }


def find_leak(path: Path, records: Sequence[Record]) -> Leak:
    """Finds the records whose clips are in a training list.

    Ids may have any public form: ``<video>_000030``, ``<video>_30``, ``<video>`` alone, with a folder and a suffix, in
    the first column of a CSV file, or rows ``<video>,30,class,train`` as in ``vggsound.csv``, whose test rows do not
    count.

    Raises:
        AnnotationError: if the file cannot be read.
    """
    ids = lists.read_ids(path, "train")
    trained = {_plain(clip) for clip in ids}
    whole_videos = {clip for clip in ids if _VIDEO.fullmatch(clip)}
    videos = {_video(clip) for clip in ids}
    same, related = [], []
    for record in records:
        if any(_plain(clip) in trained or _video(clip) in whole_videos for clip in record.clips):
            same.append(record.clip)
        elif any(_video(clip) in videos for clip in record.clips):
            related.append(record.clip)
    return Leak(path, lists.recognize(ids), len(ids), len(records), tuple(same), tuple(related))


def compare_unseen(
    leak: Leak,
    benchmark: Benchmark,
    scores: BenchmarkScores,
    *,
    saved: SavedMaps,
    protocols: Sequence[Protocol],
    missing: Collection[str],
    chance: bool,
    seed: int,
    resamples: int,
) -> Comparison:
    """Scores the clips again that were not seen in training, if some were; see :func:`score` for the arguments."""
    unseen = tuple(record for record in benchmark.records if record.clip not in leak.seen)
    if len(unseen) in (0, len(benchmark.records)):
        return Comparison(leak, scores.results, [])
    part = replace(benchmark, records=unseen, list_name=None)
    with progress(steps(part, protocols, chance)) as tick:
        rest = score(
            saved,
            part,
            protocols,
            missing={record.clip for record in unseen}.intersection(missing),
            chance=chance,
            seed=seed,
            tick=tick,
            resamples=resamples,
        )
    return Comparison(leak, scores.results, rest.results)


class Comparison(NamedTuple):
    """Results with and without the clips that were seen in training."""

    leak: Leak
    every: list[LocalizationResult]
    unseen: list[LocalizationResult]  #: empty if no clip was seen, or every one

    def __str__(self) -> str:
        """A Markdown table of all metrics with and without these clips, in percent; empty if there is no difference."""
        if not self.unseen:
            return ""
        rest = self.leak.scored - len(self.leak.seen)
        head = ["metric, %", f"all {self.leak.scored:,} clips", f"{rest:,} not seen in training", "difference"]
        rows = [head]
        for before, after in zip(self.every, self.unseen, strict=True):
            for name, value in before.metrics.items():
                other = after.metrics[name]
                cells = [percent(value), percent(other), signed(other - value)]
                rows.append([f"{before.label}, {name}", *cells])
        return markdown(rows)

    def to_dict(self) -> dict[str, Any]:
        """Returns the leak, and metrics, counts and chance levels without the clips by protocol."""
        names = ("metrics", "counts", "chance")
        parts = {result.protocol: result.to_dict() for result in self.unseen}
        unseen = {protocol: {name: content[name] for name in names} for protocol, content in parts.items()}
        return {**self.leak.to_dict(), "without_these_clips": unseen}


def _plain(clip: str) -> str:
    """An id with its start second in six digits, as in most public lists."""
    match = _START.fullmatch(clip)
    return f"{match[1]}_{int(match[2]):06d}" if match else clip


def _video(clip: str) -> str:
    """The video of a clip; the id itself if it names none, as in Flickr-SoundNet."""
    match = _START.fullmatch(clip) or _FRAME.fullmatch(clip)
    return match[1] if match else clip
