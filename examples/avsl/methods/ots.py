"""OTS (AVOL-Net): a frame and a sound belong together if one place of the frame fits the sound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sslosses import MultipleInstanceCorrespondenceLoss

from ..data.loading import SceneBatch
from ..model.encoders import Encoded, Encoders
from ..model.method import Method, Setting


@dataclass(frozen=True)
class Options:
    """``normalize``: cosines in place of the published scalar products. ``scale``: its value before training."""

    normalize: bool = False
    scale: float = 1.0


class Ots(Method):
    """Binary correspondence of the best place, with a learned scale and bias."""

    Options: ClassVar[type] = Options

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        options = self.options
        self.correspondence = MultipleInstanceCorrespondenceLoss(
            scale=options.scale, normalize=options.normalize, gather_distributed=True
        )

    def loss(self, batch: SceneBatch, encoders: Encoders) -> dict[str, Tensor]:
        encoded = encoders.encode(batch.frames, batch.waveforms)
        return {"total": self.correspondence(encoded.visual, encoded.audio)}

    def sound_map(self, encoded: Encoded) -> Tensor:
        """Computes the logits of a match. Unlike cosines, scalar products can be small for the whole background."""
        if self.options.normalize:
            products = super().sound_map(encoded)
        else:
            products = torch.einsum("bchw,bc->bhw", encoded.visual, encoded.audio)
        return self.correspondence.scale * products + self.correspondence.bias


METHOD = Ots
