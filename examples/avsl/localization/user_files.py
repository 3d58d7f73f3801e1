"""A user's pictures, sounds and videos, as they come."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..constants import SAMPLE_RATE
from ..data.scenes import SAMPLES
from ..files import read_picture as read_stored


def read_picture(path: Path) -> Image.Image:
    """The picture, upright, in RGB.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if it is no picture.
    """
    _check_there(path)
    stored = read_stored(path)
    try:
        return ImageOps.exif_transpose(stored).convert("RGB")
    except Exception as error:  # of EXIF data that are none, the reader raises anything
        raise OSError(f"Expected {path} to be a picture, but it can't be turned upright: {error}") from error


def as_frame(picture: Image.Image, size: int) -> Tensor:
    """The picture as the model takes it, (3, S, S) uint8: resized to a square as in training."""
    resized = picture.resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()


def as_waveform(samples: np.ndarray) -> Tensor:
    """Samples (48000,) int16 as the model takes them."""
    return torch.from_numpy(samples).float() / 32768


def read_sound(path: Path) -> np.ndarray:
    """The center 3 s of a sound as (48000,) int16, 16 kHz mono; a shorter one is repeated, as in training.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it can't be read, or holds no sound.
    """
    with open_media(path) as container:
        samples = np.concatenate([block for _, block in sound_blocks(container, path)])
    start = max(len(samples) - SAMPLES, 0) // 2
    return np.resize(samples[start : start + SAMPLES], SAMPLES)


class SoundAround:
    """3 s of a sound around times that only grow; no more of it than that is kept.

    At the ends it is the first or last 3 s; a shorter sound is repeated.

    Args:
        blocks: what :func:`sound_blocks` gives.
    """

    def __init__(self, blocks: Iterator[tuple[float, np.ndarray]]) -> None:
        self._blocks = blocks
        self._origin, self._held = next(blocks)
        self._first = 0
        self._ended = False

    def at(self, seconds: float) -> np.ndarray:
        """(48000,) int16 around that time."""
        start = max(round((seconds - self._origin) * SAMPLE_RATE) - SAMPLES // 2, 0)
        while not self._ended and self._end < start + SAMPLES:
            _, block = next(self._blocks, (0.0, None))
            if block is None:
                self._ended = True
                break
            passed = max(min(start, self._end - SAMPLES) - self._first, 0)
            self._held = np.concatenate([self._held[passed:], block])
            self._first += passed
        start = max(min(start, self._end - SAMPLES), self._first)
        return np.resize(self._held[start - self._first :][:SAMPLES], SAMPLES)

    @property
    def _end(self) -> int:
        return self._first + len(self._held)


def open_media(path: Path) -> av.container.InputContainer:
    """A video or sound file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is neither.
    """
    _check_there(path)
    try:
        return av.open(str(path), metadata_errors="replace")
    except av.FFmpegError as error:
        raise _unreadable(path, error) from error


def sound_blocks(container: av.container.InputContainer, path: Path) -> Iterator[tuple[float, np.ndarray]]:
    """All of the first sound in pieces, 16 kHz mono int16, each with the time at which the whole begins.

    Raises:
        ValueError: if there is no sound, or it can't be decoded.
    """
    if not container.streams.audio:
        raise ValueError(f"Expected {path} to hold a sound, but it has no audio stream")
    resampler, origin = av.AudioResampler("s16", "mono", SAMPLE_RATE), None
    for frame in itertools.chain(decoded(container, container.streams.audio[0], path), [None]):
        if origin is None and frame is not None:
            origin = frame.time or 0.0
        for block in resampler.resample(frame) if origin is not None else ():
            yield origin, block.to_ndarray()[0]
    if origin is None:
        raise ValueError(f"Expected {path} to hold a sound, but its audio stream is empty")


def decoded(container: av.container.InputContainer, stream: av.stream.Stream, path: Path) -> Iterator[av.frame.Frame]:
    """The frames of a stream.

    Raises:
        ValueError: if it is damaged.
    """
    try:
        yield from container.decode(stream)
    except av.FFmpegError as error:
        raise _unreadable(path, error) from error


def upright(frame: av.VideoFrame) -> np.ndarray:
    """The picture that a player shows, (H, W, 3) uint8."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"Expected a file, but there is no {path}")


def _unreadable(path: Path, error: av.FFmpegError) -> ValueError:
    return ValueError(f"Expected {path} to be a video or a sound, but it can't be read: {error.strerror or error}")
