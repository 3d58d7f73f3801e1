"""Scores on the test scenes: the model's, the untrained model's, and those of predictions that look at nothing."""

from __future__ import annotations

import json
from typing import NamedTuple

import torch
from torch import Tensor

from sslosses.annotations import rasterize
from sslosses.metrics import SilentObjectDiscrimination, SoundLocalization, chance_levels

from .dataset import MusicFolder, MusicScenes
from .localizer import Localizer

FRAME = 224
TASKS = {"solo": "single", "duet": "mixtures"}
Figures = dict[str, float]


class SilentObjects(NamedTuple):
    """Masks of a frame's silent objects, (Q, T, T) bool, and their class names."""

    masks: Tensor
    classes: tuple[str, ...]


class HeldOutScenes(NamedTuple):
    """Test clips of one subset: truths (N, S, T, T) bool, one mask a source, and silent objects where known."""

    subset: str
    scenes: MusicScenes
    truths: Tensor
    silent: list[SilentObjects]


class Prediction(NamedTuple):
    """Maps of a model on :class:`HeldOutScenes`.

    sound: (N, h, w), S_a. maps: (N, S, h, w), one a source; valid: (N, S) bool, which of them were found.
    """

    sound: Tensor
    maps: Tensor
    valid: Tensor


def load_held_out(folder: MusicFolder, subset: str, image_size: int) -> HeldOutScenes:
    """The test clips of ``subset`` with rasterised boxes."""
    clips, boxes = folder.test_clips(subset)
    truths = torch.stack([torch.stack([rasterize([b], FRAME) for b in sources]) for sources in boxes]).bool()
    silent = []
    if folder.silent_objects.is_file():
        listed = json.loads(folder.silent_objects.read_text(encoding="utf-8"))
        for clip in clips:
            objects = listed[clip.name]
            corners = [(x, y, x + w, y + h) for x, y, w, h in (o["bbox"] for o in objects)]
            masks = torch.stack([rasterize([c], FRAME) for c in corners]).bool()
            silent.append(SilentObjects(masks, tuple(o["class"] for o in objects)))
    return HeldOutScenes(subset, MusicScenes(folder, clips, image_size), truths, silent)


@torch.no_grad()
def predict(model: Localizer, test: HeldOutScenes, batch_size: int = 50) -> Prediction:
    """Maps of all test clips.

    A single source is localised by S_a itself. The sources of a mixture, their number known, are taken apart by
    iterative object identification.
    """
    training = model.training
    model.eval()
    parts = []
    for first in range(0, len(test.scenes), batch_size):
        examples = [test.scenes[i] for i in range(first, min(first + batch_size, len(test.scenes)))]
        frames = torch.stack([e.frame for e in examples]).to(model.device)
        waveforms = torch.stack([e.waveform for e in examples]).to(model.device)
        sound = model.sound_map(frames, waveforms)
        if test.subset == "solo":
            maps, valid = sound[:, None], torch.ones(len(sound), 1, dtype=torch.bool)
        else:
            found = model.source_maps(frames, waveforms, num_sources=test.truths.shape[1])
            maps, valid = found.maps, found.valid
        parts.append(Prediction(sound.cpu(), maps.cpu(), valid.cpu()))
    model.train(training)
    return Prediction(*(torch.cat(values) for values in zip(*parts, strict=True)))


def score(test: HeldOutScenes, prediction: Prediction) -> Figures:
    """The protocol's figures and, with silent objects known, the shares of pairs told apart; all in percent."""
    metric = SoundLocalization("paper", task=TASKS[test.subset])
    metric.update(prediction.maps, test.truths, prediction.valid)
    return _percent(metric, test.subset) | _discrimination(test, prediction.sound)


def chance(test: HeldOutScenes, resolution: tuple[int, int], seed: int = 0) -> dict[str, Figures]:
    """The same figures for a centred Gaussian, the whole frame and random maps."""
    levels = chance_levels(test.truths, "paper", task=TASKS[test.subset], resolution=resolution, seed=seed)
    count, (height, width) = len(test.truths), resolution
    squared = (torch.arange(FRAME) + 0.5).div(FRAME).sub(0.5).square()
    gaussian = torch.exp(-(squared[:, None] + squared) / (2 * 0.25**2))
    maps = {
        "centred Gaussian": gaussian.expand(count, -1, -1),
        "whole frame": torch.ones(count, height, width),
        "random maps": torch.rand(count, height, width, generator=torch.Generator().manual_seed(seed)),
    }
    names = SoundLocalization("paper", task=TASKS[test.subset]).figures
    return {
        row: {f"{test.subset} {n}": 100 * float(levels[row][n]) for n in names} | _discrimination(test, maps[row])
        for row in levels
    }


def _percent(metric: SoundLocalization, subset: str) -> Figures:
    result = metric.compute()
    figures = {f"{subset} {name}": 100 * float(result[name]) for name in metric.figures}
    return figures | {f"{subset} without map": float(result["samples_without_map"])}


def _discrimination(test: HeldOutScenes, sound: Tensor) -> Figures:
    if not test.silent:
        return {}
    metric = SilentObjectDiscrimination()
    for clip, truths, silent, heat in zip(test.scenes.clips, test.truths, test.silent, sound, strict=True):
        count = len(truths)
        same = torch.tensor([[name == own for name in silent.classes] for own in clip.classes])
        metric.update(heat.expand(count, -1, -1), truths, silent.masks.expand(count, -1, -1, -1), same)
    result = metric.compute()
    return {
        f"{test.subset} > silent": 100 * float(result["share"]),
        f"{test.subset} > twin": 100 * float(result["same_class_share"]),
    }
