"""Scores on the test scenes: the model's, the untrained model's, and those of predictions that look at nothing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from sslosses.annotations import rasterize
from sslosses.metrics import SilentObjectDiscrimination, SoundLocalization, chance_levels

from ..constants import FRAME_SIZE
from ..data.folders import Box, ClipFolder, ListedScenes
from ..data.loading import SceneBatch, TrainingScenes
from ..data.scenes import Example, Scenes
from ..files import read_json
from ..model.localizer import Localizer

Metrics = dict[str, float]


class SilentObjects(NamedTuple):
    """Boxes (fractional corners) of a frame's silent objects, and their class names."""

    boxes: tuple[Box, ...]
    classes: tuple[str, ...]


class HeldOutScenes(NamedTuple):
    """The test scenes of one subset with their boxes, and the silent objects of each clip where they are known."""

    subset: str
    scenes: Scenes
    test: ListedScenes
    silent: list[SilentObjects]

    @property
    def task(self) -> str:
        """As the protocols have it: one source, or a mixture."""
        return "single" if len(self.test.boxes[0]) == 1 else "mixtures"

    @property
    def layout(self) -> str:
        """Where the sources of a mixture are."""
        return "one" if len(self.test.scenes[0]) == 1 else "side-by-side"

    @property
    def sources(self) -> int:
        """Sources of a scene."""
        return len(self.test.boxes[0])


class Prediction(NamedTuple):
    """Maps of a model on :class:`HeldOutScenes`.

    sound: (N, h, w), S_a. maps: (N, S, h, w), one a source; valid: (N, S) bool, which of them were found.
    """

    sound: Tensor
    maps: Tensor
    valid: Tensor


def load_held_out(folder: ClipFolder, subset: str, image_size: int) -> HeldOutScenes:
    """The test scenes of ``subset``."""
    test = folder.test_scenes(subset)
    silent: list[SilentObjects] = []
    if folder.silent_objects.is_file():
        listed = read_json(folder.silent_objects)
        silent = [_silent_objects(listed, clip.name, folder.silent_objects) for clip in test.clips]
    return HeldOutScenes(subset, Scenes(folder.root, [c.name for c in test.clips], image_size), test, silent)


def _silent_objects(listed: Any, clip: str, path: Path) -> SilentObjects:
    try:
        objects = listed[clip]
        boxes = tuple((float(x), float(y), float(x + w), float(y + h)) for x, y, w, h in (o["bbox"] for o in objects))
        classes = tuple(str(o["class"]) for o in objects)
        if all(math.isfinite(value) for box in boxes for value in box):
            return SilentObjects(boxes, classes)
    except (KeyError, IndexError, TypeError, ValueError, OverflowError):
        pass
    raise ValueError(
        f'Expected {path} to hold {{"class", "bbox": [x, y, width, height]}} a silent object of clip {clip!r}, '
        "but it does not"
    )


def _stack(examples: list[Example]) -> tuple[Tensor, Tensor]:
    return torch.stack([e.frame for e in examples]), torch.stack([e.waveform for e in examples])


@torch.no_grad()
def predict(
    model: Localizer, held_out: HeldOutScenes, batch_size: int = 50, workers: int = 0, *, known: bool = True
) -> Prediction:
    """Maps of all test scenes.

    A single source is localized by S_a itself. The sources of a mixture are taken apart by iterative object
    identification, their number ``known`` or found; maps then has as many slots as the most that were found, and at
    least as many as there are.
    """
    training = model.training
    model.eval()
    parts = []
    loader = DataLoader(
        held_out.scenes,
        batch_size=batch_size,
        sampler=held_out.test.scenes,
        num_workers=workers,
        collate_fn=_stack,
    )
    for frames, waveforms in loader:
        visual, audio = model.encode(frames.to(model.device), waveforms.to(model.device))
        sound = model.sound_map(visual, audio)
        if held_out.task == "single":
            maps, valid = sound[:, None], torch.ones(len(sound), 1, dtype=torch.bool)
        else:
            found = model.source_maps(visual, audio, num_sources=held_out.sources if known else None)
            maps, valid = found.maps, found.valid
        parts.append(Prediction(sound.cpu(), maps.cpu(), valid.cpu()))
    model.train(training)
    most = max(held_out.sources, *(part.valid.shape[1] for part in parts))
    return Prediction(*(torch.cat(values) for values in zip(*(_padded(part, most) for part in parts), strict=True)))


def _padded(part: Prediction, slots: int) -> Prediction:
    missing = slots - part.valid.shape[1]
    return Prediction(part.sound, F.pad(part.maps, (0, 0, 0, 0, 0, missing)), F.pad(part.valid, (0, missing)))


@torch.no_grad()
def collapse(model: Localizer, training: TrainingScenes, batches: int = 8) -> Metrics:
    """How far the reference maps of training scenes are from constant ones, which ORI alone would make of them."""
    was_training = model.training
    model.eval()
    parts = [
        model.reference_deviation(SceneBatch(*(value.to(model.device) for value in batch)))
        for batch in itertools.islice(training.train_dataloader(), batches)
    ]
    model.train(was_training)
    return {"deviation of reference maps": 100 * float(torch.cat(parts).mean())}


def score(held_out: HeldOutScenes, prediction: Prediction) -> Metrics:
    """The protocol's metrics and, with silent objects known, the shares of pairs told apart; all in percent."""
    metric = SoundLocalization("paper", task=held_out.task, layout=held_out.layout)
    metric.update(prediction.maps, held_out.test.boxes, prediction.valid)
    return _percent(metric, held_out.subset) | _discrimination(held_out, prediction.sound)


def resolution(held_out: HeldOutScenes, prediction: Prediction) -> tuple[int, int]:
    """Height and width of a frame's map."""
    height, width = prediction.sound.shape[1:]
    return height, width // len(held_out.test.scenes[0])


def chance(held_out: HeldOutScenes, resolution: tuple[int, int], seed: int = 0) -> dict[str, Metrics]:
    """The same metrics for a centered Gaussian, the whole frame and random maps of ``resolution`` a frame."""
    options = {"task": held_out.task, "layout": held_out.layout}
    levels = chance_levels(held_out.test.boxes, "paper", resolution=resolution, seed=seed, **options)
    count, across = len(held_out.test.scenes), len(held_out.test.scenes[0])
    squared = (torch.arange(FRAME_SIZE) + 0.5).div(FRAME_SIZE).sub(0.5).square()
    gaussian = torch.exp(-(squared[:, None] + squared) / (2 * 0.25**2))
    height, width = resolution
    maps = {
        "centered Gaussian": gaussian.repeat(1, across).expand(count, -1, -1),
        "whole frame": torch.ones(count, height, width * across),
        "random maps": torch.rand(count, height, width * across, generator=torch.Generator().manual_seed(seed)),
    }
    names = SoundLocalization("paper", **options).metrics
    return {
        row: {f"{held_out.subset} {n}": 100 * float(levels[row][n]) for n in names}
        | _discrimination(held_out, maps[row])
        for row in levels
    }


def _percent(metric: SoundLocalization, subset: str) -> Metrics:
    result = metric.compute()
    metrics = {f"{subset} {name}": 100 * float(result[name]) for name in metric.metrics}
    return metrics | {f"{subset} without map": float(result["samples_without_map"])}


def _discrimination(held_out: HeldOutScenes, sound: Tensor) -> Metrics:
    """Each source against the silent objects of its own frame."""
    if not held_out.silent:
        return {}
    metric = SilentObjectDiscrimination()
    clips, scenes, boxes = held_out.test
    for scene, sources, heat in zip(scenes, boxes, sound, strict=True):
        for clip, frame in zip(scene, heat.chunk(len(scene), dim=1), strict=True):
            # with several frames, source j is on frame j
            own = sources if len(scene) == 1 else [sources[scene.index(clip)]]
            silent, count = held_out.silent[clip], len(own)
            same = torch.tensor([[name == c for name in silent.classes] for c in clips[clip].classes])
            metric.update(
                frame.expand(count, -1, -1),
                masks(own),
                masks([[b] for b in silent.boxes])[None].expand(count, -1, -1, -1),
                same,
            )
    result = metric.compute()
    return {
        f"{held_out.subset} > silent": 100 * float(result["share"]),
        f"{held_out.subset} > twin": 100 * float(result["same_class_share"]),
    }


def masks(boxes: Sequence[Sequence[Box]]) -> Tensor:
    """The boxes of each source as masks, (S, 224, 224) bool."""
    return torch.stack([rasterize(b, FRAME_SIZE) for b in boxes]).bool()
