"""Sounds and frames of a video at given times, by PyAV.

Times are seconds from the video's first frame. What a file cannot give is an ``Unusable``, per time where possible.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from PIL import Image

from ..constants import SAMPLE_RATE, SECONDS

SAMPLES = int(SAMPLE_RATE * SECONDS)
_SLACK = 0.05  # s that may lack at a sound's end, or that time stamps may be off
_BEFORE = 2.0  # s decoded ahead of a clip: near the end of a file a clip is moved to the front
_PAST_END = 0.5  # s for which the first and last frame and sample stand


class Unusable(Exception):  # noqa: N818 - an outcome, not a failure of the program
    """Why a clip cannot be prepared: a short reason that many share, and what is particular."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


class Facts(NamedTuple):
    """Frames a second on average, and the container's time of the first frame."""

    rate: float
    origin: float


def inspect(path: Path) -> Facts:
    """Open ``path``.

    Raises:
        Unusable: if it is no video or lacks a stream.
    """
    with _opened(path) as container:
        for kind, streams in (("video", container.streams.video), ("audio", container.streams.audio)):
            if not streams:
                raise Unusable(f"no {kind} stream")
        stream = container.streams.video[0]
        rate = float(stream.average_rate or stream.guessed_rate or 30)
        return Facts(rate, float((stream.start_time or 0) * stream.time_base))


def read_sounds(path: Path, times: Sequence[float], origin: float) -> list[np.ndarray | Unusable]:
    """The sound around each of ``times`` (ascending): (48000,) int16, mono, 16 kHz.

    Near the video's start and end the 3 s are moved so that they lie inside it.
    """
    end = max(times[-1], SECONDS / 2) + SECONDS / 2 + _PAST_END
    first, samples = _decode_sound(path, origin + times[0] - SECONDS / 2, origin + end)
    return [_section(first, samples, origin + time, time) for time in times]


def _section(first: float, samples: np.ndarray, at: float, time: float) -> np.ndarray | Unusable:
    if len(samples) < SAMPLES - _SLACK * SAMPLE_RATE:
        return Unusable("too short", f"only {len(samples) / SAMPLE_RATE:.1f} s of sound around {time:.1f} s")
    start = round((at - SECONDS / 2 - first) * SAMPLE_RATE)
    start = max(0, min(start, len(samples) - SAMPLES))
    if not -_PAST_END <= at - first - start / SAMPLE_RATE <= SECONDS + _PAST_END:
        return Unusable("too short", f"its frame is at {time:.1f} s, where there is no sound")
    section = samples[start : start + SAMPLES]
    return np.pad(section, (0, SAMPLES - len(section)))


def _decode_sound(path: Path, start: float, end: float) -> tuple[float, np.ndarray]:
    """Samples from before ``start`` to ``end``, or what there is of it, and the time of the first one."""
    with _opened(path) as container:
        _seek(container, start - _BEFORE)
        pieces = _pieces(container, start - _BEFORE, end)
    if start > _BEFORE and (not pieces or pieces[0][0] > start):  # an index that leads too far
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
    """Unbroken runs of sound with their times. Within a run samples are counted: time stamps in whole milliseconds, as
    WebM's, would make clicks."""
    pieces: list[tuple[float, np.ndarray]] = []
    resampler, parts, begin, expected, form = None, [], 0.0, 0.0, None

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
        if form != (frame.format.name, frame.layout.name, frame.sample_rate) or abs(time - expected) > _SLACK:
            close()
            resampler, parts, begin, expected = av.AudioResampler("s16", "mono", SAMPLE_RATE), [], time, time
            form = (frame.format.name, frame.layout.name, frame.sample_rate)
        parts.extend(resampler.resample(frame))
        expected += length
    close()
    return pieces


def read_frames(path: Path, times: Sequence[float], origin: float) -> Iterator[Image.Image | Unusable]:
    """The frame that is shown at each of ``times`` (ascending), upright."""
    for frame in _frames_at(path, [origin + time for time in times]):
        yield frame if isinstance(frame, Unusable) else _upright(frame)


def _frames_at(path: Path, times: Sequence[float]) -> Iterator[av.VideoFrame | Unusable]:
    wanted = list(reversed(times))
    last: av.VideoFrame | None = None
    damaged = False
    for frame in _video_frames(path, times[0]):
        if frame is None:
            damaged = True
            continue
        while wanted and wanted[-1] < frame.time - 0.002:  # time stamps may be whole milliseconds
            time = wanted.pop()
            if damaged:
                yield Unusable("cannot be decoded", f"damaged at {time:.1f} s")
            elif last is None and time < frame.time - _PAST_END:
                yield Unusable("too short", f"its picture starts at {frame.time:.1f} s")
            else:
                yield last or frame
        if not wanted:
            return
        last, damaged = frame, False
    while wanted:
        time = wanted.pop()
        if last is not None and not damaged and time <= last.time + _PAST_END:
            yield last
        else:
            ends = f"its picture ends at {last.time:.1f} s, its frame is at {time:.1f} s" if last else ""
            yield Unusable("cannot be decoded" if damaged or last is None else "too short", ends)


def _video_frames(path: Path, start: float) -> Iterator[av.VideoFrame | None]:
    """Frames from the last key frame before ``start`` on."""
    with _opened(path) as container:
        _seek(container, start)
        frames = _decoded(container, container.streams.video[0])
        head = next((frame for frame in frames if frame is not None and frame.time is not None), None)
        if head is not None and head.time <= start:
            yield head
            yield from (frame for frame in frames if frame is None or frame.time is not None)
            return
    with _opened(path) as container:  # an index that leads too far, or nowhere
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
        raise Unusable("cannot be decoded", error.strerror) from error


def _seek(container: av.container.InputContainer, seconds: float) -> None:
    if seconds > 0:
        try:
            container.seek(int(seconds * av.time_base))
        except av.FFmpegError:
            return  # not seekable: decoded from the start


def _decoded(container: av.container.InputContainer, stream: av.stream.Stream) -> Iterator[av.frame.Frame | None]:
    """Frames of ``stream``; ``None`` where a packet is damaged."""
    stream.codec_context.thread_count = 1  # the worker processes share the cores
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.FFmpegError:  # the file breaks off here
            return
        try:
            yield from packet.decode()
        except av.FFmpegError:
            yield None
