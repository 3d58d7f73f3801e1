"""The picture sheet: the best, median and worst clips with their maps and ground truth."""

from __future__ import annotations

import io
import logging
import textwrap
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sslosses._optional import require
from sslosses.annotations import Record
from sslosses.evaluate.benchmark import Benchmark
from sslosses.evaluate.pictures import read_frame
from sslosses.evaluate.saved_maps import SavedMaps
from sslosses.metrics import Protocol

log = logging.getLogger(__name__)

_COLORS = ("lime", "deepskyblue", "magenta", "orange")
_GROUPS = ("best", "median", "worst")
_MAP_COLORS = "Maps: blue is low, red is high, each map by its own range."


class Outline(NamedTuple):
    """The ground truth of a source in a panel: its color, its name, and its mask, (size, size)."""

    color: str
    name: str
    mask: Tensor


class Panel(NamedTuple):
    """One picture of a clip.

    title: what it shows. frame: in gray, (size, size), if there is a file. heat: the map, (size, size); None: there is
    none. outlines: the ground truth.
    """

    title: str
    frame: np.ndarray | None
    heat: Tensor | None
    outlines: list[Outline]


def check_packages() -> None:
    """Raises if a package that :func:`draw` needs is not installed."""
    for package in ("matplotlib", "PIL"):
        require(package, extra="examples", purpose="The picture sheet (leave it out with --no-sheet)")


def draw(
    path: Path,
    ranking: Sequence[tuple[str, float]],
    saved: SavedMaps,
    benchmark: Benchmark,
    protocol: Protocol,
    *,
    missing: Collection[str],
    frames: Path | None,
    per_group: int,
) -> None:
    """Draws the best, median and worst clips of a ranking, one row each.

    A clip has one picture per map or, if each source is on its own frame, one picture per frame with the sum of the
    maps. Outlines show the ground truth, in one color per source, with the names of the classes. A map that a source
    lacks is a gray picture. Nothing is drawn if no clip has a source.
    """
    if not ranking:
        log.warning("No scored clip has a source, so %s is left out", path.name)
        return
    rows = _chosen(ranking, per_group)
    records = {record.clip: record for record in benchmark.records}
    cells = [[_panels(records[clip], saved, benchmark, protocol, missing, frames) for clip, _ in row] for row in rows]
    if frames is not None and all(panel.frame is None for row in cells for panels in row for panel in panels):
        log.warning("%s has no <clip>.jpg or <clip>.png of a drawn clip, so maps are drawn without frames", frames)
    columns = max(sum(len(panels) for panels in row) for row in cells)
    backend = require("matplotlib.backends.backend_agg", extra="examples", purpose="The picture sheet")
    # Without pyplot, which would keep the figure and choose a backend for the whole process.
    figure = require("matplotlib.figure", extra="examples", purpose="The picture sheet").Figure(
        figsize=(2.2 * columns, 2.9 * len(rows) + 1.0), layout="constrained"
    )
    backend.FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for name, row, row_cells, row_axes in zip(_GROUPS, rows, cells, axes, strict=True):
        column = 0
        for (clip, auc), panels in zip(row, row_cells, strict=True):
            for number, panel in enumerate(panels):
                axis = row_axes[column]
                _draw_panel(axis, panel, protocol.size)
                lines = clip_lines(name, auc, clip, panels) if number == 0 else []
                axis.set_title("\n".join((*lines, panel.title)), fontsize=7.5, loc="left", parse_math=False)
                column += 1
    width = max(30, int(13 * figure.get_figwidth()))
    title = f"Clips by their AUC, protocol {protocol.label}"
    figure.suptitle(textwrap.fill(title, width), fontsize=9)
    _draw_key(figure, key_lines([panel for row in cells for panels in row for panel in panels]), width)
    # Python reports a full disk; the library that writes pictures to a path does not.
    encoded = io.BytesIO()
    figure.savefig(encoded, dpi=100)
    path.write_bytes(encoded.getvalue())


def clip_lines(group: str, auc: float, clip: str, panels: Sequence[Panel]) -> list[str]:
    """The lines above the first panel of a clip: its place in the ranking, its id, and sources without ground truth."""
    score = "no entry" if auc < 0 else f"AUC {100 * auc:.0f} %"
    outlines = dict.fromkeys(outline.name for panel in panels for outline in panel.outlines if not outline.mask.any())
    return [f"{group}: {score}", clip, *(f"{name}: no usable ground truth" for name in outlines)]


def key_lines(panels: Sequence[Panel]) -> list[tuple[str, str]]:
    """The rows of the key as (color, text): one per color of outlines, in the order of the sources."""
    used = {outline.color for panel in panels for outline in panel.outlines if bool(outline.mask.any())}
    return [(color, f"ground truth of source {i + 1}") for i, color in enumerate(_COLORS) if color in used]


def class_label(name: str, length: int = 26) -> str:
    """A class name in at most ``length`` characters, in quotes if it holds a comma."""
    words = name.replace("_", " ")
    words = words if len(words) <= length else f"{words[: length - 1].rstrip(' ,')}…"
    return f"“{words}”" if "," in words else words


def _draw_key(figure: Any, lines: Sequence[tuple[str, str]], width: int) -> None:
    line = require("matplotlib.lines", extra="examples", purpose="The picture sheet").Line2D
    figure.legend(
        handles=[line([], [], color=color, linewidth=2.5, label=text) for color, text in lines],
        loc="outside lower center",
        ncols=max(1, width // 32),
        fontsize=8,
        title=textwrap.fill(_MAP_COLORS, width),
        title_fontsize=8,
        frameon=False,
    )


def _chosen(ranking: Sequence[tuple[str, float]], count: int) -> list[Sequence[tuple[str, float]]]:
    """The first, middle and last clips, fewer if there are few; with fewer than three clips, groups repeat them."""
    count = min(count, max(len(ranking) // 3, 1))
    middle = (len(ranking) - count) // 2
    return [ranking[:count], ranking[middle : middle + count], ranking[len(ranking) - count :]]


def _panels(
    record: Record,
    saved: SavedMaps,
    benchmark: Benchmark,
    protocol: Protocol,
    missing: Collection[str],
    frames: Path | None,
) -> list[Panel]:
    size, sources = protocol.size, len(record.boxes)
    names = record.classes or [f"source {number + 1}" for number in range(sources)]
    masks = benchmark.truth(record, protocol)
    outlines = [
        Outline(_COLORS[number % len(_COLORS)], class_label(name), mask)
        for number, (name, mask) in enumerate(zip(names, masks, strict=False))
    ]
    maps = torch.zeros(0, 1, 1) if record.clip in missing else saved.load(record.clip)
    pictures = [_picture(frames, clip, size) for clip in record.clips]
    if benchmark.layout.axis is None:
        heats: list[Tensor | None] = [_resized(heat, size, size) for heat in maps]
        count = max(len(heats), sources, 1)
        heats += [None] * (count - len(heats))
        return [Panel(f"map {number + 1} of {count}", pictures[0], heat, outlines) for number, heat in enumerate(heats)]
    parts: Sequence[Tensor | None] = [None] * sources
    total = f", sum of {len(maps)} maps" if len(maps) > 1 else ""
    if len(maps):
        down, across = benchmark.layout.grid(sources)
        parts = benchmark.layout.split(_resized(maps.sum(0), down * size, across * size), sources).unbind()
    return [Panel(f"frame {j + 1}{total}", pictures[j], parts[j], [outlines[j]]) for j in range(sources)]


def _resized(heat: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(heat[None, None].float(), size=(height, width), mode="bicubic")[0, 0]


def _picture(folder: Path | None, clip: str, size: int) -> np.ndarray | None:
    """The frame of a clip in gray, (size, size); None if no file can be read, as no score depends on it."""
    return None if folder is None else read_frame(folder, clip, size, "L", "The picture sheet")


def _draw_panel(axis: Any, panel: Panel, size: int) -> None:
    background = np.full((size, size), 128, np.uint8) if panel.frame is None or panel.heat is None else panel.frame
    axis.imshow(background, cmap="gray", vmin=0, vmax=255)
    if panel.heat is None:
        axis.text(size / 2, size / 2, "no map", ha="center", va="center", color="white")
    else:
        axis.imshow(panel.heat.numpy(), cmap="turbo", alpha=1.0 if panel.frame is None else 0.55)
    effects = require("matplotlib.patheffects", extra="examples", purpose="The picture sheet")
    for number, (color, name, mask) in enumerate(panel.outlines):
        if bool(mask.any()):
            # Padding closes outlines along the edge of the frame. The level is below one annotator's 0.5.
            padded = F.pad(mask.float(), (1, 1, 1, 1)).numpy()
            pixels = np.arange(-1, size + 1)
            for line_color, width in (("black", 2.6), (color, 1.3)):
                axis.contour(pixels, pixels, padded, levels=[0.25], colors=line_color, linewidths=width)
            top, left = (int(mask.amax(dim).nonzero()[0]) for dim in (1, 0))
            # Lower by a line per source, so that names on outlines side by side don't cover each other.
            text = axis.text(
                left + 0.02 * size,
                top + (0.02 + 0.07 * number) * size,
                name,
                color=color,
                fontsize=7.5,
                weight="bold",
                va="top",
                clip_on=True,
                parse_math=False,
            )
            text.set_path_effects([effects.withStroke(linewidth=2.2, foreground="black")])
    axis.set_xlim(-0.5, size - 0.5)
    axis.set_ylim(size - 0.5, -0.5)
