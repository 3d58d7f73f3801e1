"""The sheet of pictures of a run: test scenes with the ground truth and the maps."""

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
from .legend import (
    SILENT_COLOR,
    add_key,
    assigned_maps,
    box_remarks,
    clipped,
    key_rows,
    map_titles,
    name_on_box,
    paint_not_found,
    source_color,
    source_labels,
)
from .predict import Prediction

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

SHEET_ROWS = 6
#: Side of a panel in inches, with its margin, and dots per inch: a panel is at least 200 pixels wide.
TILE, DPI = 2.1, 100
SHEET_TITLE = "Test scenes: frames with the ground truth, and the maps of the model"


def draw_sheet(
    path: Path, tests: Sequence[tuple[HeldOutScenes, Prediction]], title: str, rows: int = SHEET_ROWS
) -> None:
    """Draws one row per scene, the subsets side by side, with a title and a key.

    A row shows the frames with the boxes of sounding objects (one color per source) and silent ones (red, dashed), the
    map of the whole sound and, for mixtures, the map of each source. A source that was not found has a gray panel.
    """
    widths = [2 if held_out.num_sources == 1 else 2 + prediction.maps.shape[1] for held_out, prediction in tests]
    frames = [held_out.num_frames for held_out, _ in tests]
    rows = min(rows, *(len(held_out.test.scenes) for held_out, _ in tests))
    ratios = [n for width, n in zip(widths, frames, strict=True) for _ in range(width)]
    figure, axes = plt.subplots(
        rows,
        len(ratios),
        figsize=(TILE * sum(ratios), (TILE + 0.3) * rows + 1.1),
        squeeze=False,
        layout="constrained",
        gridspec_kw={"width_ratios": ratios},
    )
    first = 0
    for (held_out, prediction), width in zip(tests, widths, strict=True):
        for index in range(rows):
            _draw_scene(axes[index, first : first + width], held_out, prediction, index)
        first += width
    entitle(figure, "\n".join(filter(None, (title, SHEET_TITLE))))
    missing = any(
        not all(bool(valid) for valid in prediction.valid[index, : held_out.num_sources])
        for held_out, prediction in tests
        for index in range(rows)
    )
    add_key(
        figure,
        key_rows(
            max(held_out.num_sources for held_out, _ in tests),
            silent=any(held_out.silent for held_out, _ in tests),
            missing=missing,
        ),
        "A map is named after the source that it covers best." if max(widths) > 2 else "",
    )
    with atomic_buffer(path) as buffer:
        figure.savefig(buffer, format="png", dpi=DPI)
    plt.close(figure)


def _draw_scene(axes: Sequence[Axes], held_out: HeldOutScenes, prediction: Prediction, index: int) -> None:
    picture, labels = picture_of(held_out, index), source_labels(held_out, index)
    for axis in axes:
        axis.axis("off")
        axis.imshow(picture)
    draw_boxes(axes[0], held_out, index, silent=True, names=True)
    axes[0].set_title("\n".join((" + ".join(labels), *box_remarks(held_out, index))), fontsize=9, parse_math=False)
    overlay(axes[1], picture, prediction.sound[index])
    draw_boxes(axes[1], held_out, index, silent=False)
    axes[1].set_title("map of the sound", fontsize=9)
    if len(axes) == 2:
        return
    assigned = assigned_maps(held_out, prediction, index)
    titles = map_titles(labels, assigned, prediction.valid[index].tolist())
    for panel, (axis, (text, number)) in enumerate(zip(axes[2:], titles, strict=True)):
        axis.set_title(text, fontsize=9, parse_math=False)
        if number >= 0:
            overlay(axis, picture, prediction.maps[index, number])
            if panel < len(labels):
                draw_boxes(axis, held_out, index, silent=False, only=panel)
        elif text:
            paint_not_found(axis, picture.shape, labels[panel])


def entitle(figure: Figure, title: str) -> None:
    """Sets the title above all panels, in lines that are no wider than the figure."""
    width = max(16, int(9 * figure.get_figwidth()))
    figure.suptitle("\n".join(textwrap.fill(line, width) for line in title.splitlines()))


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


def draw_boxes(
    axis: Axes, held_out: HeldOutScenes, index: int, *, silent: bool, names: bool = False, only: int | None = None
) -> None:
    """Draws the boxes of a scene's sources, each in its color, and with ``silent`` of its silent objects (red, dashed).

    ``names`` writes the classes beside the boxes; ``only`` is the number of the one source whose boxes are drawn.
    """
    scene, boxes = held_out.test.scenes[index], held_out.test.boxes[index]
    if silent and held_out.silent:
        for number, clip in enumerate(scene):
            for box in held_out.silent[clip].boxes:
                _draw_box(axis, box, number, SILENT_COLOR, "--")
    for source, source_boxes in enumerate(boxes):
        frame, color = source if len(scene) > 1 else 0, source_color(source)
        if only in (None, source):
            for box in source_boxes:
                _draw_box(axis, box, frame, color, "-")
            if names and source_boxes:
                name_on_box(axis, source_boxes[0], frame, source_labels(held_out, index)[source], source)


def _draw_box(axis: Axes, box: Box, frame: int, color: str, style: str) -> None:
    """Draws a box, given by fractional corners, on one of the frames; a dark edge shows it on maps of any color."""
    left, top, right, bottom = (FRAME_SIZE * value for value in clipped(box))
    corner, size = (left + FRAME_SIZE * frame, top), (right - left, bottom - top)
    if min(size) > 0:
        patch = Rectangle(corner, *size, fill=False, edgecolor=color, linestyle=style, linewidth=1.8)
        patch.set_path_effects([withStroke(linewidth=3.4, foreground="black")] if style == "-" else [])
        axis.add_patch(patch)
