"""Draws a heatmap over a picture: blue and transparent for low values, red and opaque for high ones.

A sheet puts all maps of a picture side by side, with titles and the key of the colors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from torch import Tensor

from ..files import atomic_buffer

_TILE = 2.6  # inches; a panel is at least 200 pixels wide at 100 dots per inch
_COLUMNS = 4
_GRAY = 0.6

MAX_OPACITY = 0.7
_LEVELS = np.arange(256)
_COLORS = np.round(255 * matplotlib.colormaps["turbo"](_LEVELS)[:, :3]).astype(np.uint16)


def scaled(heat: Tensor, low: float, high: float) -> Tensor:
    """Scales [low, high] to [0, 1]; gives zeros if both are equal."""
    return ((heat - low) / (high - low)).clamp(0, 1) if high > low else torch.zeros_like(heat)


def paint(picture: np.ndarray, heat: Tensor, opacity: float = MAX_OPACITY, threshold: float = 0.0) -> np.ndarray:
    """Paints a map (h, w) of values in [0, 1] over a picture (H, W, 3) uint8.

    ``opacity`` is that of the value 1. Values below ``threshold`` stay transparent.
    """
    fine = F.interpolate(heat[None, None].float(), size=picture.shape[:2], mode="bicubic")[0, 0]
    level = fine.clamp(0, 1).mul(255).round().byte().numpy()
    weight = _weights(opacity, threshold)[level][..., None]
    return ((picture * (256 - weight) + _COLORS[level] * weight) >> 8).astype(np.uint8)


@lru_cache
def _weights(opacity: float, threshold: float) -> np.ndarray:
    """The weight of the color of each level, in 256ths."""
    weights = np.round(256 * opacity * _LEVELS / 255)
    return np.where(round(255 * threshold) <= _LEVELS, weights, 0).astype(np.uint16)


def panel_titles(peaks: Sequence[float], wanted: int | None) -> list[str]:
    """The titles of a sheet's panels: the picture, the map of the sound, and each source.

    Args:
        peaks: the largest similarity of each source that was found.
        wanted: number of sources that were asked for; those that lack are named.
    """
    sources = [f"source {number}: similarity {peak:.2f}" for number, peak in enumerate(peaks, 1)]
    lacking = [f"source {number}: not found" for number in range(len(peaks) + 1, (wanted or 0) + 1)]
    return ["the picture", "map of the whole sound", *sources, *lacking]


def draw_sheet(
    picture: np.ndarray, heats: Sequence[Tensor], peaks: Sequence[float], wanted: int | None, title: str
) -> Figure:
    """Draws a picture (H, W, 3) uint8, the map of its sound and those of its sources side by side, with a key.

    ``heats`` are the map of the sound and one per source that was found, with its largest similarity in ``peaks``. Each
    is scaled to its own range. A source of the ``wanted`` number that was not found has a gray panel.
    """
    titles = panel_titles(peaks, wanted)
    columns = min(_COLUMNS, len(titles))
    rows = math.ceil(len(titles) / columns)
    height = min(max(_TILE * picture.shape[0] / picture.shape[1], 1.0), 3 * _TILE)
    # Without pyplot, which would keep the figure.
    figure = Figure(figsize=(_TILE * columns, (height + 0.4) * rows + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    painted = [paint(picture, scaled(heat, float(heat.min()), float(heat.max()))) for heat in heats]
    panels = [picture, *painted]
    for axis, text, panel in zip(axes.flat, titles, panels + [None] * (len(titles) - len(panels)), strict=False):
        if panel is None:
            axis.imshow(np.full(picture.shape[:2], _GRAY), cmap="gray", vmin=0, vmax=1)
        else:
            axis.imshow(panel)
        axis.set_title(text, fontsize=9)
    figure.suptitle(title, fontsize=10, parse_math=False)
    bar = figure.colorbar(
        ScalarMappable(cmap="turbo"), ax=axes, location="bottom", fraction=0.06, aspect=30, shrink=0.7, ticks=[0, 1]
    )
    bar.ax.set_xticklabels(["lowest value of a map", "highest value"], fontsize=9)
    return figure


def save_figure(path: Path, figure: Figure) -> None:
    """Writes a figure as PNG, whole or not at all."""
    with atomic_buffer(path) as buffer:
        figure.savefig(buffer, format="png", dpi=100)
