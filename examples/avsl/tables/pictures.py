"""Pictures for the tables: maps of several rows on the same scenes, and captions beside their frames."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch

from ..data.folders import Clip, ClipFolder
from ..evaluation.held_out import HeldOutScenes
from ..evaluation.legend import (
    add_key,
    assigned_maps,
    box_remarks,
    class_label,
    key_rows,
    paint_not_found,
    source_labels,
)
from ..evaluation.predict import Prediction, predict
from ..evaluation.sheet import DPI, TILE, draw_boxes, entitle, overlay, picture_of
from ..files import atomic_buffer
from ..model.checkpoints import open_model
from ..pictures import read_picture

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

#: Frames side by side in one line of a picture; with more per scene, fewer scenes are shown.
LINE_FRAMES = 16
MAX_SCENES = 6
MAPS_TITLE = "Maps of every row on the same test scenes"
CAPTIONS_TITLE = "Training frames with their captions. +: a sounding object, –: what is silent"


def compare_maps(path: Path, rows: Sequence[tuple[str, Path]], held_out: HeldOutScenes, title: str = "") -> None:
    """Draws the scenes from left to right: their frames with the boxes on top, then one line of maps per row.

    ``rows`` are names with the folders of their runs. A source that a row has not found is marked so. ``title`` is
    what to know before reading, such as that it was a smoke test.
    """
    count = min(MAX_SCENES, max(2, LINE_FRAMES // (held_out.num_sources * held_out.num_frames)))
    shown = held_out._replace(test=held_out.test._replace(scenes=held_out.test.scenes[:count]))
    shown = shown._replace(test=shown.test._replace(boxes=held_out.test.boxes[:count]))
    predictions = {name: predict(open_model(folder, torch.device("cpu")), shown) for name, folder in rows}
    figure = draw_maps(predictions, shown)
    entitle(figure, "\n".join(filter(None, (title, MAPS_TITLE))))
    with atomic_buffer(path) as buffer:
        figure.savefig(buffer, format="png", dpi=DPI)
    plt.close(figure)


def draw_maps(predictions: Mapping[str, Prediction], shown: HeldOutScenes) -> Figure:
    """Draws the maps of each name in ``predictions`` on all scenes of ``shown``, one column per source, with a key."""
    sources, frames = shown.num_sources, shown.num_frames
    columns = len(shown.test.scenes) * sources
    figure, axes = plt.subplots(
        1 + len(predictions),
        columns,
        figsize=(1.6 + TILE * frames * columns, 1.4 + (TILE + 0.2) * (1 + len(predictions))),
        squeeze=False,
        layout="constrained",
    )
    missing = False
    for index, scene_axes in enumerate(np.split(axes, len(shown.test.scenes), axis=1)):
        picture, labels = picture_of(shown, index), source_labels(shown, index)
        assigned = {name: assigned_maps(shown, prediction, index) for name, prediction in predictions.items()}
        for source, column_axes in enumerate(scene_axes.T):
            heading = f"scene {index + 1}, source {source + 1}:\n{labels[source]}"
            column_axes[0].set_title("\n".join((heading, *box_remarks(shown, index))), fontsize=9, parse_math=False)
            for axis in column_axes:
                axis.imshow(picture)
                axis.set(xticks=[], yticks=[])
                axis.set_frame_on(False)
            draw_boxes(column_axes[0], shown, index, silent=True, names=True, only=source)
            for axis, (name, prediction) in zip(column_axes[1:], predictions.items(), strict=True):
                number = assigned[name][source]
                if number >= 0:
                    overlay(axis, picture, prediction.maps[index, number])
                    draw_boxes(axis, shown, index, silent=False, only=source)
                else:
                    axis.set_title(f"source {source + 1}: not found", fontsize=8)
                    paint_not_found(axis, picture.shape, labels[source])
                    missing = True
    for axis, name in zip(axes[:, 0], ("frames with the ground truth", *predictions), strict=True):
        axis.set_ylabel(textwrap.fill(name, 16), fontsize=9, rotation=0, ha="right", va="center")
    note = "A map stands in the column of the source that it covers best." if sources > 1 else ""
    add_key(figure, key_rows(sources, silent=bool(shown.silent), missing=missing), note)
    return figure


def caption_sheet(path: Path, folder: ClipFolder, clips: Sequence[Clip], count: int = 8) -> None:
    """Draws frames of evenly picked training clips, with their classes and captions beside them."""
    chosen = [clips[i * len(clips) // min(count, len(clips))] for i in range(min(count, len(clips)))]
    lines = -(-len(chosen) // 2)
    figure, axes = plt.subplots(lines, 4, figsize=(11, 2.3 * lines + 0.5), squeeze=False, layout="constrained")
    figure.suptitle(CAPTIONS_TITLE, fontsize=10)
    for axis in axes.flat:
        axis.axis("off")
    for i, clip in enumerate(chosen):
        image, words = axes[i // 2, 2 * (i % 2)], axes[i // 2, 2 * (i % 2) + 1]
        image.imshow(read_picture(folder.root / "frames" / f"{clip.name}.jpg"))
        image.set_title(" + ".join(map(class_label, clip.classes)), fontsize=9, parse_math=False)
        captions = [f"+ {caption}" for caption in clip.foreground]
        captions += [] if clip.background is None else [f"– {clip.background}"]
        text = "\n".join(textwrap.fill(caption, 44) for caption in captions)
        words.text(0, 1, text, fontsize=9, va="top", transform=words.transAxes, parse_math=False)
    with atomic_buffer(path) as buffer:
        figure.savefig(buffer, format="png", dpi=DPI)
    plt.close(figure)
