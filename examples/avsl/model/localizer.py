"""The model as a Lightning module: two encoders, and a method with its loss and its maps."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..config import Config
from ..data.loading import SceneBatch
from ..methods import method_class
from .encoders import Encoded, Encoders, Features, build_encoders, parameter_groups
from .identification import source_maps
from .method import Setting, SourceMaps
from .sharing import Shareable


class Localizer(L.LightningModule, Shareable):
    """Localizes sounding objects. Only training needs captions or class names.

    Args:
        config: the fields of :class:`~avsl.config.Config` as a plain dict, which checkpoints contain.
        text_features: size of the caption features; 0 for methods without captions.
        architectures: the encoders' architectures, which checkpoints contain; with them no pretrained weights are
            loaded.
        classes: names of the classes of the training clips, sorted.
        sources: largest number of sources per training scene.
    """

    def __init__(
        self,
        config: dict[str, Any],
        text_features: int,
        architectures: dict[str, Any] | None = None,
        classes: list[str] | tuple[str, ...] = (),
        sources: int = 2,
    ) -> None:
        super().__init__()
        c = Config.from_dict(config)
        self.config = c
        self.classes = tuple(classes)
        self._mirrored: tuple[int, list[bool]] = (-1, [])
        self.visual, self.audio = build_encoders(c, architectures)
        architectures = {"visual": self.visual.architecture, "audio": self.audio.architecture}
        self.save_hyperparameters(
            {
                "config": config,
                "text_features": text_features,
                "architectures": architectures,
                "classes": list(classes),
                "sources": sources,
            }
        )
        trunk, sound = self.visual.trunk_channels, self.audio.trunk_channels
        setting = Setting(c, trunk, sound, self.classes, sources, text_features, partial(copy.deepcopy, self.audio))
        self.method = method_class(c.method)(setting)
        self.register_load_state_dict_pre_hook(_read_earlier_names)

    @property
    def encoders(self) -> Encoders:
        """Both encoders."""
        return Encoders(self.visual, self.audio)

    def encode(self, frames: Tensor | Features, waveforms: Tensor | Features) -> Encoded:
        """Encodes scenes; features of a frozen encoder can take the place of frames or waveforms."""
        return self.method.encode(frames, waveforms, self.encoders)

    def training_step(self, batch: SceneBatch, index: int) -> Tensor:
        if isinstance(batch.frames, Tensor) and self._is_mirrored(index):
            # The first frame of a mixture is then the last.
            batch = batch._replace(frames=batch.frames.flip(3), clips=batch.clips.flip(1))
        terms = self.method.loss(batch, self.encoders)
        size = len(batch.source_mask)
        self.log_dict({name: term.detach() for name, term in terms.items()}, prog_bar=True, batch_size=size)
        return terms["total"]

    def on_train_epoch_start(self) -> None:
        # Lightning does not call this hook where a run is resumed within an epoch.
        self.eval()  # no batch statistics change
        self.method.start_epoch(self.current_epoch, self.encoders, self.trainer.datamodule.clips(self.device))
        self.train()
        if self.trainer.world_size > 1:
            # Batch statistics, and so what is computed from features, can differ between processes.
            state = {k: v.cpu() if isinstance(v, Tensor) else v for k, v in self.method.state_dict().items()}
            self.method.load_state_dict(self.trainer.strategy.broadcast(state))

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
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def configure_optimizers(self) -> Any:
        c = self.config
        groups = parameter_groups(self.visual, self.audio, self.method, c)
        optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), weight_decay=c.weight_decay)
        if c.schedule == "constant":
            return optimizer
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, [g["lr"] for g in groups], total_steps=self.trainer.datamodule.optimizer_steps()
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def sound_map(self, encoded: Encoded) -> Tensor:
        """Computes S_a, (B, h, w): where the sound as a whole comes from."""
        return self.method.sound_map(encoded)

    def source_maps(
        self,
        encoded: Encoded,
        num_sources: int | None,
        identification: str | None = None,
        classes: Tensor | None = None,
    ) -> SourceMaps:
        """Computes one map per source of a mixture, by ``identification`` or else by that of the configuration."""
        chosen = identification or self.config.identification
        return source_maps(self.method, self.config, encoded, num_sources, chosen, classes)


def _read_earlier_names(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
    """Renames the weights of earlier versions, in whose checkpoints the captions' projection is not the method's."""
    for name in [name for name in state if name.startswith(f"{prefix}text.")]:
        state[f"{prefix}method.{name.removeprefix(prefix)}"] = state.pop(name)
