"""Prepares all clips of one video. Imports no torch, because every worker process loads this module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..clip_files import write_frame, write_sound
from ..clip_ids import ClipId
from ..machine_errors import of_this_machine
from ..sounds import level
from .excerpts import Unusable, inspect, read_frames, read_sounds

_GAP = 20.0  # s between clips above which seeking is cheaper than decoding
_MAX_SPAN = 600.0  # s decoded at a time, to limit memory
_EARLIER = (2.0, 1.0)  # s before a frame of VGGSound, to which it is compared
_STILL = 1.0  # mean difference of gray levels below which two pictures are the same: compression alone makes some


class Job(NamedTuple):
    """A video file and the clips to prepare from it.

    Args:
        path: the video file.
        names: ids of its clips.
        rate: rate at which the ids count frames, in Hz; ``None`` for ids of VGGSound, which count none.
        cut: whether the file contains only the 10 s of a VGGSound clip, not the whole video.
        out: folder to write.
        side: maximum length of a frame's shorter side, in pixels.
        silence: level in dBFS below which a clip counts as silent.
    """

    path: Path
    names: tuple[str, ...]
    rate: float | None
    cut: bool
    out: Path
    side: int
    silence: float


class Outcome(NamedTuple):
    """The result for one clip: ``reason`` is empty if it was prepared, else it says why not.

    ``still``: the picture does not move before the frame. Only clips of VGGSound are looked at.
    """

    name: str
    reason: str = ""
    detail: str = ""
    still: bool = False


class Excerpt(NamedTuple):
    """The frame and the sound of a clip, and whether the picture is still before the frame."""

    frame: Image.Image
    sound: np.ndarray
    still: bool = False


def file_rate(path: Path) -> float | None:
    """Returns the frame rate of a video file in Hz; ``None`` if it can't be read, which :func:`prepare` reports."""
    try:
        return inspect(path).rate
    except Exception as error:  # decoders raise any error on broken files
        if of_this_machine(error):
            raise
        return None


def prepare(job: Job) -> list[Outcome]:
    """Writes the frame and the sound of each clip. Problems of the video become outcomes, not errors.

    Raises:
        OSError: if a file cannot be written, or this machine lacks something that reading needs.
        MemoryError: if memory runs out.
    """
    outcomes = {}
    for name, excerpt in _excerpts(job):
        if isinstance(excerpt, Unusable):
            outcomes[name] = Outcome(name, excerpt.reason, excerpt.detail)
        else:
            _write(job, name, excerpt)
            outcomes[name] = Outcome(name, still=excerpt.still)
    return [outcomes[name] for name in job.names]


def _excerpts(job: Job) -> Iterator[tuple[str, Excerpt | Unusable]]:
    """Decodes all clips. If the video can't be decoded any further, the clips that are left are unusable.

    Nothing is written in here, so that no error of writing is taken for one of the video.
    """
    left = dict.fromkeys(job.names)
    try:
        for name, excerpt in _decode(job):
            del left[name]
            yield name, excerpt
        return
    except Unusable as problem:
        reason = problem
    except Exception as error:  # decoders raise any error on broken files, which must not stop the other videos
        if of_this_machine(error):
            raise
        reason = Unusable("cannot be decoded", f"{type(error).__name__}: {error}")
    yield from ((name, reason) for name in left)


def _decode(job: Job) -> Iterator[tuple[str, Excerpt | Unusable]]:
    origin = inspect(job.path).origin
    clips = {name: ClipId.parse(name) for name in job.names}
    times = {name: clip.seconds_at(job.rate) - (clip.second if job.cut else 0) for name, clip in clips.items()}
    names = sorted(times, key=times.__getitem__)
    for span in _spans([times[name] for name in names]):
        sounds = {}
        part = names[span]
        for name, sound in zip(part, read_sounds(job.path, [times[n] for n in part], origin), strict=True):
            checked = sound if isinstance(sound, Unusable) else audible(sound, job.silence)
            if isinstance(checked, Unusable):
                yield name, checked
            else:
                sounds[name] = checked
        if sounds:
            frames = _frames(job, [times[name] for name in sounds], origin)
            for (name, sound), (frame, still) in zip(sounds.items(), frames, strict=True):
                yield name, frame if isinstance(frame, Unusable) else Excerpt(frame, sound, still)


def _frames(job: Job, times: list[float], origin: float) -> Iterator[tuple[Image.Image | Unusable, bool]]:
    """Yields the frame at each of the ascending ``times``, and whether the picture was the same before it."""
    counts_frames = ClipId.parse(job.names[0]).frame is not None  # an id of MUSIC
    shifts = (0.0,) if counts_frames else (*_EARLIER, 0.0)
    points = sorted(
        (time - shift, number, shift) for number, time in enumerate(times) for shift in shifts if time >= shift
    )
    earlier: list[list[np.ndarray]] = [[] for _ in times]
    for (_, number, shift), frame in zip(points, read_frames(job.path, [p[0] for p in points], origin), strict=True):
        picture = None if isinstance(frame, Unusable) else _small(frame)
        if shift == 0:
            differences = [] if picture is None else [np.abs(picture - other).mean() for other in earlier[number]]
            yield frame, bool(differences and max(differences) < _STILL)
        elif picture is not None:
            earlier[number].append(picture)


def _small(frame: Image.Image) -> np.ndarray:
    return np.asarray(frame.convert("L").resize((64, 64), Image.Resampling.BOX), np.float32)


def audible(sound: np.ndarray, silence: float) -> np.ndarray | Unusable:
    """Returns a sound of int16 samples, unless its level is below ``silence`` dBFS."""
    loudness = level(sound / 32_768)
    return Unusable("silent", f"{loudness:.0f} dBFS") if loudness < silence else sound


def _write(job: Job, name: str, excerpt: Excerpt) -> None:
    write_frame(job.out / "frames" / f"{name}.jpg", scaled_down(excerpt.frame, job.side), quality=95)
    write_sound(job.out / "audio" / f"{name}.wav", excerpt.sound)


def scaled_down(frame: Image.Image, side: int) -> Image.Image:
    """Returns a frame whose shorter side has at most ``side`` pixels."""
    scale = side / min(frame.size)
    if scale >= 1:
        return frame
    return frame.resize([max(1, round(length * scale)) for length in frame.size], Image.Resampling.LANCZOS)


def _spans(times: list[float]) -> Iterator[slice]:
    """Splits ascending ``times`` into spans, each of which is decoded without seeking."""
    first = 0
    for index in range(1, len(times) + 1):
        if index == len(times) or times[index] - times[index - 1] > _GAP or times[index] - times[first] > _MAX_SPAN:
            yield slice(first, index)
            first = index
