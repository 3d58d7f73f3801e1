"""The model as a Lightning module: two encoders, the projection of captions, and the objective of ``sslosses``."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslosses import (
    IdentifiedObjects,
    ObjectAwareObjective,
    ObjectiveTerms,
    ObjectRegionSeparationLoss,
    OCALoss,
    ORILoss,
    TriMapContrastiveLoss,
    cluster_objects,
    identify_objects,
    similarity_map,
)

from ..config import Config
from ..data.loading import SceneBatch
from .caption_features import TextProjection
from .encoders import Features, build_encoders, parameter_groups


class Localizer(L.LightningModule):
    """Localizes sounding objects. Only training needs captions.

    Args:
        config: the fields of :class:`~avsl.config.Config` as a plain dict, which checkpoints contain.
        text_features: size of the caption features.
        architectures: the encoders' architectures, which checkpoints contain; with them no pretrained weights are
            loaded.
    """

    def __init__(self, config: dict[str, Any], text_features: int, architectures: dict[str, Any] | None = None) -> None:
        super().__init__()
        c = Config.from_dict(config)
        self.config = c
        self._mirrored: tuple[int, list[bool]] = (-1, [])
        self.visual, self.audio = build_encoders(c, architectures)
        architectures = {"visual": self.visual.architecture, "audio": self.audio.architecture}
        self.save_hyperparameters({"config": config, "text_features": text_features, "architectures": architectures})
        self.text = TextProjection(text_features, c.embedding_dim)
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

    def encode(self, frames: Tensor | Features, waveforms: Tensor | Features) -> tuple[Tensor, Tensor]:
        """Computes unit visual features (B, C, h, w) and audio embeddings (B, C).

        Both can be given as features of a frozen encoder.
        """
        return F.normalize(self.visual(frames), dim=1), self.audio(waveforms)

    def training_step(self, batch: SceneBatch, index: int) -> Tensor:
        if isinstance(batch.frames, Tensor) and self._is_mirrored(index):
            batch = batch._replace(frames=batch.frames.flip(3))
        terms = self.loss(batch)
        size = len(batch.source_mask)
        self.log_dict({k: v.detach() for k, v in terms._asdict().items()}, prog_bar=True, batch_size=size)
        return terms.total

    def loss(self, batch: SceneBatch) -> ObjectiveTerms:
        """Computes the terms of the objective on a batch."""
        visual, audio = self.encode(batch.frames, batch.waveforms)
        return self.objective.terms(
            visual,
            audio,
            self.text(batch.foreground),
            self.text(batch.background),
            batch.source_mask,
            batch.background_mask,
        )

    def on_train_batch_start(self, _: SceneBatch, index: int) -> None:
        # Random numbers (dropout) depend on the step alone, so that a resumed run equals an uninterrupted one.
        torch.manual_seed(hash((self.config.seed, self.current_epoch, index, self.global_rank)) % 2**63)

    def _is_mirrored(self, index: int) -> bool:
        """Whether this batch of the epoch is mirrored; the same in all processes."""
        if not self.config.mirror:
            return False
        if self._mirrored[0] != self.current_epoch:
            generator = torch.Generator().manual_seed(self.config.seed * 100_003 + self.current_epoch)
            draws = torch.rand(int(self.trainer.num_training_batches), generator=generator)
            self._mirrored = self.current_epoch, (draws < 0.5).tolist()
        return self._mirrored[1][index]

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
            optimizer, [g["lr"] for g in groups], total_steps=self.trainer.datamodule.optimizer_steps()
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @torch.no_grad()
    def reference_deviation(self, batch: SceneBatch) -> Tensor:
        """Computes the standard deviation over the pixels of each reference's map S_r, (n,): 0 for constant maps."""
        visual = F.normalize(self.visual(batch.frames), dim=1)
        foreground, background = self.text(batch.foreground), self.text(batch.background)
        maps = similarity_map(visual, torch.cat([foreground, background[:, None]], dim=1))
        present = torch.cat([batch.source_mask, batch.background_mask[:, None]], dim=1)
        return maps.flatten(2).std(2)[present]

    @staticmethod
    def sound_map(visual: Tensor, audio: Tensor) -> Tensor:
        """Computes S_a, (B, h, w): where the sound as a whole comes from."""
        return similarity_map(visual, audio)

    def source_maps(
        self, visual: Tensor, audio: Tensor, num_sources: int | Tensor | None, identification: str | None = None
    ) -> IdentifiedObjects:
        """Computes one map per source of a mixture, by ``identification`` or else by that of the configuration."""
        c = self.config
        if (identification or c.identification) == "clustering":
            return cluster_objects(visual, audio, num_sources=num_sources)
        return identify_objects(
            visual,
            audio,
            num_sources=num_sources,
            peak_threshold=c.peak_threshold,
            background_threshold=c.background_threshold,
            merge_threshold=c.merge_threshold,
            alpha_background=c.alpha_background,
            omega=c.omega,
        )


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
