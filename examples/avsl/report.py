"""What a run leaves behind: a table, the figures as JSON, and a sheet of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor

from .evaluation import Figures, Prediction, TestScenes
from .files import write_json, write_text, written_aside

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle


def rich_table(rows: Mapping[str, Figures], title: str) -> Table:
    """The table for a terminal, a line a figure; bold where the first column is ahead of all others."""
    table = Table("%", title=title)
    for row in rows:
        table.add_column(row, justify="right")
    for name in _common(rows):
        first, *others = (row[name] for row in rows.values())
        ahead = first > max(others, default=first)
        table.add_row(name, f"[bold]{first:.1f}[/]" if ahead else f"{first:.1f}", *(f"{v:.1f}" for v in others))
    return table


def markdown_table(rows: Mapping[str, Figures]) -> str:
    """The same table as Markdown."""
    lines = [["%", *rows], ["---", *("---:" for _ in rows)]]
    lines += [[name, *(f"{row[name]:.1f}" for row in rows.values())] for name in _common(rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _common(rows: Mapping[str, Figures]) -> list[str]:
    """Names of the figures that every row has, in the first row's order."""
    first, *others = rows.values()
    return [name for name in first if all(name in row for row in others)]


def write_report(run: Path, rows: Mapping[str, Figures], seconds: Mapping[str, float]) -> None:
    """``metrics.json`` and ``table.md``."""
    write_text(run / "table.md", markdown_table(rows))
    write_json(run / "metrics.json", {"percent": rows, "seconds": seconds})


def draw_sheet(path: Path, tests: Sequence[tuple[TestScenes, Prediction]], per_subset: int = 5) -> None:
    """A row a scene: the frame with the sounding objects' boxes (green) and the silent ones' (red, dashed), the map of
    the whole sound, and each source's map with its box."""
    rows = sum(min(per_subset, len(test.scenes)) for test, _ in tests)
    figure, axes = plt.subplots(rows, 4, figsize=(10, 2.6 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    row = 0
    for test, prediction in tests:
        for index in range(min(per_subset, len(test.scenes))):
            _draw_scene(axes[row], test, prediction, index)
            row += 1
    with written_aside(path) as aside:
        figure.savefig(aside, dpi=80)
    plt.close(figure)


def _draw_scene(axes: Sequence[Axes], test: TestScenes, prediction: Prediction, index: int) -> None:
    clip, frame = test.scenes.clips[index], test.scenes[index].frame
    truths = test.truths[index]
    side = truths.shape[-1]
    picture = F.interpolate(frame[None].float() / 255, size=(side, side), mode="bilinear")[0].permute(1, 2, 0).numpy()
    axes[0].imshow(picture)
    axes[0].set_title(", ".join(clip.classes), fontsize=9)
    for truth in truths:
        _box(axes[0], truth, "lime", "-")
    for mask in test.silent[index].masks if test.silent else ():
        _box(axes[0], mask, "red", "--")
    _overlay(axes[1], picture, prediction.sound[index])
    axes[1].set_title("sound (S_a)", fontsize=9)
    if test.subset == "solo":
        return
    for axis, heat, found, number in zip(axes[2:], prediction.maps[index], prediction.valid[index], (1, 2), strict=False):
        if found:
            _overlay(axis, picture, heat)
        axis.set_title(f"object {number}" if found else f"object {number}: not found", fontsize=9)
        for truth in truths:
            _box(axis, truth, "lime", "-")


def _overlay(axis: Axes, picture: np.ndarray, heat: Tensor) -> None:
    side = picture.shape[0]
    smooth = F.interpolate(heat[None, None], size=(side, side), mode="bicubic")[0, 0].numpy()
    axis.imshow(picture.mean(axis=2), cmap="gray")
    axis.imshow(smooth, cmap="turbo", alpha=0.6)


def _box(axis: Axes, mask: Tensor, colour: str, style: str) -> None:
    rows, columns_ = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    if not len(rows):
        return
    left, top = int(columns_[0]), int(rows[0])
    size = int(columns_[-1]) - left, int(rows[-1]) - top
    axis.add_patch(Rectangle((left, top), *size, fill=False, edgecolor=colour, linestyle=style, linewidth=1.5))
