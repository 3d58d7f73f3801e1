"""Reads sounds and frames of a video at given times, and the center of a sound file, with PyAV.

Times are in seconds from the first frame of the video. An ``Unusable`` takes the place of a sound or frame that cannot
be read, per time where possible.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from PIL import Image

from ..constants import SAMPLE_RATE, SAMPLES, SECONDS
from ..machine_errors import of_this_machine
from ..sounds import SLACK, blocks, joined, mono, out_of_range, with_channels, with_times
from ..streams import best_stream, frame_rate, upright

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
        for kind in ("video", "audio"):
            if best_stream(container, kind) is None:
                raise Unusable(f"no {kind} stream")
        stream = best_stream(container, "video")
        rate = float(frame_rate(stream) or 30)
        return Facts(rate, float((stream.start_time or 0) * stream.time_base))


def read_sounds(path: Path, times: Sequence[float], origin: float) -> list[np.ndarray | Unusable]:
    """Reads 3 s of sound around each of the ascending ``times``, as (48000,) int16, mono, at 16 kHz.

    Near the start and the end of the video, the 3 s are shifted to lie inside it.
    """
    end = max(times[-1], SECONDS / 2) + SECONDS / 2 + _PAST_END
    first, samples = _decode_sound(path, origin + times[0] - SECONDS / 2, origin + end)
    return [_cut_out(first, samples, origin + time, time) for time in times]


def _cut_out(first: float, samples: np.ndarray, at: float, time: float) -> np.ndarray | Unusable:
    total = samples.shape[1]
    if total < SAMPLES - SLACK * SAMPLE_RATE:
        return Unusable("too short", f"only {total / SAMPLE_RATE:.1f} s of sound around {time:.1f} s")
    start = round((at - SECONDS / 2 - first) * SAMPLE_RATE)
    start = max(0, min(start, total - SAMPLES))
    if not -_PAST_END <= at - first - start / SAMPLE_RATE <= SECONDS + _PAST_END:
        return Unusable("too short", f"its frame is at {time:.1f} s, where there is no sound")
    pcm = _as_pcm(samples[:, start : start + SAMPLES], f"around {time:.1f} s")
    return pcm if isinstance(pcm, Unusable) else np.pad(pcm, (0, SAMPLES - len(pcm)))


def _as_pcm(section: np.ndarray, where: str) -> np.ndarray | Unusable:
    """Joins the channels of (C, n) float32 samples, to (n,) int16."""
    if not np.isfinite(section).all():
        return Unusable("sound is not finite", f"NaN or infinite samples {where}")
    if found := out_of_range(section):
        return Unusable("sound is out of range", f"it {found}")
    return np.rint(mono(section) * 32_768).clip(-32_768, 32_767).astype(np.int16)


def read_center(path: Path) -> np.ndarray | Unusable:
    """Reads the center 3 s of a sound file, as (48000,) int16, mono, at 16 kHz; a shorter sound is repeated.

    A sound that ends before its file says is unusable, since its center is another one. For MP3 this is not known: the
    duration may be an estimate.

    Raises:
        Unusable: if the file is not a sound, or is empty.
    """
    with _opened(path) as container:
        stream = best_stream(container, "audio")
        if stream is None:
            raise Unusable("no audio stream")
        frames = (frame for frame in _decoded(container, stream) if frame is not None)
        parts = [samples for _, samples in joined(blocks(with_times(frames)))]
        samples = np.concatenate(parts, axis=1) if parts else np.zeros((1, 0), np.float32)
        exact = stream.duration is not None and not stream.codec_context.name.startswith("mp3")
        stated = float(stream.duration * stream.time_base) if exact else 0.0
    total = samples.shape[1]
    if not total:
        raise Unusable("cannot be decoded", "no sample of its sound can be decoded")
    if total / SAMPLE_RATE < stated - _PAST_END or _is_cut_off(path):
        raise Unusable("cannot be decoded", f"the sound is cut off after {total / SAMPLE_RATE:.1f} s")
    start = max(total - SAMPLES, 0) // 2
    pcm = _as_pcm(samples[:, start : start + SAMPLES], "in the center")
    return pcm if isinstance(pcm, Unusable) else np.resize(pcm, SAMPLES)


def _is_cut_off(path: Path) -> bool:
    """Whether a WAV file is shorter than its header says, which decoders don't tell."""
    with path.open("rb") as file:
        header = file.read(8)
    stated = int.from_bytes(header[4:], "little") if header[:4] == b"RIFF" else 0
    unknown = stated == 2**32 - 1  # as programs write it that don't know the length in advance
    return not unknown and path.stat().st_size + 1 < stated + len(header)  # a padding byte may be left out


def _decode_sound(path: Path, start: float, end: float) -> tuple[float, np.ndarray]:
    """Time of the first sample, and the samples (C, n) from before ``start`` to ``end`` as far as they exist."""
    with _opened(path) as container:
        _seek(container, start - _BEFORE)
        first, samples = _placed(container, start - _BEFORE, end)
    if start > _BEFORE and first > start:  # the index points too far ahead: decode from the beginning
        with _opened(path) as container:
            first, samples = _placed(container, start - _BEFORE, end)
    return first, samples


def _placed(container: av.container.InputContainer, start: float, end: float) -> tuple[float, np.ndarray]:
    """The sound between two times, placed by its time stamps; gaps are zeros. Without any, it starts at infinity."""
    first, last, samples = math.inf, 0, np.zeros((1, 0), np.float32)
    for block in blocks(_between(container, start, end)):
        if first == math.inf:
            first = block.begin
            length = math.ceil((end - first + _BEFORE) * SAMPLE_RATE)
            samples = np.zeros((len(block.samples), length), np.float32)
        offset = round((block.begin - first) * SAMPLE_RATE) + block.offset
        if 0 <= offset < samples.shape[1]:
            new = with_channels(block.samples, len(samples))[:, : samples.shape[1] - offset]
            samples[:, offset : offset + new.shape[1]] = new
            last = max(last, offset + new.shape[1])
    return first, samples[:, :last]


def _between(container: av.container.InputContainer, start: float, end: float) -> Iterator[tuple[float, av.AudioFrame]]:
    """The decoded frames of sound that overlap with two times, and their own times."""
    sound = best_stream(container, "audio")
    for time, frame in with_times(frame for frame in _decoded(container, sound) if frame is not None):
        if time >= end:
            return
        if time + frame.samples / frame.sample_rate > start:
            yield time, frame


def read_frames(path: Path, times: Sequence[float], origin: float) -> Iterator[Image.Image | Unusable]:
    """Yields the frame shown at each of the ascending ``times``, upright."""
    for frame in _frames_at(path, [origin + time for time in times]):
        yield frame if isinstance(frame, Unusable) else Image.fromarray(upright(frame))


def _frames_at(path: Path, times: Sequence[float]) -> Iterator[av.VideoFrame | Unusable]:
    remaining = list(reversed(times))
    last: av.VideoFrame | None = None
    end, damaged = 0.0, False
    for frame, until in _video_frames(path, times[0]):
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
        last, end, damaged = frame, until, False
    while remaining:
        time = remaining.pop()
        if last is not None and not damaged and time <= end + _PAST_END:
            yield last
        else:
            ends = f"its picture ends at {end:.1f} s, its frame is at {time:.1f} s" if last else ""
            yield Unusable("cannot be decoded" if damaged or last is None else "too short", ends)


def _video_frames(path: Path, start: float) -> Iterator[tuple[av.VideoFrame | None, float]]:
    """Frames from the last key frame before ``start``, and the times until which they are shown at least.

    ``None`` stands for a damaged packet.
    """
    with _opened(path) as container:
        _seek(container, start)
        frames = _timed_frames(container)
        head = next(((frame, until) for frame, until in frames if frame is not None), None)
        if head is not None and head[0].time <= start:
            yield head
            yield from frames
            return
    with _opened(path) as container:  # the index points too far ahead or nowhere: decode from the beginning
        yield from _timed_frames(container)


def _timed_frames(container: av.container.InputContainer) -> Iterator[tuple[av.VideoFrame | None, float]]:
    stream, durations = best_stream(container, "video"), {}
    for frame in _decoded(container, stream, durations):
        if frame is None:
            yield None, 0.0
        elif frame.time is not None:
            yield frame, frame.time + float(durations.pop(frame.pts, 0) * stream.time_base)


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


def _decoded(
    container: av.container.InputContainer, stream: av.stream.Stream, durations: dict[int | None, int] | None = None
) -> Iterator[av.frame.Frame | None]:
    """Frames of ``stream``; ``None`` for each damaged packet. ``durations`` gets those of the packets by time stamp."""
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
        if durations is not None:
            durations[packet.pts] = packet.duration or 0
        try:
            yield from packet.decode()
        except av.FFmpegError as error:
            if of_this_machine(error):
                raise
            yield None
