"""Scores of a model's maps and of input-independent baselines on held-out scenes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sslosses.annotations import rasterize, video_of
from sslosses.metrics import (
    LocalizationResult,
    Protocol,
    SilentObjectDiscrimination,
    SoundLocalization,
    center_surround_saliency,
    chance_levels,
    protocols,
)
from sslosses.metrics.localization import QuietLocalization

from ..constants import FRAME_SIZE
from ..data.folders import Box
from ..data.loading import SceneBatch, TrainingScenes
from ..methods.object_aware import ObjectAware
from ..model.localizer import Localizer
from .held_out import HeldOutScenes
from .predict import Prediction, frame_resolution
from .report import SHARE_OF_LIST, WITHOUT_MAP, Metrics

#: Percent by the name of the metric, such as "duet CAP": one row of a run's table.
RUN_PROTOCOL = "paper"
SALIENCY = "saliency (frame only)"


def run_metrics(held_out: HeldOutScenes, prediction: Prediction) -> Metrics:
    """Computes the metrics that a run reports.

    These are the metrics of the protocol "paper" with the number of scenes without a map, which the metrics leave out;
    where silent objects are known, the shares of pairs in which the sounding object has the higher map; and where only
    part of the public list could be prepared, the share of it.
    """
    metric = SoundLocalization(RUN_PROTOCOL, task=held_out.task, layout=held_out.layout)
    metric.update(prediction.maps, held_out.truths(metric.protocol.size), prediction.valid)
    values, subset = metric.compute(), held_out.subset
    metrics = {f"{subset} {name}": 100 * float(values[name]) for name in metric.metrics}
    metrics[f"{subset} {WITHOUT_MAP}"] = float(values["samples_without_map"])
    count, listed = len(held_out.test.scenes), held_out.listed
    if listed is not None and count < listed:
        metrics[f"{subset} {SHARE_OF_LIST}"] = 100 * count / listed
    return metrics | _discrimination(held_out, prediction.sound)


def chance_metrics(held_out: HeldOutScenes, resolution: tuple[int, int], seed: int = 0) -> dict[str, Metrics]:
    """Computes the same metrics for each baseline: a centered Gaussian, the whole frame, and random maps.

    Args:
        held_out: the test scenes.
        resolution: height and width of the random maps of one frame.
        seed: seed of the random maps.
    """
    options = {"task": held_out.task, "layout": held_out.layout}
    truths = held_out.truths(protocols.get(RUN_PROTOCOL).size)
    levels = chance_levels(truths, RUN_PROTOCOL, resolution=resolution, seed=seed, **options)
    names = SoundLocalization(RUN_PROTOCOL, **options).metrics
    sound = _baseline_maps(held_out, resolution, seed)
    return {
        baseline: {f"{held_out.subset} {name}": 100 * float(levels[baseline][name]) for name in names}
        | _discrimination(held_out, sound[baseline])
        for baseline in levels
    }


def _baseline_maps(held_out: HeldOutScenes, resolution: tuple[int, int], seed: int) -> dict[str, Tensor]:
    count, frames = len(held_out.test.scenes), held_out.num_frames
    height, width = resolution
    squared = (torch.arange(FRAME_SIZE) + 0.5).div(FRAME_SIZE).sub(0.5).square()
    gaussian = torch.exp(-(squared[:, None] + squared) / (2 * 0.25**2))
    generator = torch.Generator().manual_seed(seed)
    return {
        "centered Gaussian": gaussian.repeat(1, frames).expand(count, -1, -1),
        "whole frame": torch.ones(count, height, width * frames),
        "random maps": torch.rand(count, height, width * frames, generator=generator),
    }


def _discrimination(held_out: HeldOutScenes, sound: Tensor) -> Metrics:
    """Compares each source with the silent objects of its own frame."""
    if not held_out.silent:
        return {}
    metric = SilentObjectDiscrimination()
    clips, scenes, boxes = held_out.test
    for scene, source_boxes, scene_map in zip(scenes, boxes, sound, strict=True):
        for clip, frame_map in zip(scene, scene_map.chunk(len(scene), dim=1), strict=True):
            # With several frames, source j is in frame j.
            in_frame = source_boxes if len(scene) == 1 else [source_boxes[scene.index(clip)]]
            silent, count = held_out.silent[clip], len(in_frame)
            same_class = torch.tensor([[name == c for name in silent.classes] for c in clips[clip].classes])
            metric.update(
                frame_map.expand(count, -1, -1),
                box_masks(in_frame),
                box_masks([[box] for box in silent.boxes])[None].expand(count, -1, -1, -1),
                same_class,
            )
    values = metric.compute()
    return {
        f"{held_out.subset} > silent": 100 * float(values["share"]),
        f"{held_out.subset} > twin": 100 * float(values["same_class_share"]),
    }


def box_masks(boxes: Sequence[Sequence[Box]]) -> Tensor:
    """Rasterizes the boxes of each source, (S, 224, 224) bool."""
    return torch.stack([rasterize(b, FRAME_SIZE) for b in boxes]).bool()


@torch.no_grad()
def mean_reference_deviation(model: Localizer, training: TrainingScenes, batches: int = 8) -> Metrics:
    """Computes the spatial standard deviation of the reference maps of training scenes, in percent.

    It is 0 for constant maps, to which ORI alone leads. Methods without captions have no reference maps and no such
    metric.
    """
    method = model.method
    if not isinstance(method, ObjectAware):
        return {}
    was_training = model.training
    model.eval()
    parts = [
        method.reference_deviation(SceneBatch(*(value.to(model.device) for value in batch)), model.encoders)
        for batch in itertools.islice(training.train_dataloader(), batches)
    ]
    model.train(was_training)
    return {"deviation of reference maps": 100 * float(torch.cat(parts).mean())}


def saliency_prediction(held_out: HeldOutScenes) -> Prediction:
    """Computes the saliency of each frame as the map of the sound and of every source: it does not hear the sound."""
    maps = []
    for scene in held_out.test.scenes:
        frames = held_out.scenes.pixels(scene).chunk(len(scene), dim=2)
        maps.append(torch.cat(list(center_surround_saliency(torch.stack(frames) / 255)), dim=1))
    sound, sources = torch.stack(maps), held_out.num_sources
    valid = torch.ones(len(sound), sources, dtype=torch.bool)
    return Prediction(sound, sound[:, None].expand(-1, sources, -1, -1), valid)


def protocol_result(
    held_out: HeldOutScenes,
    prediction: Prediction,
    protocol: Protocol,
    *,
    chance: bool = True,
    seed: int = 0,
    others: Mapping[str, Prediction] | None = None,
    data_set: str | None = None,
) -> LocalizationResult:
    """Scores a prediction by ``protocol``, also by class and size, beside the chance levels at the maps' resolution.

    ``others`` are further predictions to show beside it, by name. With ``data_set``, the result has intervals over the
    videos that the ids of clips name.

    A protocol that inverts maps gets them negated, since ours are high where the sound comes from.
    """
    truths, options = held_out.truths(protocol.size), {"task": held_out.task, "layout": held_out.layout}
    clips, scenes = held_out.test.clips, held_out.test.scenes
    names = sorted({name for clip in clips for name in clip.classes})
    classes = [[names.index(name) for clip in scene for name in clips[clip].classes] for scene in scenes]

    ids = ["+".join(clips[clip].name for clip in scene) for scene in scenes]
    videos = None if data_set is None else [video_of(name, data_set) for name in ids]

    def scored(shown: Prediction) -> SoundLocalization:
        metric = QuietLocalization(protocol, **options)  # its notes are printed with the table
        maps = -shown.maps if protocol.inverts_maps else shown.maps
        metric.update(maps, truths, shown.valid, source_classes=classes, videos=videos)
        return metric

    metric, levels = scored(prediction), {}
    if chance:
        resolution = frame_resolution(held_out, prediction)
        levels = chance_levels(truths, protocol, resolution=resolution, seed=seed, **options)
    levels |= {name: scored(other).compute() for name, other in (others or {}).items()}
    return metric.result(chance=levels, class_names=names)


def source_counts(held_out: HeldOutScenes, prediction: Prediction) -> dict[str, Any]:
    """Computes how often the number of sources was right ("accuracy"), and how often each number was found."""
    counts = prediction.valid.sum(1)
    numbers = {str(n): int((counts == n).sum()) for n in counts.unique().tolist()}
    return {"accuracy": float((counts == held_out.num_sources).double().mean()), "found": numbers}
