"""DSOL: a dictionary of objects that sound alone, then the classes that are seen where a mixture sounds."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslosses import (
    build_dictionary,
    dictionary_consistency_loss,
    multiple_instance_correspondence_loss,
    object_features,
)

from ..config import ONE_MAP
from ..data.loading import Clips, SceneBatch
from ..model.encoders import Encoded, Encoders
from ..model.method import Method, ScoredMaps, Setting

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """``first_stage``: share of the epochs in the first stage, at least two. ``sharpness``: of the softmax of maps."""

    first_stage: float = 0.5
    sharpness: float = 1.0
    localization_weight: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.first_stage <= 1:
            raise ValueError(f"Expected `first_stage` to be from 0 to 1, but got {self.first_stage}")


class Dsol(Method):
    """Both stages; there are as many clusters as classes.

    The first epoch localizes. In every further one of the first stage, the objects of all clips are clustered first,
    and both trunks also learn to classify the clusters. The second stage compares the classes of the last dictionary
    that are seen with those that the sound network of the first stage, the teacher, hears.
    """

    Options: ClassVar[type] = Options
    needs_classes: ClassVar[bool] = True  # their number
    leaves_parameters_unused: ClassVar[bool] = True
    identifications: ClassVar[tuple[str, ...]] = (*ONE_MAP, "own")

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.count = len(setting.classes)
        self.scale = nn.Parameter(torch.tensor(5.0))
        self.visual_classes, self.audio_classes = (nn.Linear(c, self.count) for c in (setting.trunk, setting.sound))
        self.map_scale, self.map_bias = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(0.0))
        self.teacher, self.teacher_classes = setting.copy_audio(), nn.Linear(setting.sound, self.count)
        self.teacher.requires_grad_(False)
        self.teacher_classes.requires_grad_(False)
        self.register_buffer("dictionary", torch.zeros(self.count, setting.trunk))
        #: The cluster of each training clip; empty before the second epoch.
        self.labels = torch.zeros(0, dtype=torch.int64)
        self.second_stage = False

    def get_extra_state(self) -> dict[str, Any]:
        return {"labels": self.labels, "second_stage": self.second_stage}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.labels, self.second_stage = state["labels"], state["second_stage"]

    @torch.no_grad()
    def start_epoch(self, epoch: int, encoders: Encoders, clips: Iterator[Clips]) -> None:
        if epoch == 0 and self.config.epochs < 3:
            log.warning("DSOL needs at least 3 epochs for its second stage; this run has %d.", self.config.epochs)
        if epoch == 0 or self.second_stage:
            return
        if epoch >= max(2, self.options.first_stage * self.config.epochs):
            # The dictionary stays that of the last epoch, since the teacher knows the numbers of its clusters.
            self.second_stage = True
            self.teacher.load_state_dict(encoders.audio.state_dict())
            self.teacher_classes.load_state_dict(self.audio_classes.state_dict())
            return
        encoded = (encoders.encode(part.frames, part.waveforms) for part in clips)
        features = torch.cat([object_features(part.trunk, self.localization(part)) for part in encoded])
        generator = torch.Generator().manual_seed(self.config.seed + epoch)
        dictionary = build_dictionary(features.cpu(), self.count, generator=generator)
        self.dictionary.copy_(dictionary.rows)
        self.labels = dictionary.labels
        for head in (self.visual_classes, self.audio_classes):  # the new clusters have other numbers
            for parameter in head.parameters():
                parameter.copy_((2 * torch.rand(parameter.shape, generator=generator) - 1) / head.in_features**0.5)

    def train(self, mode: bool = True) -> Dsol:
        super().train(mode)
        self.teacher.eval()
        return self

    def encode(self, frames: Any, waveforms: Any, encoders: Encoders) -> Encoded:
        """Encodes scenes. In the second stage, ``sound`` are the teacher's features."""
        encoded = encoders.encode(frames, waveforms)
        if not self.second_stage:
            return encoded
        with torch.no_grad():
            return encoded._replace(sound=self.teacher.encode(waveforms).trunk)

    def localization(self, encoded: Encoded) -> Tensor:
        """Computes how likely each pixel sounds, (B, h, w)."""
        return (self.scale * self.sound_map(encoded)).sigmoid()

    def loss(self, batch: SceneBatch, encoders: Encoders) -> dict[str, Tensor]:
        encoded = self.encode(batch.frames, batch.waveforms, encoders)
        localization = multiple_instance_correspondence_loss(
            *self.features(encoded),
            self.scale,
            normalize=True,
            swap="frame",
            negative_bins=2 if self.second_stage else 1,
            gather_distributed=True,
        ).loss
        if self.second_stage:
            return self._second_loss(encoded, localization)
        if not len(self.labels):
            return {"total": localization, "localization": localization}
        labels = self.labels.to(batch.clips.device)[batch.clips]
        # Each frame of a mixture has its own label, and its sound has all of them.
        parts = encoded.trunk.tensor_split(labels.shape[1], dim=3)
        frames = torch.stack([part.mean((2, 3)) for part in parts], dim=1)
        seen = F.cross_entropy(self.visual_classes(frames).flatten(0, 1), labels.flatten())
        shares = F.one_hot(labels, self.count).to(frames.dtype).mean(1)
        heard = F.cross_entropy(self.audio_classes(encoded.sound.amax((2, 3))), shares)
        return {"total": localization + seen + heard, "localization": localization, "seen": seen, "heard": heard}

    def _second_loss(self, encoded: Encoded, localization: Tensor) -> dict[str, Tensor]:
        consistency = dictionary_consistency_loss(
            encoded.trunk,
            self.localization(encoded),
            self.dictionary,
            self._heard(encoded),
            self.map_scale,
            self.map_bias,
            gather_distributed=True,
        ).loss
        total = consistency + self.options.localization_weight * localization
        return {"total": total, "localization": localization, "consistency": consistency}

    def _heard(self, encoded: Encoded) -> Tensor:
        classes = self.teacher_classes if self.second_stage else self.audio_classes
        return classes(encoded.sound.amax((2, 3)))

    def own_maps(self, encoded: Encoded, _: int | None) -> ScoredMaps:
        products = torch.einsum("bdhw,kd->bkhw", encoded.trunk, self.dictionary)
        maps = (self.map_scale * products + self.map_bias) * self.localization(encoded)[:, None]
        heard = self._heard(encoded)
        return ScoredMaps((self.options.sharpness * maps).softmax(1), heard.softmax(1), 1 / self.count)


METHOD = Dsol
