"""NoPrior: the tri-map loss, and objects that are found one by one and then pulled together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sslosses import object_clustering_loss, trimap_contrastive_loss

from ..data.loading import SceneBatch
from ..model.encoders import Encoders
from ..model.method import Method


@dataclass(frozen=True)
class Options:
    """``temperature``: of the tri-map loss. ``clustering_weight``: of the objects' loss, 1 as published."""

    temperature: float = 0.07
    clustering_weight: float = 1.0


class NoPrior(Method):
    """Both losses. Its iterative identification is the one that tells the sources apart at test time."""

    Options: ClassVar[type] = Options

    def loss(self, batch: SceneBatch, encoders: Encoders) -> dict[str, Tensor]:
        c, options = self.config, self.options
        visual, audio = self.features(encoders.encode(batch.frames, batch.waveforms))
        masks = {"alpha_background": c.alpha_background, "omega": c.omega}
        trimap = trimap_contrastive_loss(
            visual,
            audio,
            temperature=options.temperature,
            alpha_foreground=c.alpha_foreground,
            gather_distributed=True,
            **masks,
        )
        objects = object_clustering_loss(
            visual,
            audio,
            peak_threshold=c.peak_threshold,
            background_threshold=c.background_threshold,
            merge_threshold=c.merge_threshold,
            gather_distributed=True,
            **masks,
        )
        total = trimap.loss + options.clustering_weight * objects.loss
        return {"total": total, "trimap": trimap.loss, "clustering": objects.loss, "objects": objects.objects}


METHOD = NoPrior
