"""Clips that are scored and in a training list."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sslosses.annotations import Record, lists
from sslosses.evaluate.clip_lists import OWN

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


def _plain(clip: str) -> str:
    """An id with its start second in six digits, as in most public lists."""
    match = _START.fullmatch(clip)
    return f"{match[1]}_{int(match[2]):06d}" if match else clip


def _video(clip: str) -> str:
    """The video of a clip; the id itself if it names none, as in Flickr-SoundNet."""
    match = _START.fullmatch(clip) or _FRAME.fullmatch(clip)
    return match[1] if match else clip
