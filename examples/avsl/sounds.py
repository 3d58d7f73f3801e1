"""Sounds, read in one way for training, localization and preparation: 16 kHz, one channel, float32, full scale 1."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import soundfile

from .clip_ids import Sound
from .constants import SAMPLE_RATE, SAMPLES, SILENCE

SLACK = 0.05  # s; tolerance for time stamps
_EMPTY = 1e-4  # a channel 40 dB below the loudest one is empty
_OPPOSED = -0.5  # correlation below which two channels cancel
_LARGEST = 4.0  # a float sound with larger samples is in other units, such as those of 16 bit integers
_PART = 4096  # samples that are looked at together
_LONGEST_GAP = 600 * SAMPLE_RATE  # a longer jump of the time stamps is not a pause


def mono(channels: np.ndarray) -> np.ndarray:
    """Joins the channels of an excerpt, (C, n) to (n,): the mean of those that hold sound.

    A channel that runs against a louder one (correlation below -0.5) is inverted first. Without that, a microphone
    with swapped poles would cancel the sound.
    """
    if len(channels) == 1:
        return channels[0]
    channels = np.ascontiguousarray(channels)  # many times as fast as the transpose that readers give
    mean, products = channels.mean(1, keepdims=True), np.zeros((len(channels), len(channels)))
    for first in range(0, channels.shape[1], _PART):  # in parts that fit the cache: copying it all takes longer
        part = channels[:, first : first + _PART] - mean
        products += np.einsum("an,bn->ab", part, part)  # not BLAS, whose threads cost more than they save here
    energies = products.diagonal()
    order = [int(i) for i in np.argsort(-energies, kind="stable") if energies[i] > _EMPTY * energies.max()]
    if not order:  # all are constant
        return channels.mean(0)
    correlations = products / np.sqrt(np.outer(energies, energies) + np.finfo(float).tiny)
    weights = np.zeros(len(channels), channels.dtype)
    for channel in order:
        nearest = max(order, key=lambda other: abs(correlations[channel, other]) if weights[other] else -1)
        opposed = correlations[channel, nearest] * weights[nearest] < _OPPOSED
        weights[channel] = -1 if opposed else 1
    return np.einsum("c,cn->n", weights / len(order), channels)


def level(samples: np.ndarray) -> float:
    """Computes the level of float samples in dBFS, without their mean: -inf if they are constant."""
    power = float(np.square(samples - samples.mean()).mean())
    return 10 * math.log10(power) if power else -math.inf


def flaw(samples: np.ndarray) -> str:
    """Says what makes a sound useless, as the end of a sentence; empty if nothing does."""
    loudness = level(samples)
    if loudness < SILENCE:
        return f"is silent or constant: its level is {loudness:.0f} dBFS"
    return out_of_range(samples)


def out_of_range(samples: np.ndarray) -> str:
    """Says that float samples have another full scale than 1, as the end of a sentence; empty if they have not."""
    peak = max(-float(samples.min(initial=0)), float(samples.max(initial=0)))
    return f"has samples up to {peak:.0f}, but full scale is 1" if peak > _LARGEST else ""


def check_finite(samples: np.ndarray, source: str, first: int = 0) -> None:
    """Checks that samples, (..., n), are numbers; ``first`` is the position of the first one in the file.

    Raises:
        ValueError: naming ``source`` and the time of the first sample that is NaN or infinite.
    """
    finite = np.isfinite(samples)
    if not finite.all():
        bad = np.flatnonzero(~finite.reshape(-1, samples.shape[-1]).all(0))
        raise ValueError(
            f"Expected {source} to hold finite samples, but {len(bad)} of {samples.shape[-1]} are NaN or infinite, "
            f"the first at {(first + bad[0]) / SAMPLE_RATE:.2f} s"
        )


def read_clip(sound: Sound) -> np.ndarray:
    """Reads the 3 s of a clip from a sound file at 16 kHz, (48000,); shorter sounds are repeated.

    Raises:
        OSError: if it is not a readable sound file.
        ValueError: if it has another rate, is empty or truncated, or holds NaN.
    """
    path = sound.path
    with _opened(path) as file:
        if file.samplerate != SAMPLE_RATE:
            raise ValueError(f"Expected {path} at {SAMPLE_RATE} Hz, but got {file.samplerate} Hz")
        if not file.frames:
            raise ValueError(f"Expected {path} to hold sound, but it is empty")
        first = sound.first_sample(file.frames, SAMPLES, SAMPLE_RATE)
        file.seek(first)
        samples = _read_float(file, SAMPLES)
        if samples.shape[1] < min(SAMPLES, file.frames):
            raise ValueError(f"Expected {path} to hold {file.frames} samples, but it is truncated")
    check_finite(samples, str(path), first)
    joint = mono(samples)
    return joint if len(joint) == SAMPLES else np.resize(joint, SAMPLES)


def read_recording(path: Path) -> tuple[np.ndarray, int]:
    """Reads a whole sound file in one channel, at its own rate.

    Raises:
        OSError: if it is not a readable sound file.
        ValueError: if it holds NaN.
    """
    with _opened(path) as file:
        samples = _read_float(file, -1)
        check_finite(samples, str(path))
        return mono(samples), file.samplerate


def _read_float(file: soundfile.SoundFile, count: int) -> np.ndarray:
    """The next samples, (C, n) float32 with full scale 1."""
    if file.subtype == "PCM_16":  # libsndfile's own conversion takes three times as long, and every clip pays for it
        integers = file.read(count, dtype="int16", always_2d=True).T
        return np.multiply(integers, np.float32(1 / 32_768), dtype=np.float32, order="C")
    return file.read(count, dtype="float32", always_2d=True).T


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
    """Opens a sound file; errors of opening and of reading name it."""
    try:
        with soundfile.SoundFile(path) as file:
            yield file
    except soundfile.LibsndfileError as error:
        raise OSError(f"Expected {path} to be a sound, but it can't be read: {error}") from error


class Block(NamedTuple):
    """Samples (C, n) at 16 kHz, ``offset`` samples after the time ``begin``, which is in seconds."""

    begin: float
    offset: int
    samples: np.ndarray


def with_times(frames: Iterable[av.AudioFrame]) -> Iterator[tuple[float, av.AudioFrame]]:
    """Yields frames with their times in seconds; a frame without a time stamp follows the one before it."""
    expected = 0.0
    for frame in frames:
        time = expected if frame.time is None else frame.time
        expected = time + frame.samples / frame.sample_rate
        yield time, frame


def blocks(frames: Iterable[tuple[float, av.AudioFrame]]) -> Iterator[Block]:
    """Resamples decoded frames to 16 kHz, with all their channels.

    Within a gapless stretch, positions come from counting samples: time stamps rounded to milliseconds, as in WebM,
    would cause clicks.
    """
    resampler, layout, begin, offset, expected = None, None, 0.0, 0, 0.0
    for time, frame in frames:
        frame_layout = (frame.format.name, frame.layout.name, frame.layout.nb_channels, frame.sample_rate)
        if layout != frame_layout or abs(time - expected) > SLACK:
            if resampler is not None:
                yield from _resampled(resampler, None, begin, offset)
            resampler, layout, begin, offset = av.AudioResampler("flt", None, SAMPLE_RATE), frame_layout, time, 0
            expected = time
        for block in _resampled(resampler, frame, begin, offset):
            yield block
            offset = block.offset + block.samples.shape[1]
        expected += frame.samples / frame.sample_rate
    if resampler is not None:
        yield from _resampled(resampler, None, begin, offset)


def _resampled(resampler: av.AudioResampler, frame: av.AudioFrame | None, begin: float, offset: int) -> Iterator[Block]:
    """The blocks that the resampler gives for a frame, or at its end for ``None``; the first one is at ``offset``."""
    for part in resampler.resample(frame):
        # Interleaved: PyAV crashes on separate planes of eight and more channels.
        samples = part.to_ndarray().reshape(-1, part.layout.nb_channels).T
        yield Block(begin, offset, samples)
        offset += samples.shape[1]


def with_channels(samples: np.ndarray, channels: int) -> np.ndarray:
    """Returns samples (C, n) with another number of channels, for streams that change in the middle."""
    return samples if len(samples) == channels else np.broadcast_to(mono(samples), (channels, samples.shape[1]))


def joined(sound: Iterable[Block]) -> Iterator[tuple[float, np.ndarray]]:
    """Yields samples without gaps, each time with the time of the very first one; pauses become zeros."""
    origin, channels, end = None, 0, 0
    for block in sound:
        if origin is None:
            origin, channels = block.begin, len(block.samples)
        pause = round((block.begin - origin) * SAMPLE_RATE) + block.offset - end
        if 0 < pause <= _LONGEST_GAP:
            yield origin, np.zeros((channels, pause), np.float32)
            end += pause
        yield origin, with_channels(block.samples, channels)
        end += block.samples.shape[1]
