"""A model's maps on a test set: metrics by any protocol, and files that other tools score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sslosses.metrics import LocalizationResult, Protocol, SoundLocalization, chance_levels

from ..files import atomic_write
from .predict import HeldOutScenes, Prediction, resolution


def score(
    held_out: HeldOutScenes, prediction: Prediction, protocol: Protocol, *, chance: bool = True, seed: int = 0
) -> LocalizationResult:
    """Metrics by ``protocol``, by class and size too, beside the chance levels at the maps' resolution.

    A protocol that inverts maps gets them negated, since ours are high where it sounds.
    """
    boxes, options = held_out.test.boxes, {"task": held_out.task, "layout": held_out.layout}
    clips, scenes = held_out.test.clips, held_out.test.scenes
    names = sorted({name for clip in clips for name in clip.classes})
    classes = [[names.index(name) for clip in scene for name in clips[clip].classes] for scene in scenes]
    maps = -prediction.maps if protocol.normalization == "inverted min-max" else prediction.maps
    metric = SoundLocalization(protocol, **options)
    metric.update(maps, boxes, prediction.valid, source_classes=classes)
    levels = None
    if chance:
        levels = chance_levels(boxes, protocol, resolution=resolution(held_out, prediction), seed=seed, **options)
    return metric.result(chance=levels, class_names=names)


def counting(held_out: HeldOutScenes, prediction: Prediction) -> dict[str, Any]:
    """How often the right number of sources was found, and how often each number."""
    found = prediction.valid.sum(1)
    numbers = {str(n): int((found == n).sum()) for n in found.unique().tolist()}
    return {"accuracy": float((found == held_out.sources).double().mean()), "found": numbers}


def save_maps(path: Path, held_out: HeldOutScenes, prediction: Prediction) -> None:
    """One NPZ, as ``python -m sslosses.evaluate --maps`` reads it: an array (M, h, w) a scene, of the maps there are.

    A scene's key is its clip's id, or those of its clips joined by "+"; their frames are side by side.
    """
    keys = ["+".join(held_out.test.clips[clip].name for clip in scene) for scene in held_out.test.scenes]
    arrays = {
        key: maps[valid].numpy() for key, maps, valid in zip(keys, prediction.maps, prediction.valid, strict=True)
    }
    with atomic_write(path) as temporary:
        np.savez_compressed(temporary, **arrays)
