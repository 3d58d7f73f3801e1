"""Pictures for the tables: maps of several rows on the same scenes, and captions beside their frames."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import torch
from PIL import Image

from ..data.folders import Clip, ClipFolder
from ..evaluation.held_out import HeldOutScenes
from ..evaluation.predict import predict
from ..evaluation.report import draw_boxes, overlay, picture_of
from ..files import atomic_write
from ..model.checkpoints import open_model

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def compare_maps(path: Path, rows: Sequence[tuple[str, Path]], held_out: HeldOutScenes, count: int = 6) -> None:
    """Draws one row per scene: the frames with the boxes, then the map of each source by each of ``rows``.

    ``rows`` are names with the folders of their runs.
    """
    shown = held_out._replace(test=held_out.test._replace(scenes=held_out.test.scenes[:count]))
    shown = shown._replace(test=shown.test._replace(boxes=held_out.test.boxes[:count]))
    predictions = [predict(open_model(folder, torch.device("cpu")), shown) for _, folder in rows]
    sources, frames = held_out.num_sources, held_out.num_frames
    columns = 1 + len(rows) * sources
    figure, axes = plt.subplots(
        len(shown.test.scenes),
        columns,
        figsize=(1.6 * frames * columns, 1.75 * len(shown.test.scenes)),
        squeeze=False,
        layout="constrained",
    )
    for index, scene_axes in enumerate(axes):
        picture = picture_of(shown, index)
        for axis in scene_axes:
            axis.axis("off")
            axis.imshow(picture)
            draw_boxes(axis, shown, index, silent=axis is scene_axes[0])
        for column, axis in enumerate(scene_axes[1:]):
            prediction, source = predictions[column // sources], column % sources
            if prediction.valid[index, source]:
                overlay(axis, picture, prediction.maps[index, source])
    for row, (name, _) in enumerate(rows):
        axes[0, 1 + row * sources].set_title(name, fontsize=8, loc="left")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=75)
    plt.close(figure)


def caption_sheet(path: Path, folder: ClipFolder, clips: Sequence[Clip], count: int = 8) -> None:
    """Draws frames of evenly picked training clips, with their classes and captions beside them."""
    chosen = [clips[i * len(clips) // min(count, len(clips))] for i in range(min(count, len(clips)))]
    lines = -(-len(chosen) // 2)
    figure, axes = plt.subplots(lines, 4, figsize=(11, 1.9 * lines), squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for i, clip in enumerate(chosen):
        image, words = axes[i // 2, 2 * (i % 2)], axes[i // 2, 2 * (i % 2) + 1]
        with Image.open(folder.root / "frames" / f"{clip.name}.jpg") as frame:
            image.imshow(frame.convert("RGB"))
        image.set_title(", ".join(clip.classes), fontsize=8)
        captions = [f"+ {caption}" for caption in clip.foreground]
        captions += [] if clip.background is None else [f"– {clip.background}"]
        text = "\n".join(textwrap.fill(caption, 44) for caption in captions)
        words.text(0, 1, text, fontsize=8, va="top", transform=words.transAxes)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=90)
    plt.close(figure)
