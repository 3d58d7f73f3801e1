"""Attention10k: what a sound attends to in its frame has to be nearer to this sound than to others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from sslosses import attend, attention_pair_loss

from ..data.loading import SceneBatch
from ..model.encoders import Encoded, Encoders
from ..model.method import Method, Setting


@dataclass(frozen=True)
class Options:
    """``temperature``: of the attention; the published one has none, which is 1. ``rectify``: as published."""

    temperature: float = 1.0
    rectify: bool = True


class Attention10k(Method):
    """The unsupervised term. Unlike the published one, the target is trained, and both vectors have length 1."""

    Options: ClassVar[type] = Options

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        size = setting.config.embedding_dim
        self.query = nn.Sequential(nn.ReLU(), nn.Linear(size, size), nn.ReLU(), nn.Linear(size, size))
        self.embedding = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, size))

    def features(self, encoded: Encoded) -> tuple[Tensor, Tensor]:
        return encoded.visual, self.query(encoded.audio)

    def loss(self, batch: SceneBatch, encoders: Encoders) -> dict[str, Tensor]:
        encoded = encoders.encode(batch.frames, batch.waveforms)
        pooled = attend(*self.features(encoded), **vars(self.options)).pooled
        terms = attention_pair_loss(self.embedding(pooled), encoded.audio, gather_distributed=True)
        return {"total": terms.loss, "accuracy": terms.accuracy}


METHOD = Attention10k
