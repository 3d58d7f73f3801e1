"""Reads sounds and frames of a video at given times, with PyAV.

Times are in seconds from the first frame of the video. An ``Unusable`` takes the place of a sound or frame that cannot
be read, per time where possible.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from PIL import Image

from ..constants import SAMPLE_RATE, SAMPLES, SECONDS
from ..machine_errors import of_this_machine

_SLACK = 0.05  # s; tolerance for the end of a sound and for time stamps
_BEFORE = 2.0  # s decoded before a clip, because clips near the end of a file are moved forward
_PAST_END = 0.5  # s beyond the first and last frame or sample for which these are still used


class Unusable(Exception):  # noqa: N818 - an outcome, not an error of the program
    """A clip cannot be prepared. ``reason`` is short and shared by many clips, ``detail`` is specific to this clip."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


class Facts(NamedTuple):
    """The average frame rate of a video in Hz, and the container's time of the first frame in seconds."""

    rate: float
    origin: float


def inspect(path: Path) -> Facts:
    """Reads the frame rate and the start time of a video.

    Raises:
        Unusable: if the file is not a video, or has no video or no audio stream.
    """
    with _opened(path) as container:
        for kind, streams in (("video", container.streams.video), ("audio", container.streams.audio)):
            if not streams:
                raise Unusable(f"no {kind} stream")
        stream = container.streams.video[0]
        rate = float(stream.average_rate or stream.guessed_rate or 30)
        return Facts(rate, float((stream.start_time or 0) * stream.time_base))


def read_sounds(path: Path, times: Sequence[float], origin: float) -> list[np.ndarray | Unusable]:
    """Reads 3 s of sound around each of the ascending ``times``, as (48000,) int16, mono, at 16 kHz.

    Near the start and the end of the video, the 3 s are shifted to lie inside it.
    """
    end = max(times[-1], SECONDS / 2) + SECONDS / 2 + _PAST_END
    first, samples = _decode_sound(path, origin + times[0] - SECONDS / 2, origin + end)
    return [_cut_out(first, samples, origin + time, time) for time in times]


def _cut_out(first: float, samples: np.ndarray, at: float, time: float) -> np.ndarray | Unusable:
    if len(samples) < SAMPLES - _SLACK * SAMPLE_RATE:
        return Unusable("too short", f"only {len(samples) / SAMPLE_RATE:.1f} s of sound around {time:.1f} s")
    start = round((at - SECONDS / 2 - first) * SAMPLE_RATE)
    start = max(0, min(start, len(samples) - SAMPLES))
    if not -_PAST_END <= at - first - start / SAMPLE_RATE <= SECONDS + _PAST_END:
        return Unusable("too short", f"its frame is at {time:.1f} s, where there is no sound")
    section = samples[start : start + SAMPLES]
    return np.pad(section, (0, SAMPLES - len(section)))


def _decode_sound(path: Path, start: float, end: float) -> tuple[float, np.ndarray]:
    """Time of the first sample, and the samples from before ``start`` to ``end`` as far as they exist."""
    with _opened(path) as container:
        _seek(container, start - _BEFORE)
        pieces = _pieces(container, start - _BEFORE, end)
    if start > _BEFORE and (
        not pieces or pieces[0][0] > start
    ):  # the index points too far ahead: decode from the beginning
        with _opened(path) as container:
            pieces = _pieces(container, start - _BEFORE, end)
    if not pieces:
        return start, np.zeros(0, np.int16)
    first = pieces[0][0]
    placed = [(round((at - first) * SAMPLE_RATE), samples) for at, samples in pieces]
    whole = np.zeros(max(offset + len(samples) for offset, samples in placed), np.int16)
    for offset, samples in placed:
        if offset >= 0:
            whole[offset : offset + len(samples)] = samples
    return first, whole


def _pieces(container: av.container.InputContainer, start: float, end: float) -> list[tuple[float, np.ndarray]]:
    """Gapless pieces of sound with their start times.

    Within a piece, positions come from counting samples: time stamps rounded to milliseconds, as in WebM, would cause
    clicks.
    """
    pieces: list[tuple[float, np.ndarray]] = []
    resampler, parts, begin, expected, layout = None, [], 0.0, 0.0, None

    def close() -> None:
        if resampler is not None:
            parts.extend(resampler.resample(None))
            pieces.append((begin, np.concatenate([part.to_ndarray()[0] for part in parts] or [np.zeros(0, np.int16)])))

    for frame in _decoded(container, container.streams.audio[0]):
        if frame is None:
            continue
        time = expected if frame.time is None else frame.time
        length = frame.samples / frame.sample_rate
        if time >= end:
            break
        if time + length <= start:
            continue
        frame_layout = (frame.format.name, frame.layout.name, frame.sample_rate)
        if layout != frame_layout or abs(time - expected) > _SLACK:
            close()
            resampler, parts, begin, expected = av.AudioResampler("s16", "mono", SAMPLE_RATE), [], time, time
            layout = frame_layout
        parts.extend(resampler.resample(frame))
        expected += length
    close()
    return pieces


def read_frames(path: Path, times: Sequence[float], origin: float) -> Iterator[Image.Image | Unusable]:
    """Yields the frame shown at each of the ascending ``times``, rotated upright."""
    for frame in _frames_at(path, [origin + time for time in times]):
        yield frame if isinstance(frame, Unusable) else _upright(frame)


def _frames_at(path: Path, times: Sequence[float]) -> Iterator[av.VideoFrame | Unusable]:
    remaining = list(reversed(times))
    last: av.VideoFrame | None = None
    damaged = False
    for frame in _video_frames(path, times[0]):
        if frame is None:
            damaged = True
            continue
        while remaining and remaining[-1] < frame.time - 0.002:  # time stamps may be rounded to milliseconds
            time = remaining.pop()
            if damaged:
                yield Unusable("cannot be decoded", f"damaged at {time:.1f} s")
            elif last is None and time < frame.time - _PAST_END:
                yield Unusable("too short", f"its picture starts at {frame.time:.1f} s")
            else:
                yield last or frame
        if not remaining:
            return
        last, damaged = frame, False
    while remaining:
        time = remaining.pop()
        if last is not None and not damaged and time <= last.time + _PAST_END:
            yield last
        else:
            ends = f"its picture ends at {last.time:.1f} s, its frame is at {time:.1f} s" if last else ""
            yield Unusable("cannot be decoded" if damaged or last is None else "too short", ends)


def _video_frames(path: Path, start: float) -> Iterator[av.VideoFrame | None]:
    """Frames from the last key frame before ``start``; ``None`` for each damaged packet."""
    with _opened(path) as container:
        _seek(container, start)
        frames = _decoded(container, container.streams.video[0])
        head = next((frame for frame in frames if frame is not None and frame.time is not None), None)
        if head is not None and head.time <= start:
            yield head
            yield from (frame for frame in frames if frame is None or frame.time is not None)
            return
    with _opened(path) as container:  # the index points too far ahead or nowhere: decode from the beginning
        for frame in _decoded(container, container.streams.video[0]):
            if frame is None or frame.time is not None:
                yield frame


def _upright(frame: av.VideoFrame) -> Image.Image:
    picture = frame.to_image()
    return picture.rotate(frame.rotation, expand=True) if frame.rotation else picture


def _opened(path: Path) -> av.container.InputContainer:
    try:
        return av.open(str(path), metadata_errors="replace")
    except av.FFmpegError as error:
        if of_this_machine(error):
            raise
        raise Unusable("cannot be decoded", error.strerror) from error


def _seek(container: av.container.InputContainer, seconds: float) -> None:
    if seconds > 0:
        try:
            container.seek(int(seconds * av.time_base))
        except av.FFmpegError:
            return  # not seekable: decode from the beginning


def _decoded(container: av.container.InputContainer, stream: av.stream.Stream) -> Iterator[av.frame.Frame | None]:
    """Frames of ``stream``; ``None`` for each damaged packet."""
    stream.codec_context.thread_count = 1  # the worker processes share the cores
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.FFmpegError as error:  # the file is truncated here
            if of_this_machine(error):
                raise
            return
        try:
            yield from packet.decode()
        except av.FFmpegError as error:
            if of_this_machine(error):
                raise
            yield None
