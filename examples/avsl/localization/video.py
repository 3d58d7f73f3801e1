"""A video with a moving heatmap: where its sound comes from at each moment."""

from __future__ import annotations

from collections.abc import Iterator
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
from .overlay import paint, scaled
from .user_files import SoundAround, as_frame, as_waveform, decoded, open_media, sound_blocks, upright

BATCH = 16
BT709 = 1  # as the standard numbers it


class Watched(NamedTuple):
    """Maps of the sound, (T, h, w), of every n-th frame, with their times in seconds, (T,), and the frames' size."""

    times: Tensor
    maps: Tensor
    every: int
    height: int
    width: int


@torch.no_grad()
def watch(model: Localizer, path: Path, every: int) -> Watched:
    """Look at every n-th frame with the 3 s of sound around it.

    Raises:
        ValueError: if the video has no picture or no sound, or can't be read.
    """
    times, parts, waiting = [], [], []
    height = width = 0

    def look() -> None:
        frames, waveforms = (torch.stack(column).to(model.device) for column in zip(*waiting, strict=True))
        parts.append(model.sound_map(*model.encode(frames, waveforms)).cpu())
        waiting.clear()

    with open_media(path) as pictures, open_media(path) as sounds:
        stream = _video_stream(pictures, path)
        sound = SoundAround(sound_blocks(sounds, path))
        for index, frame in enumerate(_with_progress(decoded(pictures, stream, path), stream, "listening")):
            if index % every:
                continue
            seconds = index / _rate(stream) if frame.time is None else frame.time
            picture = upright(frame)
            height, width = picture.shape[:2]
            waiting.append(
                (as_frame(Image.fromarray(picture), model.config.image_size), as_waveform(sound.at(float(seconds))))
            )
            times.append(float(seconds))
            if len(waiting) == BATCH:
                look()
    if waiting:
        look()
    if not parts:
        raise ValueError(f"Expected {path} to be a video, but it has no frames")
    return Watched(torch.tensor(times, dtype=torch.float64), torch.cat(parts), every, height, width)


def draw(path: Path, out: Path, watched: Watched) -> None:
    """Write the video as MP4 with its heat over each frame: size, times and sound are the video's.

    Between two maps the heat moves from one to the other. Its scale is the range of all maps of the video.
    """
    low, high = float(watched.maps.min()), float(watched.maps.max())
    maps = scaled(watched.maps, low, high)
    with atomic_write(out) as temporary, open_media(path) as source:
        stream = _video_stream(source, path)
        with av.open(str(temporary), "w", options={"movflags": "faststart"}) as target:
            rate = _rate(stream)
            sink = target.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "veryfast"})
            sink.width, sink.height = watched.width, watched.height
            # halved colors need even sides
            sink.pix_fmt = "yuv444p" if watched.width % 2 or watched.height % 2 else "yuv420p"
            sink.codec_context.time_base = stream.time_base
            if _is_bt709(stream):
                sink.codec_context.colorspace = sink.codec_context.color_primaries = sink.codec_context.color_trc = (
                    BT709
                )
            sound = _Sound(source, target)
            tick, last = max(round(1 / (rate * stream.time_base)), 1), None
            for index, frame in enumerate(_with_progress(_frames(source, stream, sound), stream, "drawing")):
                before, rest = divmod(index, watched.every)
                heat = torch.lerp(maps[before], maps[min(before + 1, len(maps) - 1)], rest / watched.every)
                painted = av.VideoFrame.from_ndarray(paint(upright(frame), heat), format="rgb24").reformat(
                    format=sink.pix_fmt, dst_colorspace=Colorspace.ITU709 if _is_bt709(stream) else None
                )
                pts = frame.pts if frame.pts is not None else 0 if last is None else last + tick
                last = pts if last is None else max(pts, last + 1)
                painted.pts, painted.time_base = last, stream.time_base
                target.mux(sink.encode(painted))
            target.mux(sink.encode(None))
            sound.finish()


class _Sound:
    """The sound of a video on its way into another: as it is where MP4 takes its codec, else encoded as AAC."""

    def __init__(self, source: av.container.InputContainer, target: av.container.OutputContainer) -> None:
        self.stream, self._target = source.streams.audio[0], target
        self._copied = self.stream.codec_context.name in target.supported_codecs
        if self._copied:
            self._sink = target.add_stream_from_template(self.stream)
        else:
            self._sink = target.add_stream("aac", rate=self.stream.rate)

    def take(self, packet: av.Packet) -> None:
        if not self._copied:
            for frame in packet.decode():
                self._target.mux(self._sink.encode(frame))
        elif packet.dts is not None:
            packet.stream = self._sink
            self._target.mux(packet)

    def finish(self) -> None:
        if not self._copied:
            self._target.mux(self._sink.encode(None))


def _frames(source: av.container.InputContainer, stream: av.VideoStream, sound: _Sound) -> Iterator[av.VideoFrame]:
    """The frames of a video; the packets of its sound go to ``sound`` as they come between them."""
    for packet in source.demux(stream, sound.stream):
        if packet.stream is stream:
            yield from packet.decode()
        else:
            sound.take(packet)


def _with_progress(frames: Iterator[av.VideoFrame], stream: av.VideoStream, what: str) -> Iterator[av.VideoFrame]:
    return iter(tqdm(frames, total=stream.frames or None, desc=what, unit="frame", disable=None))


def _video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    if not container.streams.video:
        raise ValueError(f"Expected {path} to be a video, but it has no picture. With a picture: IMAGE SOUND")
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    return stream


def _is_bt709(stream: av.VideoStream) -> bool:
    """Whether the colors are those of most videos in high definition; of others, a player guesses as before."""
    return bool(stream.codec_context.colorspace == BT709)


def _rate(stream: av.VideoStream) -> Fraction:
    return Fraction(stream.average_rate or stream.guessed_rate or 25)


def save_watched(path: Path, watched: Watched) -> None:
    """The maps of the sound with their times, and the size of the frames, as NPZ."""
    with atomic_write(path) as temporary:
        np.savez_compressed(
            temporary,
            times=watched.times.numpy(),
            sound=watched.maps.numpy(),
            frame_size=np.array([watched.height, watched.width]),
        )
