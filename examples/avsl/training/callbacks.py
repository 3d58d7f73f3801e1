"""What happens around training: checkpoints that survive a kill, and progress with the time that is left."""

from __future__ import annotations

import time
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Checkpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger

from ..files import atomic_write


class KeepLast(Checkpoint):
    """Writes the checkpoint after every epoch, and within it every so many batches, in one move.

    (``ModelCheckpoint`` keeps its temporary file in another folder, and from Lightning 2.6 on writes no ``last.ckpt``
    before the end of training if ``save_top_k`` is 0.)
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
        for logger in trainer.loggers:  # with the rows so far, which a kill would lose
            if isinstance(logger, CSVLogger):
                logger.save()
        if trainer.is_global_zero:
            with atomic_write(self.path) as temporary:
                trainer.save_checkpoint(temporary, weights_only=False)  # with the optimizer
        else:
            trainer.save_checkpoint(self.path, weights_only=False)  # takes part and writes nothing


class Progress(TQDMProgressBar):
    """The loss terms, and the time that all remaining epochs will take."""

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        super().on_train_start(trainer, module)
        self._start, self._first = time.monotonic(), trainer.fit_loop.epoch_loop.total_batch_idx + 1

    def get_metrics(
        self, trainer: L.Trainer, module: L.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        metrics = {name: value for name, value in super().get_metrics(trainer, module).items() if name != "v_num"}
        done = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        if done > self._first:
            pace = (time.monotonic() - self._start) / (done - self._first)
            left = round(pace * (trainer.num_training_batches * (trainer.max_epochs or 0) - done))
            metrics["left"] = f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}"
        return metrics
