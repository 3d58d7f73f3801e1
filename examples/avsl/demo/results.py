"""Runs the model on an upload and draws what it finds. Nothing here knows of a page."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from ..localization.job import find_sources
from ..localization.overlay import paint, scaled
from ..localization.user_files import as_frame, decode, open_media
from ..localization.video import Progress, VideoMaps, draw_heatmaps, localize_video, terminal_bar
from ..model.localizer import Localizer
from ..sounds import flaw
from ..streams import best_stream, upright

SHOWN_FRAMES = 8  # of a video
MOST_MAPS = 120  # of a video
_SMALL, _LARGE = 448, 800  # pixels of the longer side of what is shown


@dataclass(frozen=True)
class View:
    """One picture of a result: a map (h, w), the picture below it, the range that the colors span, and a caption."""

    title: str
    picture: np.ndarray
    heat: Tensor
    low: float
    high: float
    note: str


@dataclass(frozen=True)
class Result:
    """What the model found.

    views: the map of the whole sound and one map per source, or frames of a video. text: what was found, in words.
    warning: why the maps may mean nothing. video: the file with the moving heatmap.
    """

    views: list[View] = field(repr=False)
    text: str
    warning: str = ""
    video: Path | None = None


def identifications(model: Localizer) -> list[str]:
    """The ways to tell sources apart that need no known classes; that of the model's configuration comes first."""
    names = [name for name in model.method.identifications if name != "given"]
    return sorted(names, key=lambda name: name != model.config.identification)


def localize_in_picture(
    model: Localizer, picture: Image.Image, waveform: Tensor, num_sources: int | None, identification: str
) -> Result:
    """Computes the map of the whole sound and one map per source.

    Args:
        model: the model.
        picture: RGB, of any size.
        waveform: (48000,), 16 kHz.
        num_sources: the number of sources; ``None``: the model finds it.
        identification: how they are told apart.
    """
    frame = as_frame(picture, model.config.image_size)
    sound, sources = find_sources(model, frame, waveform, num_sources, identification)
    maps, valid, peaks = (values[0].cpu() for values in sources)
    pixels = shown(picture)
    similar = f"similarity {float(sound.min()):.2f} to {float(sound.max()):.2f}"
    views = [_own_range("The whole sound", pixels, sound, similar)]
    for number, index in enumerate(valid.nonzero().flatten().tolist(), 1):
        views.append(
            _own_range(f"Source {number}", pixels, maps[index], f"largest similarity {float(peaks[index]):.2f}")
        )
    text = _counted(len(views) - 1, num_sources, identification)
    problem = flaw(waveform.numpy())
    return Result(views, text, f"The sound {problem}. The maps mean nothing." if problem else "")


def localize_in_video(model: Localizer, path: Path, count: int, out: Path, progress: Progress = terminal_bar) -> Result:
    """Computes the maps of a video's sound over time, and writes the video with a moving heatmap to ``out``.

    Args:
        model: the model.
        path: the video.
        count: its number of frames.
        out: an MP4 file.
        progress: yields the frames as they are read; may raise an error to stop.

    Raises:
        ValueError: if the video can't be read.
    """
    video = localize_video(model, path, max(5, math.ceil(count / MOST_MAPS)), progress)
    draw_heatmaps(path, out, video, progress)
    low, high = float(video.maps.min()), float(video.maps.max())
    chosen = np.unique(np.linspace(0, len(video.maps) - 1, SHOWN_FRAMES).round().astype(int)).tolist()
    views = [
        View(f"{float(video.times[index]):.1f} s", pixels, video.maps[index], low, high, "")
        for index, pixels in zip(chosen, _frames(path, video, chosen), strict=True)
    ]
    text = f"{_plural(len(video.maps), 'map')}, one for every {video.every} frames, and {len(views)} of them below."
    return Result(views, f"{text} Similarity {low:.2f} to {high:.2f}.", video=out)


def draw(view: View, threshold: float, opacity: float) -> bytes:
    """Draws a view as JPEG. The heat is left out where the map is in the lowest ``threshold`` of the colors' range."""
    heat = scaled(view.heat, view.low, view.high)
    buffer = io.BytesIO()
    Image.fromarray(paint(view.picture, heat, opacity, threshold)).save(buffer, format="JPEG", quality=92)
    return buffer.getvalue()


def shown(picture: Image.Image) -> np.ndarray:
    """Resizes a picture to what is drawn on, (H, W, 3) uint8: a longer side of 448 to 800 pixels."""
    longer = max(picture.size)
    factor = min(max(longer, _SMALL), _LARGE) / longer
    size = (max(round(picture.width * factor), 1), max(round(picture.height * factor), 1))
    return np.asarray(picture.resize(size, Image.Resampling.BICUBIC))


def _frames(path: Path, video: VideoMaps, chosen: list[int]) -> list[np.ndarray]:
    """The frames of the maps with the numbers ``chosen``, which increase."""
    frames, wanted = [], {index * video.every for index in chosen}
    with open_media(path) as container:
        stream = best_stream(container, "video")
        for index, frame in enumerate(decode(container, stream, path)):
            if index in wanted:
                frames.append(shown(Image.fromarray(upright(frame))))
            if len(frames) == len(chosen):
                break
    return frames


def _own_range(title: str, picture: np.ndarray, heat: Tensor, note: str) -> View:
    return View(title, picture, heat, float(heat.min()), float(heat.max()), note)


def _counted(found: int, asked: int | None, identification: str) -> str:
    if asked is None:
        return f"{_plural(found, 'source')} found, told apart by “{identification}”."
    return f"{_plural(asked, 'source')} asked for, {found} found, told apart by “{identification}”."


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
