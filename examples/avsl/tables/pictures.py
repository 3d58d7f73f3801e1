"""Pictures for the tables: maps of several rows on the same scenes, and captions beside their frames."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import torch

from ..data.folders import Clip, ClipFolder
from ..evaluation.held_out import HeldOutScenes
from ..evaluation.predict import Prediction, predict
from ..evaluation.sheet import draw_boxes, entitle, overlay, picture_of
from ..files import atomic_buffer
from ..model.checkpoints import open_model
from ..pictures import read_picture

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

#: Frames side by side in one line of a picture; with more per scene, fewer scenes are shown.
LINE_FRAMES = 16
MAX_SCENES = 6


def compare_maps(path: Path, rows: Sequence[tuple[str, Path]], held_out: HeldOutScenes, title: str = "") -> None:
    """Draws the scenes from left to right: their frames with the boxes on top, then one line of maps per row.

    ``rows`` are names with the folders of their runs. A source that a row has not found is marked so.
    """
    count = min(MAX_SCENES, max(2, LINE_FRAMES // (held_out.num_sources * held_out.num_frames)))
    shown = held_out._replace(test=held_out.test._replace(scenes=held_out.test.scenes[:count]))
    shown = shown._replace(test=shown.test._replace(boxes=held_out.test.boxes[:count]))
    predictions = {name: predict(open_model(folder, torch.device("cpu")), shown) for name, folder in rows}
    figure = draw_maps(predictions, shown)
    entitle(figure, title)
    with atomic_buffer(path) as buffer:
        figure.savefig(buffer, format="png", dpi=75)
    plt.close(figure)


def draw_maps(predictions: Mapping[str, Prediction], shown: HeldOutScenes) -> Figure:
    """Draws the maps of each name in ``predictions`` on all scenes of ``shown``."""
    sources, frames = shown.num_sources, shown.num_frames
    columns = len(shown.test.scenes) * sources
    figure, axes = plt.subplots(
        1 + len(predictions),
        columns,
        figsize=(1.6 + 1.6 * frames * columns, 0.5 + 1.75 * (1 + len(predictions))),
        squeeze=False,
        layout="constrained",
    )
    for column, column_axes in enumerate(axes.T):
        index, source = divmod(column, sources)
        picture = picture_of(shown, index)
        column_axes[0].set_title(f"scene {index + 1}, source {source + 1}", fontsize=8)
        for axis, name in zip(column_axes, ("frames", *predictions), strict=True):
            axis.imshow(picture)
            axis.set(xticks=[], yticks=[])
            axis.set_frame_on(False)
            draw_boxes(axis, shown, index, silent=name == "frames")
            if column == 0:
                axis.set_ylabel(textwrap.fill(name, 16), fontsize=8, rotation=0, ha="right", va="center")
        for axis, prediction in zip(column_axes[1:], predictions.values(), strict=True):
            if prediction.valid[index, source]:
                overlay(axis, picture, prediction.maps[index, source])
            else:
                axis.set_title("not found", fontsize=8)
    return figure


def caption_sheet(path: Path, folder: ClipFolder, clips: Sequence[Clip], count: int = 8) -> None:
    """Draws frames of evenly picked training clips, with their classes and captions beside them."""
    chosen = [clips[i * len(clips) // min(count, len(clips))] for i in range(min(count, len(clips)))]
    lines = -(-len(chosen) // 2)
    figure, axes = plt.subplots(lines, 4, figsize=(11, 1.9 * lines), squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for i, clip in enumerate(chosen):
        image, words = axes[i // 2, 2 * (i % 2)], axes[i // 2, 2 * (i % 2) + 1]
        image.imshow(read_picture(folder.root / "frames" / f"{clip.name}.jpg"))
        image.set_title(", ".join(clip.classes), fontsize=8)
        captions = [f"+ {caption}" for caption in clip.foreground]
        captions += [] if clip.background is None else [f"– {clip.background}"]
        text = "\n".join(textwrap.fill(caption, 44) for caption in captions)
        words.text(0, 1, text, fontsize=8, va="top", transform=words.transAxes)
    with atomic_buffer(path) as buffer:
        figure.savefig(buffer, format="png", dpi=90)
    plt.close(figure)
