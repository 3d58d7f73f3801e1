"""Draws a moving heatmap over a video: where its sound comes from at each moment."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import torch
from av.video.reformatter import Colorspace
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..files import atomic_write
from ..model.localizer import Localizer
from ..sounds import flaw, level
from ..streams import best_stream, frame_rate, upright
from .overlay import paint, scaled
from .user_files import SoundAround, as_frame, decode, open_media, sound_blocks

log = logging.getLogger(__name__)

BATCH = 16
AAC_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8000, 7350)
AAC_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}
BT709 = 1  # FFmpeg's number of this color space


class VideoMaps(NamedTuple):
    """Maps of the sound of a video.

    times: (T,), seconds. maps: (T, h, w). every: frames from one map to the next. height, width: size of the frames.
    """

    times: Tensor
    maps: Tensor
    every: int
    height: int
    width: int


def terminal_bar(frames: Iterator[av.VideoFrame], stream: av.VideoStream, title: str) -> Iterator[av.VideoFrame]:
    """Yields the frames of a video and shows a bar, if there is a terminal."""
    return iter(tqdm(frames, total=stream.frames or None, desc=title, unit="frame", disable=None))


#: Yields the frames of a stream while something is done with them, which has a title.
Progress = Callable[[Iterator[av.VideoFrame], av.VideoStream, str], Iterator[av.VideoFrame]]


@torch.no_grad()
def localize_video(model: Localizer, path: Path, every: int, progress: Progress = terminal_bar) -> VideoMaps:
    """Computes a map for every n-th frame, from the frame and the 3 s of sound around it.

    Raises:
        ValueError: if the video has no picture or no sound, or can't be read.
    """
    times, parts, waiting = [], [], []
    height = width = 0
    loudest = np.zeros(1, np.float32)

    def compute() -> None:
        frames, waveforms = (torch.stack(column).to(model.device) for column in zip(*waiting, strict=True))
        parts.append(model.sound_map(model.encode(frames, waveforms)).cpu())
        waiting.clear()

    with open_media(path) as pictures, open_media(path) as sounds:
        stream = _video_stream(pictures, path)
        sound = SoundAround(sound_blocks(sounds, path), path)
        for index, frame in enumerate(progress(decode(pictures, stream, path), stream, "localizing")):
            if index % every:
                continue
            seconds = index / _rate(stream) if frame.time is None else frame.time
            picture = upright(frame)
            height, width = picture.shape[:2]
            waveform = sound.at(float(seconds))
            loudest = max(loudest, waveform.numpy(), key=level)
            waiting.append((as_frame(Image.fromarray(picture), model.config.image_size), waveform))
            times.append(float(seconds))
            if len(waiting) == BATCH:
                compute()
    if waiting:
        compute()
    if not parts:
        raise ValueError(f"Expected {path} to be a video, but it has no frames")
    if found := flaw(loudest):
        log.warning("%s %s. Its maps mean nothing.", path, found)
    return VideoMaps(torch.tensor(times, dtype=torch.float64), torch.cat(parts), every, height, width)


def draw_heatmaps(path: Path, out: Path, video_maps: VideoMaps, progress: Progress = terminal_bar) -> None:
    """Writes the video as MP4 with a heatmap over each frame; size, times and sound stay the same.

    Frames between two maps get an interpolated map. The colors span the range of all maps of the video.
    """
    low, high = float(video_maps.maps.min()), float(video_maps.maps.max())
    maps = scaled(video_maps.maps, low, high)
    with atomic_write(out) as temporary, open_media(path) as source:
        stream = _video_stream(source, path)
        with av.open(str(temporary), "w", options={"movflags": "faststart"}) as target:
            rate = _rate(stream)
            sink = target.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "veryfast"})
            sink.width, sink.height = video_maps.width, video_maps.height
            # yuv420p halves the color resolution, so it needs even sides
            sink.pix_fmt = "yuv444p" if video_maps.width % 2 or video_maps.height % 2 else "yuv420p"
            sink.codec_context.time_base = stream.time_base
            if ratio := stream.sample_aspect_ratio:  # of a pixel; turned with the picture
                sink.codec_context.sample_aspect_ratio = ratio if video_maps.width == stream.width else 1 / ratio
            if _is_bt709(stream):
                sink.codec_context.colorspace = sink.codec_context.color_primaries = sink.codec_context.color_trc = (
                    BT709
                )
            sound = _SoundCopy(source, target, path)
            tick, clock = max(round(1 / (rate * stream.time_base)), 1), _Clock(stream.time_base)
            for index, frame in enumerate(progress(_frames(source, stream, sound), stream, "drawing")):
                before, rest = divmod(index, video_maps.every)
                heat = torch.lerp(maps[before], maps[min(before + 1, len(maps) - 1)], rest / video_maps.every)
                painted = av.VideoFrame.from_ndarray(paint(upright(frame), heat), format="rgb24").reformat(
                    *(sink.width, sink.height),  # the size may change in the middle
                    format=sink.pix_fmt,
                    dst_colorspace=Colorspace.ITU709 if _is_bt709(stream) else None,
                )
                painted.pts, painted.time_base = clock.rising(frame.pts, tick), stream.time_base
                target.mux(sink.encode(painted))
            target.mux(sink.encode(None))
            sound.finish()


class _Clock:
    """Makes time stamps rise. If they jump back by a second or more, as in joined recordings, time goes on."""

    def __init__(self, time_base: Fraction) -> None:
        self._second, self._shift = round(1 / time_base), 0
        self._last: int | None = None

    def rising(self, stamp: int | None, step: int) -> int:
        """The time stamp to write; ``step`` is its usual distance from the one before it."""
        if self._last is None:
            self._last = stamp or 0
            return self._last
        if stamp is not None and stamp + self._shift <= self._last - self._second:
            self._shift = self._last + step - stamp
        self._last = self._last + step if stamp is None else max(stamp + self._shift, self._last + 1)
        return self._last


class _SoundCopy:
    """Copies the sound of a video to another: unchanged if MP4 takes it, else encoded as AAC."""

    def __init__(self, source: av.container.InputContainer, target: av.container.OutputContainer, path: Path) -> None:
        stream, self._target = best_stream(source, "audio"), target
        if stream is None:
            raise ValueError(f"Expected {path} to hold a sound, but it has no audio stream")
        self.stream = stream
        self._copied, self._clock = _fits_mp4(path), _Clock(stream.time_base)
        if self._copied:
            self._sink = target.add_stream_from_template(stream)
        else:
            rate = min(AAC_RATES, key=lambda rate: abs(rate - stream.rate))
            self._sink = target.add_stream(
                "aac", rate=rate, layout=AAC_LAYOUTS.get(stream.layout.nb_channels, "stereo")
            )

    def add(self, packet: av.Packet) -> None:
        if not self._copied:
            for frame in packet.decode():
                self._target.mux(self._sink.encode(frame))
        elif packet.dts is not None:
            late = 0 if packet.pts is None else packet.pts - packet.dts
            packet.dts = self._clock.rising(packet.dts, packet.duration or 1)
            packet.pts = packet.dts + late
            packet.stream = self._sink
            self._target.mux(packet)

    def finish(self) -> None:
        if not self._copied:
            self._target.mux(self._sink.encode(None))


def _fits_mp4(path: Path) -> bool:
    """Whether MP4 takes the sound of a video: its codec, rate and channels. The last two fail at the end only."""
    with open_media(path) as source, contextlib.suppress(av.FFmpegError, ValueError):
        stream = best_stream(source, "audio")
        with av.open(io.BytesIO(), "w", format="mp4") as trial:
            if stream.codec_context.name not in trial.supported_codecs:
                return False
            sink = trial.add_stream_from_template(stream)
            packet = next(source.demux(stream))
            packet.stream = sink
            trial.mux(packet)
        return True
    return False


def _frames(source: av.container.InputContainer, stream: av.VideoStream, sound: _SoundCopy) -> Iterator[av.VideoFrame]:
    """Yields the frames of a video; the packets of sound between them go to ``sound``."""
    for packet in source.demux(stream, sound.stream):
        if packet.stream is stream:
            yield from packet.decode()
        else:
            sound.add(packet)


def _video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    stream = best_stream(container, "video")
    if stream is None:
        raise ValueError(f"Expected {path} to be a video, but it has no video stream. For a sound, give IMAGE SOUND")
    stream.thread_type = "AUTO"
    return stream


def _is_bt709(stream: av.VideoStream) -> bool:
    """Whether the video is marked as BT.709, as most videos in high definition; others stay unmarked."""
    return bool(stream.codec_context.colorspace == BT709)


def _rate(stream: av.VideoStream) -> Fraction:
    return Fraction(frame_rate(stream) or 25)


def save_video_maps(path: Path, video_maps: VideoMaps) -> None:
    """Writes the maps of the sound with their times, and the size of the frames, as NPZ."""
    with atomic_write(path) as temporary:
        np.savez_compressed(
            temporary,
            times=video_maps.times.numpy(),
            sound=video_maps.maps.numpy(),
            frame_size=np.array([video_maps.height, video_maps.width]),
        )
