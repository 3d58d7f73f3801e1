"""CoarseToFine: frames and sounds correspond as wholes, then class by class under their activation maps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslosses import (
    build_dictionary,
    category_alignment_loss,
    class_activation_pool,
    pair_correspondence_loss,
    similarity_map,
)
from sslosses.distributed import gather_rows

from ..config import ONE_MAP
from ..data.loading import Clips, SceneBatch
from ..model.encoders import Encoded, Encoders
from ..model.method import Method, ScoredMaps, Setting


@dataclass(frozen=True)
class Options:
    """``labels``: "clusters" of the frames, as many as there are classes, or "classes", which is supervision.

    ``first_stage``: share of the epochs without alignment. ``threshold``: probability above which a class is present.
    """

    labels: str = "clusters"
    first_stage: float = 0.5
    alignment_weight: float = 1.0
    threshold: float = 0.3

    def __post_init__(self) -> None:
        if self.labels not in ("clusters", "classes"):
            raise ValueError(f"Expected `labels` to be clusters or classes, but got {self.labels!r}")
        if not 0 <= self.first_stage <= 1:
            raise ValueError(f"Expected `first_stage` to be from 0 to 1, but got {self.first_stage}")


class CoarseToFine(Method):
    """Both stages of the simplified version. Clusters take the place of the labels of its pretrained taggers."""

    Options: ClassVar[type] = Options
    needs_classes: ClassVar[bool] = True  # their number
    leaves_parameters_unused: ClassVar[bool] = True
    identifications: ClassVar[tuple[str, ...]] = (*ONE_MAP, "own")

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        size, count = setting.config.embedding_dim, len(setting.classes)
        self.visual_classes, self.audio_classes = (
            nn.Linear(channels, count, bias=False) for channels in (setting.trunk, setting.sound)
        )
        self.visual_space, self.audio_space = (
            nn.Sequential(nn.Linear(channels, 2 * size, bias=False), nn.ReLU(), nn.Linear(2 * size, size, bias=False))
            for channels in (setting.trunk, setting.sound)
        )
        self.visual_pair, self.audio_pair = nn.Linear(setting.trunk, size), nn.Linear(setting.sound, size, bias=False)
        self.pair = nn.Linear(size, 1)
        #: The cluster of each training clip; empty before the first epoch.
        self.labels = torch.zeros(0, dtype=torch.int64)
        self.aligned = False

    def get_extra_state(self) -> dict[str, Any]:
        return {"labels": self.labels, "aligned": self.aligned}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.labels, self.aligned = state["labels"], state["aligned"]

    @torch.no_grad()
    def start_epoch(self, epoch: int, encoders: Encoders, clips: Iterator[Clips]) -> None:
        self.aligned = epoch >= self.options.first_stage * self.config.epochs
        if self.options.labels == "clusters" and not len(self.labels):
            features = torch.cat([encoders.visual.encode(part.frames).trunk.mean((2, 3)) for part in clips])
            generator = torch.Generator().manual_seed(self.config.seed)
            self.labels = build_dictionary(features.cpu(), len(self.setting.classes), generator=generator).labels

    def loss(self, batch: SceneBatch, encoders: Encoders) -> dict[str, Tensor]:
        encoded = encoders.encode(batch.frames, batch.waveforms)
        frames, sounds = encoded.trunk.mean((2, 3)), encoded.sound.mean((2, 3))
        # A linear layer of both vectors together, for all pairs of a frame with a sound of any process.
        others = gather_rows(self.audio_pair(sounds)).rows
        pairs = self.pair((self.visual_pair(frames)[:, None] + others).relu())[..., 0]
        target = self._targets(batch).to(frames.dtype)
        logits = [self.visual_classes(frames), self.audio_classes(sounds)]
        terms = {
            "pair": pair_correspondence_loss(pairs, gather_distributed=True).loss,
            "visual_classes": F.binary_cross_entropy_with_logits(logits[0], target),
            "audio_classes": F.binary_cross_entropy_with_logits(logits[1], target),
        }
        if self.aligned:
            visual, audio, _ = self._vectors(encoded)
            probabilities = [value.sigmoid() for value in logits]
            # Not with the frames of other processes, since memory grows as the square of samples times classes.
            alignment = category_alignment_loss(
                visual, audio, *probabilities, threshold=self.options.threshold, gather_distributed=False
            )
            terms["alignment"] = self.options.alignment_weight * alignment.loss
        return {"total": torch.stack(list(terms.values())).sum(), **terms}

    def _targets(self, batch: SceneBatch) -> Tensor:
        """The labels of each scene, (B, M): those of all of its clips, or of all of its sources."""
        if self.options.labels == "classes":
            numbers, exist = batch.classes.clamp(min=0), batch.source_mask
        else:
            numbers = self.labels.to(batch.clips.device)[batch.clips]
            exist = torch.ones_like(numbers, dtype=torch.bool)
        return (F.one_hot(numbers, len(self.setting.classes)).bool() & exist[..., None]).any(1)

    def _vectors(self, encoded: Encoded) -> tuple[Tensor, Tensor, Tensor]:
        """One vector per class of frames and of sounds, (B, M, C), and the features of the pixels, (B, C, h, w)."""
        visual = self.visual_space(class_activation_pool(encoded.trunk, self.visual_classes.weight).pooled)
        audio = self.audio_space(class_activation_pool(encoded.sound, self.audio_classes.weight).pooled)
        pixels = self.visual_space(encoded.trunk.flatten(2).mT).mT.unflatten(2, encoded.trunk.shape[2:])
        return visual, audio, pixels

    def _heard(self, encoded: Encoded) -> Tensor:
        """The probabilities of the classes in the sounds, (B, M)."""
        return self.audio_classes(encoded.sound.mean((2, 3))).sigmoid()

    def features(self, encoded: Encoded) -> tuple[Tensor, Tensor]:
        _, audio, pixels = self._vectors(encoded)
        return pixels, (self._shares(encoded)[..., None] * F.normalize(audio, dim=2)).sum(1)

    def sound_map(self, encoded: Encoded) -> Tensor:
        return (self._shares(encoded)[..., None, None] * self.own_maps(encoded, None).maps).sum(1)

    def _shares(self, encoded: Encoded) -> Tensor:
        """The weights (B, M) of the classes: as published, of those above the threshold, and of the most probable."""
        heard = self._heard(encoded)
        present = (heard > self.options.threshold) | (heard == heard.amax(1, keepdim=True))
        weights = heard * present
        return weights / weights.sum(1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)

    def own_maps(self, encoded: Encoded, _: int | None) -> ScoredMaps:
        _, audio, pixels = self._vectors(encoded)
        maps = similarity_map(pixels, audio).relu()
        return ScoredMaps(maps, self._heard(encoded), self.options.threshold)


METHOD = CoarseToFine
