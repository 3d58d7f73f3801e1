"""The two files of a clip, its frame and its sound: written as a whole, and checked for being whole.

Imports no torch, because every worker process loads this module.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from .constants import SAMPLE_RATE, SAMPLES
from .files import atomic_buffer
from .machine_errors import of_this_machine


def write_frame(path: Path, frame: Image.Image, quality: int) -> None:
    """Writes a frame as JPEG."""
    with atomic_buffer(path) as buffer:
        frame.save(buffer, format="JPEG", quality=quality)


def write_sound(path: Path, samples: np.ndarray) -> None:
    """Writes a mono sound as WAV, 16 kHz, 16 bit."""
    with atomic_buffer(path) as buffer:
        soundfile.write(buffer, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")


def is_whole_frame(path: Path) -> bool:
    """Whether there is a picture at ``path`` that can be decoded to its end."""

    def decode() -> bool:
        with Image.open(path) as frame:
            frame.draft("RGB", (1, 1))  # an eighth of each side: reads all bytes, at a fraction of the time
            frame.load()
        return True

    return _succeeds(decode)


def is_whole_sound(path: Path) -> bool:
    """Whether there is a sound of 3 s or more at ``path``."""

    def decode() -> bool:
        with path.open("rb") as file, soundfile.SoundFile(file) as sound:
            return int(sound.frames) >= SAMPLES

    return _succeeds(decode)


def _succeeds(decode: Callable[[], bool]) -> bool:
    try:
        return decode()
    except Exception as error:  # decoders raise errors of any type for malformed files
        if of_this_machine(error):
            raise
        return False
