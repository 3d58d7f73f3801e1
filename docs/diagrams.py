"""Draws the pictures that explain: the steps from frame to score, what OCA compares, and which command reads what.

All are 780 pixels wide with letters of 20 pixels and more, so that they can be read on a phone, at half their size.
"""

from __future__ import annotations

import textwrap
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from torch import Tensor

WIDTH = 7.8  # inches, at 100 dots per inch
SMALL, NORMAL, LARGE = 14.5, 16.0, 18.0  # points
BLUE, ORANGE, RED, GREEN, GRAY = "#1565c0", "#d2690e", "#c62828", "#2e7d32", "#616161"
PULL, PUSH, LEFT_OUT = ("pull together", GREEN), ("push apart", RED), ("left out by τ", GRAY)


class Scene(NamedTuple):
    """A duet and what the model makes of it.

    picture: (H, W, 3) in [0, 1]. sound: samples at 16 kHz. classes: of its two sources. boxes: of each source, as
    fractional corners. captions: two of sources, then the background's. visual: (C, h, w). sound_map: (h, w).
    caption_maps: (3, h, w). maps: (2, h, w), in the order of the sources. score: one line of text.
    """

    picture: np.ndarray
    sound: Tensor
    classes: tuple[str, str]
    boxes: list[list[tuple[float, float, float, float]]]
    captions: list[str]
    visual: Tensor
    sound_map: Tensor
    caption_maps: Tensor
    maps: Tensor
    score: str


class Pair(NamedTuple):
    """A region of a frame that OCA compares with a caption.

    picture: (H, W, 3). region: its mask, (h, w) in [0, 1]. name: what the region is. cosine: of the two features.
    result: one of ``PULL``, ``PUSH`` and ``LEFT_OUT``.
    """

    picture: np.ndarray
    region: Tensor
    name: str
    cosine: float
    result: tuple[str, str]


def draw_pipeline(scene: Scene) -> Figure:
    """Draws frame, sound and captions → features → maps → losses → score, from top to bottom."""
    figure = plt.figure(figsize=(WIDTH, 16.2), dpi=100)
    page = _page(figure)
    _heading(page, 0.995, "1  A frame, its sound, and captions")
    frame = _tile(figure, 0.03, 0.845, 0.26)
    frame.imshow(scene.picture)
    for boxes, color in zip(scene.boxes, (BLUE, ORANGE), strict=True):
        _outline(frame, boxes, color, scene.picture.shape[0])
    page.text(0.16, 0.84, "frame", ha="center", va="top", fontsize=SMALL)
    sound = figure.add_axes((0.33, 0.895, 0.24, 0.055))
    sound.plot(scene.sound[::40], color="#333333", linewidth=0.5)
    sound.axis("off")
    page.text(0.45, 0.885, "sound\n(both instruments)", ha="center", va="top", fontsize=SMALL, linespacing=1.3)
    for k, (caption, color) in enumerate(zip(scene.captions, (BLUE, ORANGE, RED), strict=True)):
        text = textwrap.fill(f"“{caption.removeprefix('an image of ')}”", 22)
        page.text(0.61, 0.965 - 0.043 * k, text, color=color, va="top", fontsize=SMALL, linespacing=1.15)
    page.text(0.61, 0.84, "captions (training only)", va="top", fontsize=SMALL)
    _arrow(page, 0.822, "three encoders")
    _heading(page, 0.785, "2  Features: lists of numbers of equal length")
    _tile(figure, 0.06, 0.68, 0.18).imshow(_principal_colors(scene.visual).numpy())
    page.text(0.16, 0.67, "one per place", ha="center", va="top", fontsize=SMALL)
    _bars(figure, 0.36, 0.715, ["#333333"])
    page.text(0.45, 0.67, "one of the sound", ha="center", va="top", fontsize=SMALL)
    _bars(figure, 0.7, 0.715, [BLUE, ORANGE, RED])
    page.text(0.79, 0.67, "one per caption", ha="center", va="top", fontsize=SMALL)
    _arrow(page, 0.648, "how alike are place and sound, place and caption?")
    _heading(page, 0.61, "3  Maps: red is alike, blue is not")
    names = ["the sound", *(f"“{name}”" for name in scene.classes), "silent things"]
    for k, (heat, name, color) in enumerate(
        zip((scene.sound_map, *scene.caption_maps), names, ("#333333", BLUE, ORANGE, RED), strict=True)
    ):
        axis = _tile(figure, 0.025 + 0.2425 * k, 0.475, 0.2225)
        _overlay(axis, scene.picture, heat)
        page.text(0.136 + 0.2425 * k, 0.465, name, color=color, ha="center", va="top", fontsize=SMALL)
    _arrow(page, 0.442, "")
    _heading(page, 0.41, "4  Losses (training only)")
    for x, title, text in (
        (0.025, "OCA", "The place of the sound fits\nits captions. The rest fits\nthe silent things."),
        (0.515, "ORI", "The maps of the captions\nkeep apart: no place belongs\nto two of them."),
    ):
        page.add_patch(_rounded(x, 0.296, 0.46, 0.084, "#f3f3f3", "#999999"))
        page.text(x + 0.02, 0.372, title, va="top", fontsize=NORMAL, weight="bold")
        page.text(x + 0.02, 0.353, text, va="top", fontsize=SMALL, linespacing=1.25)
    _arrow(page, 0.277, "after training, from frame and sound alone")
    _heading(page, 0.24, "5  One map per source, and a score")
    for k, (heat, name, color) in enumerate(zip(scene.maps, scene.classes, (BLUE, ORANGE), strict=True)):
        axis = _tile(figure, 0.025 + 0.295 * k, 0.075, 0.275)
        _overlay(axis, scene.picture, heat)
        _outline(axis, [scene.boxes[k][0]], "white", scene.picture.shape[0])
        page.text(0.163 + 0.295 * k, 0.064, f"source {k + 1}:\n{name}", color=color, ha="center", va="top",
                  fontsize=SMALL)  # fmt: skip
    page.text(0.63, 0.2, scene.score, va="top", fontsize=SMALL, linespacing=1.35)
    return figure


def draw_oca(caption: str, background: str, positive: list[Pair], negative: list[Pair], tau: float) -> Figure:
    """Draws what OCA does with the captions of one clip, one line per region that it compares them with."""
    figure = plt.figure(figsize=(WIDTH, 14.6), dpi=100)
    page = _page(figure)
    page.text(0.02, 0.992, "What OCA does with the two captions of clip A", va="top", fontsize=LARGE, weight="bold")
    top = 0.958
    for text, pairs in ((caption, positive), (background, negative)):
        words = f"“{text.removeprefix('an image of ')}”"
        page.add_patch(_rounded(0.02, top - 0.036, 0.96, 0.036, "#e8eef7", "#90a4c8"))
        page.text(0.04, top - 0.018, f"caption:  {words}", va="center", fontsize=NORMAL, weight="bold")
        top -= 0.05
        for pair in pairs:
            axis = _tile(figure, 0.03, top - 0.115, 0.215)
            axis.imshow(_dimmed(pair.picture, pair.region))
            page.text(0.28, top - 0.004, pair.name, va="top", fontsize=NORMAL, linespacing=1.2)
            name, color = pair.result
            page.add_patch(_rounded(0.28, top - 0.108, 0.33, 0.036, color, color))
            page.text(0.445, top - 0.09, name, color="white", ha="center", va="center", fontsize=NORMAL, weight="bold")
            sign = f"cosine {pair.cosine:.2f} > τ = {tau:g}" if pair.result == LEFT_OUT else f"cosine {pair.cosine:.2f}"
            page.text(0.64, top - 0.09, sign, va="center", fontsize=NORMAL)
            top -= 0.132
        top -= 0.012
    page.text(0.02, top + 0.006, _OCA_NOTE, va="top", fontsize=SMALL, linespacing=1.3)
    return figure


_OCA_NOTE = (
    "The brighter a place, the more it counts in the feature that is compared.\n"
    "Cosines are those of a trained model: 1 is alike, 0 is unrelated."
)

#: What each command of docs/guide/data.md reads and writes.
STEPS = (
    ("prepare_music.py", ("VIDEOS/*.mp4", "LISTS/music_*"), ("DIR/frames/*.jpg", "DIR/audio/*.wav", "DIR/metadata/*")),
    (
        "generate_captions.py",
        ("DIR/frames/*.jpg", "DIR/metadata/*_train*"),
        ("DIR/metadata/", "    captions.jsonl"),
    ),
    (
        "train_music.py",
        ("DIR/frames, DIR/audio", "DIR/metadata/*"),
        ("runs/RUN/checkpoints/", "runs/RUN/table.md", "runs/RUN/sheet.png"),
    ),
    (
        "evaluate.py",
        ("runs/RUN, test clips", "and boxes of DIR"),
        ("evaluation/RUN/:", "scores, maps, pictures"),
    ),
    (
        "localize.py",
        ("runs/RUN", "picture.jpg, sound.wav"),
        ("localized/picture-*:", "maps, pictures"),
    ),
    ("reproduce_tables.py", ("DIR", "(trains its own runs)"), ("tables/table*.md", "and .tex, .csv, .png")),
)


def draw_files() -> Figure:
    """Draws folder → command → result: each command with what it reads at the left and writes at the right."""
    height = 1.62 * len(STEPS) + 0.35
    figure = plt.figure(figsize=(WIDTH, height), dpi=100)
    page = figure.add_axes((0, 0, 1, 1))
    page.set(xlim=(0, WIDTH), ylim=(0, height))
    page.axis("off")
    page.text(0.2, height - 0.08, "reads", va="top", fontsize=NORMAL, color=GRAY)
    page.text(4.35, height - 0.08, "writes", va="top", fontsize=NORMAL, color=GRAY)
    for k, (command, reads, writes) in enumerate(STEPS):
        top = height - 0.42 - 1.62 * k
        page.add_patch(Rectangle((0.1, top - 0.42), WIDTH - 0.2, 0.42, facecolor="#37474f"))
        page.text(WIDTH / 2, top - 0.21, f"{k + 1}  {command}", color="white", ha="center", va="center",
                  fontsize=NORMAL, weight="bold")  # fmt: skip
        for x, lines, color in ((0.2, reads, BLUE), (4.35, writes, GREEN)):
            page.text(x, top - 0.52, "\n".join(lines), va="top", color=color, fontsize=SMALL, family="monospace",
                      linespacing=1.25)  # fmt: skip
        page.annotate("", (4.25, top - 0.8), (3.7, top - 0.8), arrowprops={"arrowstyle": "-|>", "linewidth": 2})
    return figure


def _page(figure: Figure) -> Axes:
    """Axes over the whole figure, with coordinates from 0 to 1."""
    page = figure.add_axes((0, 0, 1, 1))
    page.set(xlim=(0, 1), ylim=(0, 1))
    page.axis("off")
    return page


def _heading(page: Axes, y: float, text: str) -> None:
    page.text(0.02, y, text, va="top", fontsize=LARGE, weight="bold")


def _arrow(page: Axes, y: float, text: str) -> None:
    """An arrow downwards, with what happens beside it."""
    page.annotate("", (0.06, y - 0.03), (0.06, y), arrowprops={"arrowstyle": "-|>", "linewidth": 2.5, "color": GRAY})
    page.text(0.1, y - 0.014, text, color=GRAY, va="center", fontsize=NORMAL, style="italic")


def _tile(figure: Figure, left: float, bottom: float, width: float) -> Axes:
    """Square axes without ticks; ``width`` is a share of the figure's width."""
    axis = figure.add_axes((left, bottom, width, width * figure.get_figwidth() / figure.get_figheight()))
    axis.axis("off")
    return axis


def _rounded(x: float, y: float, width: float, height: float, face: str, edge: str) -> FancyBboxPatch:
    return FancyBboxPatch(
        (x, y), width, height, boxstyle="round,pad=0,rounding_size=0.008", facecolor=face, edgecolor=edge
    )


def _outline(axis: Axes, boxes: list[tuple[float, float, float, float]], color: str, side: int) -> None:
    for left, top, right, bottom in boxes:
        corner, size = (side * left, side * top), (side * (right - left), side * (bottom - top))
        axis.add_patch(Rectangle(corner, *size, fill=False, edgecolor=color, linewidth=3))


def _overlay(axis: Axes, picture: np.ndarray, heat: Tensor) -> None:
    smooth = F.interpolate(heat[None, None], size=picture.shape[:2], mode="bicubic")[0, 0].numpy()
    axis.imshow(picture.mean(axis=2), cmap="gray")
    axis.imshow(smooth, cmap="turbo", alpha=0.6)


def _bars(figure: Figure, left: float, middle: float, colors: list[str]) -> None:
    """One row of small cells per feature, as a sign for a list of numbers."""
    generator = torch.Generator().manual_seed(1)
    for k, color in enumerate(colors):
        axis = figure.add_axes((left, middle + 0.012 - 0.023 * k, 0.18, 0.015))
        axis.axis("off")
        axis.set(xlim=(0, 12), ylim=(0, 1))
        for x, shade in enumerate(torch.rand(12, generator=generator).tolist()):
            axis.add_patch(Rectangle((x, 0), 0.9, 1, facecolor=color, alpha=0.2 + 0.8 * shade))


def _principal_colors(visual: Tensor) -> Tensor:
    """The three principal components of the features as colors, (h, w, 3): alike features have alike colors."""
    rows = visual.flatten(1).T
    rows = rows - rows.mean(0)
    scores = rows @ torch.linalg.svd(rows, full_matrices=False).Vh[:3].T
    low, high = scores.amin(0), scores.amax(0)
    return ((scores - low) / (high - low)).reshape(*visual.shape[1:], 3)


def _dimmed(picture: np.ndarray, region: Tensor) -> np.ndarray:
    """The picture, dark and gray outside of the region."""
    weight = F.interpolate(region[None, None] / region.max(), size=picture.shape[:2], mode="bilinear")[0, 0].clamp(
        0, 1
    )[..., None]
    gray = picture.mean(axis=2, keepdims=True) * 0.35
    return picture * weight.numpy() + gray * (1 - weight.numpy())
