"""The paper's method: OCA and ORI against references from captions, and the tri-map loss beside or in place of them."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslosses import (
    ObjectAwareObjective,
    ObjectRegionSeparationLoss,
    OCALoss,
    ORILoss,
    TriMapContrastiveLoss,
    similarity_map,
)

from ..config import TWO_WAYS, Config
from ..data.loading import SceneBatch
from ..model.caption_features import TextProjection
from ..model.encoders import Encoders
from ..model.method import Method, Setting


class ObjectAware(Method):
    """OCA + ORI. Its settings are keys of the configuration (``oca_weight``, ``temperature``, ``ori_epsilon``, …)."""

    needs_captions: ClassVar[bool] = True
    identifications: ClassVar[tuple[str, ...]] = TWO_WAYS

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        c = setting.config
        self._grid = max(1, c.image_size // 32)
        self.text = TextProjection(setting.text, c.embedding_dim)
        masks = {"alpha_foreground": c.alpha_foreground, "alpha_background": c.alpha_background, "omega": c.omega}
        self.objective = ObjectAwareObjective(
            trimap_weight=c.trimap_weight,
            oca_weight=c.oca_weight,
            ori_weight=c.ori_weight,
            trimap=TriMapContrastiveLoss(**masks),
            oca=OCALoss(temperature=c.temperature, tau=c.tau, false_negatives=c.false_negatives, **masks),
            ori=_region_loss(c),
            gather_distributed=True,
        )

    def loss(self, batch: SceneBatch, encoders: Encoders) -> dict[str, Tensor]:
        visual, audio = self.features(encoders.encode(batch.frames, batch.waveforms))
        terms = self.objective.terms(
            visual,
            audio,
            self.text(batch.foreground),
            self.text(batch.background),
            batch.source_mask,
            batch.background_mask,
        )
        return terms._asdict()

    def warm_up(self, device: torch.device) -> None:
        if self.objective.ori_weight:
            visual = torch.zeros(1, 1, self._grid, self._grid, device=device, requires_grad=True)
            references = torch.zeros(1, 2, 1, device=device)
            self.objective.ori(visual, references, references[:, 0]).sum().backward()

    @torch.no_grad()
    def reference_deviation(self, batch: SceneBatch, encoders: Encoders) -> Tensor:
        """Computes the standard deviation over the pixels of each reference's map S_r, (n,): 0 for constant maps."""
        visual = F.normalize(encoders.visual(batch.frames), dim=1)
        foreground, background = self.text(batch.foreground), self.text(batch.background)
        maps = similarity_map(visual, torch.cat([foreground, background[:, None]], dim=1))
        present = torch.cat([batch.source_mask, batch.background_mask[:, None]], dim=1)
        return maps.flatten(2).std(2)[present]


def _region_loss(config: Config) -> nn.Module:
    """The paper's ORI, or this library's separation loss in its place."""
    transport = {
        "solver": config.ori_solver,
        "epsilon": config.ori_epsilon,
        "tol": config.ori_tol,
        "max_iter": config.ori_max_iter,
    }
    if config.ori_target == "complement":
        return ORILoss(**transport)
    return ObjectRegionSeparationLoss(margin=config.ori_margin, temperature=config.ori_temperature, **transport)


METHOD = ObjectAware
