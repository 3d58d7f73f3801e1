"""Prepares a clip from a picture and a sound file. Imports no torch, because every worker process loads this module."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..clip_files import write_frame, write_sound
from ..files import write_bytes
from ..machine_errors import of_this_machine
from ..pictures import read_picture
from .excerpts import Unusable, read_center
from .worker import Excerpt, Outcome, audible, scaled_down


class PairJob(NamedTuple):
    """A clip to prepare.

    Args:
        name: its id.
        picture: its picture, in any format that Pillow reads.
        sound: its sound, in any format that FFmpeg reads.
        out: folder to write.
        side: maximum length of a frame's shorter side, in pixels.
        silence: level in dBFS below which a clip counts as silent.
    """

    name: str
    picture: Path
    sound: Path
    out: Path
    side: int
    silence: float

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def path(self) -> Path:
        return self.sound


def prepare(job: PairJob) -> list[Outcome]:
    """Writes the frame and the sound of a clip. Problems of its files become outcomes, not errors.

    Raises:
        OSError: if a file cannot be written, or this machine lacks something that reading needs.
        MemoryError: if memory runs out.
    """
    excerpt = _read(job)
    if isinstance(excerpt, Unusable):
        return [Outcome(job.name, excerpt.reason, excerpt.detail)]
    path = job.out / "frames" / f"{job.name}.jpg"
    if _is_small_jpeg(job.picture, job.side):  # it keeps its bytes: coding it again would change its pixels
        write_bytes(path, job.picture.read_bytes())
    else:
        write_frame(path, scaled_down(excerpt.frame, job.side), quality=95)
    write_sound(job.out / "audio" / f"{job.name}.wav", excerpt.sound)
    return [Outcome(job.name)]


def _read(job: PairJob) -> Excerpt | Unusable:
    try:
        frame, sound = read_picture(job.picture), read_center(job.sound)
    except Unusable as problem:
        return Unusable(problem.reason, problem.detail or str(job.sound))
    except Exception as error:  # decoders raise any error on broken files, which must not stop the other clips
        if of_this_machine(error):
            raise
        return Unusable("cannot be decoded", f"{type(error).__name__}: {error}")
    checked: np.ndarray | Unusable = sound if isinstance(sound, Unusable) else audible(sound, job.silence)
    return checked if isinstance(checked, Unusable) else Excerpt(frame, checked)


def _is_small_jpeg(path: Path, side: int) -> bool:
    with Image.open(path) as image:
        return image.format == "JPEG" and min(image.size) <= side
