"""A method whose own maps and scores are what its trunks compute, so that tests know them."""

from __future__ import annotations

from typing import ClassVar

from avsl.config import IDENTIFICATIONS, Config
from avsl.data.loading import SceneBatch
from avsl.model.encoders import Encoded, Encoders
from avsl.model.method import Method, ScoredMaps, Setting
from torch import Tensor

from .conftest import TINY

CONFIG = Config(**TINY, method="lvs", workers=0)


class OwnMaps(Method):
    """Map m is channel m of the visual trunk. Its score is the mean of channel m of the audio trunk, less 1."""

    identifications: ClassVar[tuple[str, ...]] = IDENTIFICATIONS

    def loss(self, batch: SceneBatch, encoders: Encoders) -> dict[str, Tensor]:
        encoded = encoders.encode(batch.frames, batch.waveforms)
        return {"total": encoded.visual.square().mean() + encoded.audio.square().mean()}

    def own_maps(self, encoded: Encoded, num_sources: int | None) -> ScoredMaps:  # noqa: ARG002
        return ScoredMaps(encoded.trunk, encoded.sound.mean((2, 3)) - 1, 0.0)


def setting(config: Config = CONFIG, classes: tuple[str, ...] = ("cello", "flute"), text: int = 0) -> Setting:
    """What a method is built for beside encoders of 8 channels."""
    return Setting(config, 8, 8, classes, 2, text, lambda: None)
