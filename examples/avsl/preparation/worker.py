"""Prepares all clips of one video. Imports no torch, because every worker process loads this module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import soundfile
from PIL import Image

from ..clip_ids import ClipId, frame_rate
from ..constants import SAMPLE_RATE
from ..files import atomic_write
from ..sounds import level
from .excerpts import Unusable, inspect, read_frames, read_sounds

_GAP = 20.0  # s between clips above which seeking is cheaper than decoding
_MAX_SPAN = 600.0  # s decoded at a time, to limit memory


class Job(NamedTuple):
    """A video file and the clips to prepare from it.

    Args:
        path: the video file.
        names: ids of its clips.
        cut: whether the file contains only the 10 s of a VGGSound clip, not the whole video.
        out: folder to write.
        side: maximum length of a frame's shorter side, in pixels.
        silence: level in dBFS below which a clip counts as silent.
    """

    path: Path
    names: tuple[str, ...]
    cut: bool
    out: Path
    side: int
    silence: float


class Outcome(NamedTuple):
    """The result for one clip: ``reason`` is empty if it was prepared, else it says why not."""

    name: str
    reason: str = ""
    detail: str = ""


def prepare(job: Job) -> list[Outcome]:
    """Writes the frame and the sound of each clip. Problems of the video become outcomes, not errors.

    Raises:
        OSError: if a file cannot be written.
    """
    outcomes: dict[str, Outcome] = {}
    default = Outcome("")  # for clips that were not reached
    try:
        for outcome in _outcomes(job):
            outcomes[outcome.name] = outcome
    except Unusable as problem:
        default = Outcome("", problem.reason, problem.detail)
    except Exception as error:  # decoders raise any error on broken files, which must not stop the other videos
        if isinstance(error, OSError) and not isinstance(error, av.FFmpegError):
            raise
        default = Outcome("", "cannot be decoded", f"{type(error).__name__}: {error}")
    return [outcomes.get(name, default._replace(name=name)) for name in job.names]


def _outcomes(job: Job) -> Iterator[Outcome]:
    rate, origin = inspect(job.path)
    clips = {name: ClipId.parse(name) for name in job.names}
    counted = frame_rate(clips.values(), rate)
    times = {name: clip.seconds_at(counted) - (clip.second if job.cut else 0) for name, clip in clips.items()}
    names = sorted(times, key=times.__getitem__)
    for span in _spans([times[name] for name in names]):
        sounds = {}
        part = names[span]
        for name, sound in zip(part, read_sounds(job.path, [times[n] for n in part], origin), strict=True):
            checked = sound if isinstance(sound, Unusable) else _audible(sound, job.silence)
            if isinstance(checked, Unusable):
                yield Outcome(name, checked.reason, checked.detail)
            else:
                sounds[name] = checked
        if sounds:
            frames = read_frames(job.path, [times[name] for name in sounds], origin)
            for (name, sound), frame in zip(sounds.items(), frames, strict=True):
                if isinstance(frame, Unusable):
                    yield Outcome(name, frame.reason, frame.detail)
                else:
                    _write(job, name, frame, sound)
                    yield Outcome(name)


def _audible(sound: np.ndarray, silence: float) -> np.ndarray | Unusable:
    loudness = level(sound / 32_768)
    return Unusable("silent", f"{loudness:.0f} dBFS") if loudness < silence else sound


def _write(job: Job, name: str, frame: Image.Image, sound: np.ndarray) -> None:
    scale = job.side / min(frame.size)
    if scale < 1:
        frame = frame.resize([max(1, round(side * scale)) for side in frame.size], Image.Resampling.LANCZOS)
    with atomic_write(job.out / "frames" / f"{name}.jpg") as temporary:
        frame.save(temporary, quality=95)
    with atomic_write(job.out / "audio" / f"{name}.wav") as temporary:
        soundfile.write(temporary, sound, SAMPLE_RATE, subtype="PCM_16")


def _spans(times: list[float]) -> Iterator[slice]:
    """Splits ascending ``times`` into spans, each of which is decoded without seeking."""
    first = 0
    for index in range(1, len(times) + 1):
        if index == len(times) or times[index] - times[index - 1] > _GAP or times[index] - times[first] > _MAX_SPAN:
            yield slice(first, index)
            first = index
