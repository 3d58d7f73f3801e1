"""Reads a user's sounds and videos in any format that the decoders support."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..constants import SAMPLE_RATE, SAMPLES
from ..sounds import blocks, check_finite, joined, mono, with_times
from ..streams import best_stream


def as_frame(picture: Image.Image, size: int) -> Tensor:
    """Converts a picture for the model, (3, S, S) uint8: resized to a square, as in training."""
    resized = picture.resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()


def read_sound(path: Path) -> Tensor:
    """Reads the center 3 s of a sound, (48000,), 16 kHz mono; a shorter sound is repeated, as in training.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it can't be read, or holds no sound or NaN.
    """
    with open_media(path) as container:  # read twice, so that no more than the 3 s are kept in memory
        total = sum(samples.shape[1] for _, samples in sound_blocks(container, path))
    with open_media(path) as container:
        return SoundAround(sound_blocks(container, path), path).cut(max(total - SAMPLES, 0) // 2)


class SoundAround:
    """The 3 s of a sound around a time, for a sequence of increasing times; no more of the sound is kept in memory.

    Near the start and end these are the first and last 3 s; a shorter sound is repeated.

    Args:
        blocks: the output of :func:`sound_blocks`.
        path: the file, for messages.
    """

    def __init__(self, blocks: Iterator[tuple[float, np.ndarray]], path: Path) -> None:
        self._blocks, self._path = blocks, path
        self._origin, self._samples = next(blocks)
        self._first = 0
        self._ended = False

    def at(self, seconds: float) -> Tensor:
        """Returns the samples around a time, (48000,) float32.

        Raises:
            ValueError: if they hold NaN.
        """
        return self.cut(round((seconds - self._origin) * SAMPLE_RATE) - SAMPLES // 2)

    def cut(self, start: int) -> Tensor:
        """Returns the samples from number ``start``, as :meth:`at`."""
        start = max(start, 0)
        while not self._ended and self._end < start + SAMPLES:
            _, block = next(self._blocks, (0.0, None))
            if block is None:
                self._ended = True
                break
            passed = max(min(start, self._end - SAMPLES) - self._first, 0)
            self._samples = np.concatenate([self._samples[:, passed:], block], axis=1)
            self._first += passed
        start = max(min(start, self._end - SAMPLES), self._first)
        samples = self._samples[:, start - self._first :][:, :SAMPLES]
        check_finite(samples, str(self._path), start)
        return torch.from_numpy(np.resize(mono(samples), SAMPLES))

    @property
    def _end(self) -> int:
        return self._first + self._samples.shape[1]


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
    """Yields the sound in blocks (C, n) float32 at 16 kHz, each with the start time of the stream.

    Raises:
        ValueError: if there is no sound, or it can't be decoded.
    """
    stream = best_stream(container, "audio")
    if stream is None:
        raise ValueError(f"Expected {path} to hold a sound, but it has no audio stream")
    empty = True
    for origin, samples in joined(blocks(with_times(decode(container, stream, path)))):
        empty = empty and not samples.size
        yield origin, samples
    if empty:
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


def _check_exists(path: Path) -> None:
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "is no regular file" if path.exists() else "does not exist"
        raise FileNotFoundError(f"Expected a file, but {path} {problem}")


def _unreadable(path: Path, error: av.FFmpegError) -> ValueError:
    # Decoders say -1, which is EPERM, for damaged data.
    reason = "it is damaged" if error.errno == errno.EPERM else error.strerror or error
    return ValueError(f"Expected {path} to be a video or a sound, but it can't be read: {reason}")
