"""The rates at which the ids of MUSIC count the frames of each video, kept beside the clips that were made with them.

A clip's time depends on the rate, and the rate on all clips of the video. So that a later run with fewer clips left, or
with a shorter list, makes the same frames, a rate is chosen once, from all listed ids, and then kept.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .. import pool
from ..clip_ids import ClipId, frame_rate
from ..files import read_json, write_json
from ..parts import Part
from . import worker
from .videos import VideoFile

log = logging.getLogger(__name__)
FILE = "frame_rates.json"  # in metadata/
PARTS = "parts"  # folder in metadata/ of the files of parts


def settle_rates(
    listed: Iterable[str],
    to_do: Mapping[VideoFile, Sequence[str]],
    prepared: set[str],
    out: Path,
    workers: int,
    part: Part | None = None,
) -> dict[str, float]:
    """Returns the rate of each video that has clips to prepare, and keeps it in ``metadata/frame_rates.json``,
    or in a file of its own for a part.

    The ids that count are the listed ones and those of earlier lists whose frames are there. A rate that was kept is
    used as long as it fits all of them. If it does not, because it was chosen by too few ids, the clips that were made
    with it are deleted and removed from ``prepared``, to be made again.

    Args:
        listed: ids of all clips of all lists.
        to_do: ids of the clips to prepare, by file.
        prepared: ids of the listed clips that are prepared.
        out: the folder that is written.
        workers: number of processes.
        part: the part whose clips are listed; ``None``: all.

    Raises:
        ValueError: if the file of kept rates is malformed.
    """
    clips = _by_video(listed)
    for path in (out / "frames").iterdir():
        if (video := _video(path)) in clips:
            clips[video].append(ClipId.parse(path.stem))
    own = _own_file(out, part)
    kept_here = _read(own)
    kept = _kept(out) | kept_here
    rates = {video: kept[video] for video in clips if _fits(clips[video], kept.get(video))}
    files = {ClipId.parse(names[0]).video: file.path for file, names in to_do.items() if names}
    undecided = {path: video for video, path in files.items() if video in clips and video not in rates}
    for path, rate in pool.run(worker.file_rate, list(undecided), workers):
        video = undecided[path]
        rates[video] = frame_rate(clips[video], None if isinstance(rate, pool.Crash) else rate)
    for video in clips.keys() & kept.keys() - rates.keys():  # its file is gone
        rates[video] = frame_rate(clips[video])
    _delete(
        {video for video in kept.keys() & rates.keys() if not math.isclose(kept[video], rates[video])}, prepared, out
    )
    _warn_of_unknown([name for name in prepared if ClipId.parse(name).video in clips.keys() - kept.keys()])
    if kept_here | rates != kept_here:
        write_json(own, dict(sorted((kept_here | rates).items())))
    return rates


def join_rates(out: Path, parts: Iterable[Part]) -> None:
    """Joins the rates that ``parts`` keep into ``metadata/frame_rates.json``. A video's clips are in one part."""
    path = _own_file(out, None)
    rates = _read(path)
    for part in parts:
        rates |= _read(_own_file(out, part))
    if rates:
        write_json(path, dict(sorted(rates.items())))


def _own_file(out: Path, part: Part | None) -> Path:
    metadata = out / "metadata"
    return metadata / FILE if part is None else metadata / PARTS / f"{part.file_name}.{FILE}"


def _kept(out: Path) -> dict[str, float]:
    """All rates that are kept: those of parts of any number, too, unless they were joined."""
    kept: dict[str, float] = {}
    for path in sorted((out / "metadata" / PARTS).glob(f"*.{FILE}")):
        kept |= _read(path)
    return kept | _read(out / "metadata" / FILE)


def _by_video(names: Iterable[str]) -> dict[str, list[ClipId]]:
    """The clips whose ids count frames, by video."""
    clips: dict[str, list[ClipId]] = {}
    for clip in map(ClipId.parse, names):
        if clip.frame is not None:
            clips.setdefault(clip.video, []).append(clip)
    return clips


def _fits(clips: Iterable[ClipId], rate: float | None) -> bool:
    return rate is not None and all(clip.fits(rate) for clip in clips)


def _read(path: Path) -> dict[str, float]:
    if not path.is_file():
        return {}
    rates = read_json(path)
    if not isinstance(rates, dict) or not all(isinstance(r, int | float) and 0 < r < math.inf for r in rates.values()):
        raise ValueError(f"Expected {path} to hold a frame rate per video. Restore it, or delete {path.parent.parent}")
    return rates


def _delete(videos: set[str], prepared: set[str], out: Path) -> None:
    """Deletes all clips of ``videos``, listed or not.

    This comes before their new rates are kept, so that a kill in between leaves no clip of an old rate.
    """
    paths = [path for folder in ("frames", "audio") for path in (out / folder).iterdir() if _video(path) in videos]
    for path in paths:
        path.unlink()
        prepared.discard(path.stem)
    if paths:
        count = len({path.stem for path in paths})
        log.warning(
            "The ids give other frame rates than before: %d clips are deleted, and made again if listed.", count
        )


def _video(path: Path) -> str | None:
    """The video of a clip's file, if the clip's id counts frames."""
    try:
        clip = ClipId.parse(path.stem)
    except ValueError:
        return None
    return None if clip.frame is None else clip.video


def _warn_of_unknown(names: Sequence[str]) -> None:
    if names:
        log.warning(
            "%d prepared clips have no frame rate in %s, so they may show other moments than clips that are made now. "
            "To be sure, delete frames/ and audio/ and run the command again. First: %s",
            len(names),
            FILE,
            min(names),
        )
