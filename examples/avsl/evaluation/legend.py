"""What the pictures of scenes share: one color per source, names of classes, and the key below a sheet."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from sslosses.metrics.functional import binarize_above_upper_median, ciou, optimal_assignment, resize_bicubic

from ..constants import FRAME_SIZE
from ..data.folders import Box
from .held_out import HeldOutScenes
from .predict import Prediction

SOURCE_COLORS = ("lime", "deepskyblue", "magenta", "orange")
SILENT_COLOR = "red"
NOT_FOUND_GRAY = 0.6
_NAME_LENGTH = 24


def source_color(source: int) -> str:
    """The color of a source's box and name; the fifth source has that of the first."""
    return SOURCE_COLORS[source % len(SOURCE_COLORS)]


def class_label(name: str, length: int = _NAME_LENGTH) -> str:
    """A class name as words, at most ``length`` characters long, in quotes if it holds a comma."""
    words = textwrap.shorten(name.replace("_", " "), length, placeholder=" …")
    words = words if len(words) > 2 else f"{name[: length - 1]}…"  # one word that is longer than that
    return f"“{words}”" if "," in words else words


def source_labels(held_out: HeldOutScenes, index: int) -> list[str]:
    """The class of each source of a scene, in the order of its boxes."""
    clips = [held_out.test.clips[number] for number in held_out.test.scenes[index]]
    return [class_label(name) for clip in clips for name in clip.classes]


def box_remarks(held_out: HeldOutScenes, index: int) -> list[str]:
    """What is wrong with the ground truth of a scene: a remark for each source without a usable box."""
    boxes, labels = held_out.test.boxes[index], source_labels(held_out, index)
    return [f"{name}: no usable box" for name, own in zip(labels, boxes, strict=False) if not any(map(_usable, own))]


def clipped(box: Box) -> tuple[float, float, float, float]:
    """The corners of a box within the frame, as fractions."""
    left, top, right, bottom = (min(max(value, 0.0), 1.0) for value in box)
    return left, top, right, bottom


def _usable(box: Box) -> bool:
    left, top, right, bottom = clipped(box)
    return right > left and bottom > top


def assigned_maps(held_out: HeldOutScenes, prediction: Prediction, index: int) -> list[int]:
    """The number of the map of each source, -1 for a source that was not found.

    The assignment is the one with the largest overlap of boxes and maps, binarized at their median.
    """
    truths, maps = _masks(held_out, index), prediction.maps[index]
    found = prediction.valid[index]
    if not bool(found.any()):
        return [-1] * len(truths)
    marked = binarize_above_upper_median(resize_bicubic(maps, tuple(truths.shape[1:])))
    overlaps = ciou(marked[:, None], truths[None])[None]
    allowed = found[None, :, None].expand_as(overlaps)
    return [int(number) for number in optimal_assignment(overlaps, allowed)[0]]


def _masks(held_out: HeldOutScenes, index: int) -> torch.Tensor:
    """The pixels of each source's boxes on the frames of its scene, side by side, (S, 224, n · 224)."""
    boxes, frames = held_out.test.boxes[index], len(held_out.test.scenes[index])
    masks = torch.zeros(len(boxes), FRAME_SIZE, FRAME_SIZE * frames, dtype=torch.bool)
    for source, own in enumerate(boxes):
        for box in map(clipped, own):
            left, top, right, bottom = (int(FRAME_SIZE * value) for value in box)
            offset = FRAME_SIZE * source if frames > 1 else 0
            masks[source, top:bottom, left + offset : right + offset] = True
    return masks


def map_titles(labels: Sequence[str], assigned: Sequence[int], found: Sequence[bool]) -> list[tuple[str, int]]:
    """The title of each panel of maps and the number of its map, -1 without: the sources first, then the other maps.

    Args:
        labels: the class of each source.
        assigned: the map of each source, from :func:`assigned_maps`.
        found: which maps exist; their number is that of the panels. Panels in excess have an empty title and no map.
    """
    titles = [
        (f"source {source + 1}: {label if number >= 0 else 'not found'}", number)
        for source, (label, number) in enumerate(zip(labels, assigned, strict=True))
    ]
    titles += [
        ("map without a source", number) for number, exists in enumerate(found) if exists and number not in assigned
    ]
    return titles + [("", -1)] * (len(found) - len(titles))


def key_rows(sources: int, *, silent: bool, missing: bool) -> list[tuple[str, str]]:
    """The rows of the key as (color, text); a color of ``""`` stands for the gray of a source that was not found."""
    rows = [(source_color(number), f"box of source {number + 1}, which sounds") for number in range(sources)]
    rows += [(SILENT_COLOR, "box of a silent object")] if silent else []
    return rows + ([("", "the model has found no such source")] if missing else [])


def add_key(figure: Figure, rows: Sequence[tuple[str, str]], note: str = "") -> None:
    """Draws the key below all panels: the colors of boxes, and those of maps with what they stand for."""
    handles = [
        Line2D([], [], color=color, linewidth=2.5, linestyle="--" if color == SILENT_COLOR else "-", label=text)
        if color
        else Patch(facecolor=str(NOT_FOUND_GRAY), label=text)
        for color, text in rows
    ]
    columns = max(1, min(len(handles), int(figure.get_figwidth() / 2.6)))
    title = "\n".join(
        textwrap.wrap(
            f"Maps: blue is low, red is high, each map by its own range. {note}", int(14 * figure.get_figwidth())
        )
    )
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, fontsize=9, title=title, title_fontsize=9,
        frameon=False,
    )  # fmt: skip


def paint_not_found(axis: Axes, shape: tuple[int, ...], label: str) -> None:
    """Fills a panel with gray and says that the source of this class was not found."""
    axis.imshow(np.full(shape[:2], NOT_FOUND_GRAY), cmap="gray", vmin=0, vmax=1)
    axis.text(
        shape[1] / 2, shape[0] / 2, f"{label}\nnot found", ha="center", va="center", fontsize=10, parse_math=False
    )


def name_on_box(axis: Axes, box: Box, frame: int, label: str, source: int) -> None:
    """Writes the class of a source into the upper corner of its box, in the color of the box.

    The names of later sources are lower by a line each, so that names on narrow boxes don't cover each other.
    """
    left, top, *_ = clipped(box)
    text = axis.text(
        FRAME_SIZE * (left + frame) + 4, FRAME_SIZE * top + 4 + 15 * source, label, color=source_color(source),
        fontsize=8, weight="bold", ha="left", va="top", parse_math=False, clip_on=True,
    )  # fmt: skip
    text.set_path_effects([withStroke(linewidth=2.5, foreground="black")])
