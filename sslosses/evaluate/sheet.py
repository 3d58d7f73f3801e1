"""The picture sheet: the best, median and worst clips with their maps and ground truth."""

from __future__ import annotations

import io
import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

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
    maps. Outlines show the ground truth, in one color per source. Nothing is drawn if no clip has a source.
    """
    if not ranking:
        log.warning("No scored clip has a source, so %s is left out", path.name)
        return
    rows = _chosen(ranking, per_group)
    records = {record.clip: record for record in benchmark.records}
    cells = [[_panels(records[clip], saved, benchmark, protocol, missing, frames) for clip, _ in row] for row in rows]
    if frames is not None and all(picture is None for row in cells for panels in row for picture, _, _ in panels):
        log.warning("%s has no <clip>.jpg or <clip>.png of a drawn clip, so maps are drawn without frames", frames)
    columns = max(sum(len(panels) for panels in row) for row in cells)
    backend = require("matplotlib.backends.backend_agg", extra="examples", purpose="The picture sheet")
    # Without pyplot, which would keep the figure and choose a backend for the whole process.
    figure = require("matplotlib.figure", extra="examples", purpose="The picture sheet").Figure(
        figsize=(2.2 * columns, 2.6 * len(rows) + 0.5), layout="constrained"
    )
    backend.FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for name, row, row_cells, row_axes in zip(_GROUPS, rows, cells, axes, strict=True):
        column = 0
        for (clip, auc), panels in zip(row, row_cells, strict=True):
            score = "no entry" if auc < 0 else f"AUC {100 * auc:.0f} %"
            for number, (picture, heat, truths) in enumerate(panels):
                axis = row_axes[column]
                _draw_panel(axis, picture, heat, truths, protocol.size)
                title = f"{name}: {score}\n{clip}" if number == 0 else ""
                axis.set_title(title, fontsize=7, loc="left", parse_math=False)
                column += 1
    figure.suptitle(f"Clips by their AUC, protocol {protocol.label}", fontsize=9)
    # Python reports a full disk; the library that writes pictures to a path does not.
    encoded = io.BytesIO()
    figure.savefig(encoded, dpi=100)
    path.write_bytes(encoded.getvalue())


def _chosen(ranking: Sequence[tuple[str, float]], count: int) -> list[Sequence[tuple[str, float]]]:
    """The first, middle and last clips, fewer if there are few; with fewer than three clips, groups repeat them."""
    count = min(count, max(len(ranking) // 3, 1))
    middle = (len(ranking) - count) // 2
    return [ranking[:count], ranking[middle : middle + count], ranking[len(ranking) - count :]]


_Panel = tuple["np.ndarray | None", "Tensor | None", list["tuple[str, Tensor]"]]


def _panels(
    record: Record,
    saved: SavedMaps,
    benchmark: Benchmark,
    protocol: Protocol,
    missing: Collection[str],
    frames: Path | None,
) -> list[_Panel]:
    size = protocol.size
    truths = list(zip(_COLORS * len(record.boxes), benchmark.truth(record, protocol), strict=False))
    maps = torch.zeros(0, 1, 1) if record.clip in missing else saved.load(record.clip)
    pictures = [_picture(frames, clip, size) for clip in record.clips]
    if benchmark.layout.axis is None:
        heats: list[Tensor | None] = [_resized(heat, size, size) for heat in maps]
        return [(pictures[0], heat, truths) for heat in heats or [None]]
    sources = len(record.boxes)
    parts: Sequence[Tensor | None] = [None] * sources
    if len(maps):
        down, across = benchmark.layout.grid(sources)
        parts = benchmark.layout.split(_resized(maps.sum(0), down * size, across * size), sources).unbind()
    return [(pictures[j], parts[j], [truths[j]]) for j in range(sources)]


def _resized(heat: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(heat[None, None].float(), size=(height, width), mode="bicubic")[0, 0]


def _picture(folder: Path | None, clip: str, size: int) -> np.ndarray | None:
    """The frame of a clip in gray, (size, size); None if no file can be read, as no score depends on it."""
    return None if folder is None else read_frame(folder, clip, size, "L", "The picture sheet")


def _draw_panel(
    axis: Any, picture: np.ndarray | None, heat: Tensor | None, truths: list[tuple[str, Tensor]], size: int
) -> None:
    background = np.full((size, size), 128, np.uint8) if picture is None else picture
    axis.imshow(background, cmap="gray", vmin=0, vmax=255)
    if heat is None:
        axis.text(size / 2, size / 2, "no map", ha="center", va="center", color="white")
    else:
        axis.imshow(heat.numpy(), cmap="turbo", alpha=1.0 if picture is None else 0.55)
    for color, truth in truths:
        if bool(truth.any()):
            # Padding closes outlines along the edge of the frame. The level is below one annotator's 0.5.
            padded = F.pad(truth.float(), (1, 1, 1, 1)).numpy()
            pixels = np.arange(-1, size + 1)
            for line_color, width in (("black", 2.6), (color, 1.3)):
                axis.contour(pixels, pixels, padded, levels=[0.25], colors=line_color, linewidths=width)
    axis.set_xlim(-0.5, size - 0.5)
    axis.set_ylim(size - 0.5, -0.5)
