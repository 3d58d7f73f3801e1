"""The model: two encoders, the caption projection, and the objective of ``sslosses`` as a Lightning module."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslosses import (
    IdentifiedObjects,
    ObjectAwareObjective,
    OCALoss,
    ORILoss,
    TriMapContrastiveLoss,
    identify_objects,
    similarity_map,
)

from .config import Config
from .data import SceneBatch
from .encoders import build_encoders, parameter_groups
from .text import TextProjection


class Localizer(L.LightningModule):
    """Localises what sounds. Captions are needed for training only.

    Args:
        config: fields of :class:`~avsl.config.Config` as a plain dict, kept in the checkpoint.
        text_features: size of the caption features.
    """

    def __init__(self, config: dict[str, Any], text_features: int) -> None:
        super().__init__()
        self.save_hyperparameters()
        c = Config.from_dict(config)
        self.config = c
        self._mirror = torch.Generator()
        self.visual, self.audio = build_encoders(c)
        self.text = TextProjection(text_features, c.embedding_dim)
        masks = {"alpha_foreground": c.alpha_foreground, "alpha_background": c.alpha_background, "omega": c.omega}
        self.objective = ObjectAwareObjective(
            trimap_weight=c.trimap_weight,
            oca_weight=c.oca_weight,
            ori_weight=c.ori_weight,
            trimap=TriMapContrastiveLoss(**masks),
            oca=OCALoss(temperature=c.temperature, tau=c.tau, **masks),
            ori=ORILoss(solver=c.ori_solver, epsilon=c.ori_epsilon, tol=c.ori_tol),
        )

    def encode(self, frames: Tensor, waveforms: Tensor) -> tuple[Tensor, Tensor]:
        """Unit visual features (B, C, h, w) and audio embeddings (B, C)."""
        return F.normalize(self.visual(frames), dim=1), self.audio(waveforms)

    def training_step(self, batch: SceneBatch, _: int) -> Tensor:
        frames = batch.frames.flip(3) if torch.rand((), generator=self._mirror) < 0.5 else batch.frames
        visual, audio = self.encode(frames, batch.waveforms)
        terms = self.objective.terms(
            visual, audio, self.text(batch.foreground), self.text(batch.background), batch.source_mask
        )
        self.log_dict({k: v.detach() for k, v in terms._asdict().items()}, prog_bar=True, batch_size=len(frames))
        return terms.total

    def on_train_epoch_start(self) -> None:
        # A stream of its own, so that an epoch is mirrored alike whether or not the run was stopped before it.
        self._mirror = torch.Generator().manual_seed(self.config.seed * 100_003 + self.current_epoch)

    def train(self, mode: bool = True) -> Localizer:
        super().train(mode)
        if self.config.freeze_statistics:
            for module in self.visual.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def configure_optimizers(self) -> Any:
        c = self.config
        groups = parameter_groups(self.visual, self.audio, c)
        optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), weight_decay=c.weight_decay)
        if c.schedule == "constant":
            return optimizer
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, [g["lr"] for g in groups], total_steps=int(self.trainer.estimated_stepping_batches)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @torch.no_grad()
    def sound_map(self, frames: Tensor, waveforms: Tensor) -> Tensor:
        """S_a, (B, h, w): where the sound as a whole is."""
        return similarity_map(*self.encode(frames, waveforms))

    def source_maps(self, frames: Tensor, waveforms: Tensor, num_sources: int | Tensor | None) -> IdentifiedObjects:
        """A map for every source of a mixture, by iterative object identification."""
        c = self.config
        return identify_objects(
            *self.encode(frames, waveforms),
            num_sources=num_sources,
            peak_threshold=c.peak_threshold,
            background_threshold=c.background_threshold,
            merge_threshold=c.merge_threshold,
            alpha_background=c.alpha_background,
            omega=c.omega,
        )
