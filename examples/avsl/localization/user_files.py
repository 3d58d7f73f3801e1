"""Reads a user's pictures, sounds and videos in any format that the decoders support."""

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
from ..files import read_picture


def read_upright(path: Path) -> Image.Image:
    """Reads a picture, upright and in RGB.

    Raises:
        FileNotFoundError: if the file does not exist.
        OSError: if it is not a readable picture.
    """
    _check_exists(path)
    stored = read_picture(path)
    try:
        return ImageOps.exif_transpose(stored).convert("RGB")
    except Exception as error:  # Pillow raises errors of any type for malformed EXIF data
        raise OSError(f"Expected {path} to be a picture, but it can't be turned upright: {error}") from error


def as_frame(picture: Image.Image, size: int) -> Tensor:
    """Converts a picture for the model, (3, S, S) uint8: resized to a square, as in training."""
    resized = picture.resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()


def as_waveform(samples: np.ndarray) -> Tensor:
    """Converts samples, (48000,) int16, for the model."""
    return torch.from_numpy(samples).float() / 32768


def read_sound(path: Path) -> np.ndarray:
    """Reads the center 3 s of a sound, (48000,) int16, 16 kHz mono; a shorter sound is repeated, as in training.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it can't be read, or holds no sound.
    """
    with open_media(path) as container:
        samples = np.concatenate([block for _, block in sound_blocks(container, path)])
    start = max(len(samples) - SAMPLES, 0) // 2
    return np.resize(samples[start : start + SAMPLES], SAMPLES)


class SoundAround:
    """The 3 s of a sound around a time, for a sequence of increasing times; no more of the sound is kept in memory.

    Near the start and end these are the first and last 3 s; a shorter sound is repeated.

    Args:
        blocks: the output of :func:`sound_blocks`.
    """

    def __init__(self, blocks: Iterator[tuple[float, np.ndarray]]) -> None:
        self._blocks = blocks
        self._origin, self._samples = next(blocks)
        self._first = 0
        self._ended = False

    def at(self, seconds: float) -> np.ndarray:
        """Returns the samples around a time, (48000,) int16."""
        start = max(round((seconds - self._origin) * SAMPLE_RATE) - SAMPLES // 2, 0)
        while not self._ended and self._end < start + SAMPLES:
            _, block = next(self._blocks, (0.0, None))
            if block is None:
                self._ended = True
                break
            passed = max(min(start, self._end - SAMPLES) - self._first, 0)
            self._samples = np.concatenate([self._samples[passed:], block])
            self._first += passed
        start = max(min(start, self._end - SAMPLES), self._first)
        return np.resize(self._samples[start - self._first :][:SAMPLES], SAMPLES)

    @property
    def _end(self) -> int:
        return self._first + len(self._samples)


def open_media(path: Path) -> av.container.InputContainer:
    """Opens a video or sound file.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is neither a video nor a sound.
    """
    _check_exists(path)
    try:
        return av.open(str(path), metadata_errors="replace")
    except av.FFmpegError as error:
        raise _unreadable(path, error) from error


def sound_blocks(container: av.container.InputContainer, path: Path) -> Iterator[tuple[float, np.ndarray]]:
    """Yields the first audio stream in blocks, 16 kHz mono int16, each with the start time of the stream.

    Raises:
        ValueError: if there is no sound, or it can't be decoded.
    """
    if not container.streams.audio:
        raise ValueError(f"Expected {path} to hold a sound, but it has no audio stream")
    resampler, origin = av.AudioResampler("s16", "mono", SAMPLE_RATE), None
    for frame in itertools.chain(decode(container, container.streams.audio[0], path), [None]):
        if origin is None and frame is not None:
            origin = frame.time or 0.0
        for block in resampler.resample(frame) if origin is not None else ():
            yield origin, block.to_ndarray()[0]
    if origin is None:
        raise ValueError(f"Expected {path} to hold a sound, but its audio stream is empty")


def decode(container: av.container.InputContainer, stream: av.stream.Stream, path: Path) -> Iterator[av.frame.Frame]:
    """Yields the frames of a stream.

    Raises:
        ValueError: if the stream is damaged.
    """
    try:
        yield from container.decode(stream)
    except av.FFmpegError as error:
        raise _unreadable(path, error) from error


def upright(frame: av.VideoFrame) -> np.ndarray:
    """Converts a frame to the picture that a player shows, (H, W, 3) uint8."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"Expected a file, but {path} does not exist")


def _unreadable(path: Path, error: av.FFmpegError) -> ValueError:
    return ValueError(f"Expected {path} to be a video or a sound, but it can't be read: {error.strerror or error}")
