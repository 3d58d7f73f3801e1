"""LVS: a frame's foreground against other sounds and against its own background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sslosses import trimap_contrastive_loss

from ..data.loading import SceneBatch
from ..model.encoders import Encoders
from ..model.method import Method


@dataclass(frozen=True)
class Options:
    """Options of the tri-map loss."""

    temperature: float = 0.07
    alpha_foreground: float = 0.65
    alpha_background: float = 0.4
    omega: float = 0.03


class Lvs(Method):
    """The tri-map loss. Its thresholds presuppose similarities from 0 to 1."""

    Options: ClassVar[type] = Options

    def loss(self, batch: SceneBatch, encoders: Encoders) -> dict[str, Tensor]:
        visual, audio = self.features(encoders.encode(batch.frames, batch.waveforms))
        terms = trimap_contrastive_loss(visual, audio, gather_distributed=True, **vars(self.options))
        return {"total": terms.loss, "positive": terms.positive, "hard_negative": terms.hard_negative}


METHOD = Lvs
