"""Reads which clip is from which video, from a CSV file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sslosses.annotations import Record
from sslosses.annotations.text_files import lines_of
from sslosses.evaluate.errors import CommandError, named, some


def read_videos(path: Path, records: Sequence[Record]) -> dict[str, str]:
    """Reads lines ``clip,video``. A first line "clip,video" is a heading; clips that are not scored are skipped.

    Args:
        path: the file.
        records: annotations of the clips to score.

    Raises:
        AnnotationError: if the file is no UTF-8.
        CommandError: if a line has another form, a clip has two videos, a clip to score has none, or clips of one group
            are of several videos.
    """
    videos: dict[str, str] = {}
    for number, line in enumerate(lines_of(path), 1):
        clip, _, video = (part.strip() for part in line.partition(","))
        if not line.strip() or (number == 1 and (clip, video) == ("clip", "video")):
            continue
        if not clip or not video:
            raise CommandError(f"{path}: line {number}: expected 'clip,video', but got {line[:100]!r}")
        if videos.setdefault(clip, video) != video:
            raise CommandError(f"{path}: line {number}: expected one video per clip, but {named(clip)} has two")
    missing = [record.clip for record in records if record.clip not in videos]
    if missing:
        raise CommandError(
            f"{path}: expected the video of each scored clip, but it lacks {len(missing)}: {some(missing)}"
        )
    groups: dict[str, str] = {}
    for record in records:
        if record.group and groups.setdefault(record.group, videos[record.clip]) != videos[record.clip]:
            raise CommandError(f"{path}: expected one video per group, but {named(record.group)} has several")
    return videos
