"""Callbacks of training: atomic checkpoints, and progress with the remaining time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger

from ..files import atomic_write


class KeepLast(Checkpoint):
    """Writes a checkpoint after every epoch, and every ``every`` batches within it, atomically.

    Raises:
        ValueError: in place of a checkpoint whose weights are not finite.

    ``ModelCheckpoint`` does not suit: it puts its temporary file into another folder and, since Lightning 2.6, writes
    ``last.ckpt`` only at the end of training if ``save_top_k`` is 0.
    """

    def __init__(self, path: Path, every: int = 0) -> None:
        self.path, self.every = path, every

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        if self.every and done % self.every == 0 and done < trainer.num_training_batches:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, _: L.LightningModule) -> None:
        self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        if not all(bool(weight.isfinite().all()) for weight in trainer.lightning_module.parameters()):
            raise ValueError(
                f"Training diverged: weights are NaN or infinite at step {trainer.global_step}. {self.path} is left as "
                "it was before, if it exists. A lower `rate` and `visual_rate` may help"
            )
        for logger in trainer.loggers:  # otherwise a kill would lose the rows since the last save
            if isinstance(logger, CSVLogger):
                logger.save()
        if trainer.is_global_zero:
            with atomic_write(self.path) as temporary:
                trainer.save_checkpoint(temporary, weights_only=False)  # includes the optimizer
        else:
            trainer.save_checkpoint(self.path, weights_only=False)  # takes part in the collective call, writes nothing


class Progress(TQDMProgressBar):
    """A progress bar with the loss terms and the time until the end of training.

    The first step takes longer than the others and does not count for the time.
    """

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        super().on_train_start(trainer, module)
        self._start: float | None = None

    def on_train_batch_end(self, trainer: L.Trainer, *arguments: Any) -> None:
        if self._start is None:
            self._start, self._first = time.monotonic(), trainer.fit_loop.epoch_loop.total_batch_idx + 1
        super().on_train_batch_end(trainer, *arguments)

    def get_metrics(
        self, trainer: L.Trainer, module: L.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        # A term of weight 0 is not computed. Its 0 would look like a perfect loss.
        weights = {"v_num": 0.0} | {name: getattr(module.config, f"{name}_weight") for name in ("trimap", "oca", "ori")}
        shown = super().get_metrics(trainer, module)
        metrics = {name: value for name, value in shown.items() if weights.get(name, 1.0)}
        done = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        if self._start is not None and done > self._first:
            pace = (time.monotonic() - self._start) / (done - self._first)
            left = round(pace * (trainer.num_training_batches * (trainer.max_epochs or 0) - done))
            metrics["left"] = f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}"
        return metrics
