"""What a model marks under silence, noise, and the sound of something out of sight."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sslosses.metrics import LocalizationResult, NegativeSounds, threshold_from

from ..constants import FRAME_SIZE
from ..model.localizer import Localizer
from .held_out import HeldOutScenes
from .score import box_masks

log = logging.getLogger(__name__)

KINDS = ("silence", "noise", "offscreen")
#: Every fifth scene estimates the threshold and is not scored.
EVERY = 5
_ROWS = 50  # scored at once


class NegativeScores(NamedTuple):
    """Metrics of negative sounds, and what they are of.

    result: the metrics. threshold: U. estimated, scored: numbers of scenes that U is from, and that are scored; the
    same ones for an oracle. left_out: number of scenes for which every sound has a class that is in sight. maxima: the
    mean over the scored scenes of the largest value of a map, by sound.
    """

    result: LocalizationResult
    threshold: float
    estimated: int
    scored: int
    left_out: int
    maxima: dict[str, float]

    def __str__(self) -> str:
        """Two sentences: on the threshold and the scenes, and on how high the maps are."""
        source = f"{self.estimated:,} other scenes" if not self.result.notes else "the scored scenes (oracle)"
        text = f"Negative sounds: {self.scored:,} scenes; threshold {self.threshold:.3f}, the third quartile of the "
        text += f"maps' maxima under negative sounds in {source}"
        if self.left_out:
            text += f"; {self.left_out:,} scenes without a sound from out of sight left out"
        values = ", ".join(f"{sound} {value:.3f}" for sound, value in self.maxima.items())
        return f"{text}. Mean maximum of the maps: {values}"


class SoundMaps(NamedTuple):
    """Maps (n, h, w) of the own sounds of some scenes, and of one negative sound per kind."""

    own: Tensor
    negatives: dict[str, Tensor]


def negative_sound_scores(
    model: Localizer, held_out: HeldOutScenes, *, oracle: bool, seed: int, batch_size: int = 50, workers: int = 0
) -> NegativeScores | None:
    """Scores the maps of whole sounds, as :class:`~sslosses.metrics.NegativeSounds` does.

    Every fifth scene estimates the threshold and is not scored. With ``oracle``, all are scored and estimate it.

    Returns:
        The scores; None, with a warning, if fewer than two scenes have a sound from out of sight.
    """
    offscreen = offscreen_clips(held_out, seed)
    usable = [scene for scene, clip in enumerate(offscreen) if clip is not None]
    if len(usable) < 2:
        log.warning(
            "%s has no negative sounds: every sound has a class that is in sight, in all scenes but %d",
            held_out.subset,
            len(usable),
        )
        return None
    estimated = usable if oracle else usable[::EVERY]
    scored = usable if oracle else [scene for i, scene in enumerate(usable) if i % EVERY]
    heard = _Heard(held_out, offscreen, seed)
    maps = _sound_maps(model, heard, estimated, batch_size, workers)
    size = (FRAME_SIZE, FRAME_SIZE * held_out.num_frames)
    threshold = threshold_from(maps.negatives, size=size)
    if not oracle:
        maps = _sound_maps(model, heard, scored, batch_size, workers)
    metric = NegativeSounds(threshold, kinds=KINDS, overlaps=True, oracle=oracle)
    for first in range(0, len(scored), _ROWS):
        part = slice(first, first + _ROWS)
        truths = torch.stack([_sounding(held_out, scene) for scene in scored[part]])
        metric.update(maps.own[part], truths, {kind: sound[part] for kind, sound in maps.negatives.items()})
    maxima = {sound: float(m.amax((1, 2)).mean()) for sound, m in {"own": maps.own, **maps.negatives}.items()}
    left_out = len(offscreen) - len(usable)
    return NegativeScores(metric.result(), threshold, len(estimated), len(scored), left_out, maxima)


def offscreen_clips(held_out: HeldOutScenes, seed: int) -> list[int | None]:
    """Draws a clip per scene none of whose classes is in sight, as a sounding object or, where known, a silent one.

    A set of classes is drawn first, and then a clip that has it, so that frequent classes are not drawn more often.
    None stands for a scene without such a clip.
    """
    clips, draw = held_out.test.clips, random.Random(seed)
    groups: dict[frozenset[str], list[int]] = {}
    for index, clip in enumerate(clips):
        groups.setdefault(frozenset(clip.classes), []).append(index)
    drawn: list[int | None] = []
    for scene in held_out.test.scenes:
        sight = {name for clip in scene for name in clips[clip].classes}
        if held_out.silent:
            sight |= {name for clip in scene for name in held_out.silent[clip].classes}
        others = [group for classes, group in groups.items() if not classes & sight]
        drawn.append(draw.choice(draw.choice(others)) if others else None)
    return drawn


class _Heard(Dataset[tuple[Tensor, Tensor]]):
    """The frame of a scene, and its own sound followed by one negative sound per kind, (1 + K, samples)."""

    def __init__(self, held_out: HeldOutScenes, offscreen: Sequence[int | None], seed: int) -> None:
        self.held_out, self.offscreen, self.seed = held_out, offscreen, seed

    def __getitem__(self, scene: int) -> tuple[Tensor, Tensor]:
        scenes, clip = self.held_out.scenes, self.offscreen[scene]
        frame, own, _ = scenes[self.held_out.test.scenes[scene]]
        # One generator per scene, so that batches and worker processes make no difference.
        generator = torch.Generator().manual_seed(hash((self.seed, scene)) % 2**63)
        noise = torch.randn(own.shape, generator=generator)
        return frame, torch.stack([own, torch.zeros_like(own), noise, scenes[clip].waveform])


@torch.no_grad()
def _sound_maps(model: Localizer, heard: _Heard, scenes: Sequence[int], batch_size: int, workers: int) -> SoundMaps:
    training = model.training
    model.eval()
    parts: list[list[Tensor]] = [[] for _ in range(1 + len(KINDS))]
    for frames, sounds in DataLoader(heard, batch_size, sampler=scenes, num_workers=workers):
        for part, waveforms in zip(parts, sounds.unbind(1), strict=True):
            encoded = model.encode(frames.to(model.device), waveforms.to(model.device))
            part.append(model.sound_map(encoded).float().cpu())
    model.train(training)
    own, *others = (torch.cat(part) for part in parts)
    return SoundMaps(own, dict(zip(KINDS, others, strict=True)))


def _sounding(held_out: HeldOutScenes, scene: int) -> Tensor:
    """All sounding objects of a scene, with its frames side by side, (224, n · 224) bool."""
    masks = box_masks(held_out.test.boxes[scene])
    return masks.any(0) if held_out.num_frames == 1 else torch.cat(list(masks), dim=1)
