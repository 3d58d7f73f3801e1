"""EZ-VSL: the best place of a frame has to fit its own sound, and the sound its own frame, better than any other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sslosses import best_place_contrastive_loss, blend_maps, object_prior

from ..data.loading import SceneBatch
from ..model.encoders import Encoded, Encoders
from ..model.method import Method


@dataclass(frozen=True)
class Options:
    """``sound_weight``: weight of the sound's map beside the object prior; 1 leaves the prior out, 0.4 is published."""

    temperature: float = 0.03
    sound_weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.sound_weight <= 1:
            raise ValueError(f"Expected `sound_weight` to be from 0 to 1, but got {self.sound_weight}")


class EzVsl(Method):
    """The contrast of best places. The object prior looks at the frame alone: it also marks silent objects."""

    Options: ClassVar[type] = Options

    def loss(self, batch: SceneBatch, encoders: Encoders) -> dict[str, Tensor]:
        visual, audio = self.features(encoders.encode(batch.frames, batch.waveforms))
        terms = best_place_contrastive_loss(
            visual, audio, temperature=self.options.temperature, gather_distributed=True
        )
        return {"total": terms.loss, "positive": terms.positive}

    def sound_map(self, encoded: Encoded) -> Tensor:
        sound = super().sound_map(encoded)
        if self.options.sound_weight == 1:
            return sound
        return blend_maps(sound, object_prior(encoded.trunk), weight=self.options.sound_weight)


METHOD = EzVsl
