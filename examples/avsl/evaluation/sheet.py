"""The sheet of pictures: frames with boxes, and maps over them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch.nn.functional as F
from torch import Tensor

from ..constants import FRAME_SIZE
from ..data.folders import Box
from ..files import atomic_buffer
from .held_out import HeldOutScenes
from .predict import Prediction

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

SHEET_ROWS = 6


def draw_sheet(path: Path, tests: Sequence[tuple[HeldOutScenes, Prediction]], title: str) -> None:
    """Draws one row per scene, the subsets side by side.

    A row shows the frames with the boxes of sounding (green) and silent objects (red, dashed), the map of the whole
    sound and, for mixtures, the map of each source.
    """
    widths = [2 if held_out.num_sources == 1 else 2 + prediction.maps.shape[1] for held_out, prediction in tests]
    frames = [held_out.num_frames for held_out, _ in tests]
    rows = min(SHEET_ROWS, *(len(held_out.test.scenes) for held_out, _ in tests))
    ratios = [n for width, n in zip(widths, frames, strict=True) for _ in range(width)]
    figure, axes = plt.subplots(
        rows,
        len(ratios),
        figsize=(2.1 * sum(ratios), 2.3 * rows),
        squeeze=False,
        layout="constrained",
        gridspec_kw={"width_ratios": ratios},
    )
    first = 0
    for (held_out, prediction), width in zip(tests, widths, strict=True):
        for index in range(rows):
            _draw_scene(axes[index, first : first + width], held_out, prediction, index)
        first += width
    if title:
        entitle(figure, title)
    with atomic_buffer(path) as buffer:
        figure.savefig(buffer, format="png", dpi=75)
    plt.close(figure)


def _draw_scene(axes: Sequence[Axes], held_out: HeldOutScenes, prediction: Prediction, index: int) -> None:
    scene, picture = held_out.test.scenes[index], picture_of(held_out, index)
    for axis in axes:
        axis.axis("off")
        axis.imshow(picture)
        draw_boxes(axis, held_out, index, silent=axis is axes[0])
    axes[0].set_title(
        ", ".join(c for clip in scene for c in held_out.test.clips[clip].classes), fontsize=9, parse_math=False
    )
    overlay(axes[1], picture, prediction.sound[index])
    axes[1].set_title("sound", fontsize=9)
    for number, axis in enumerate(axes[2:]):
        valid = bool(prediction.valid[index, number])
        if valid:
            overlay(axis, picture, prediction.maps[index, number])
        axis.set_title(f"source {number + 1}" if valid else f"source {number + 1}: not found", fontsize=9)


def entitle(figure: Figure, title: str) -> None:
    """Sets the title above all panels, in lines that are no wider than the figure."""
    figure.suptitle(textwrap.fill(title, max(16, int(9 * figure.get_figwidth()))))


def picture_of(held_out: HeldOutScenes, index: int) -> np.ndarray:
    """Returns the frames of a scene side by side, (224, n · 224, 3) in [0, 1]."""
    scene = held_out.test.scenes[index]
    frames = held_out.scenes.pixels(scene)[None].float() / 255
    shape = (FRAME_SIZE, FRAME_SIZE * len(scene))
    return F.interpolate(frames, size=shape, mode="bilinear")[0].clamp(0, 1).permute(1, 2, 0).numpy()


def overlay(axis: Axes, picture: np.ndarray, heat: Tensor) -> None:
    """Draws a map over a gray scene."""
    smooth = F.interpolate(heat[None, None], size=picture.shape[:2], mode="bicubic")[0, 0].numpy()
    axis.imshow(picture.mean(axis=2), cmap="gray")
    axis.imshow(smooth, cmap="turbo", alpha=0.6)


def draw_boxes(axis: Axes, held_out: HeldOutScenes, index: int, *, silent: bool) -> None:
    """Draws the boxes of a scene's sources (green) and, with ``silent``, of its silent objects (red, dashed)."""
    scene, boxes = held_out.test.scenes[index], held_out.test.boxes[index]
    for source, source_boxes in enumerate(boxes):
        for box in source_boxes:
            _draw_box(axis, box, source if len(scene) > 1 else 0, "lime", "-")
    if silent and held_out.silent:
        for number, clip in enumerate(scene):
            for box in held_out.silent[clip].boxes:
                _draw_box(axis, box, number, "red", "--")


def _draw_box(axis: Axes, box: Box, frame: int, color: str, style: str) -> None:
    """Draws a box, given by fractional corners, on one of the frames."""
    left, top, right, bottom = (FRAME_SIZE * min(max(v, 0), 1) for v in box)
    corner, size = (left + FRAME_SIZE * frame, top), (right - left, bottom - top)
    if min(size) > 0:
        axis.add_patch(Rectangle(corner, *size, fill=False, edgecolor=color, linestyle=style, linewidth=1.5))
