"""The training loop: Lightning's trainer with this example's settings."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from ..config import Config
from ..data.loading import TrainingScenes
from ..model.checkpoints import read_checkpoint
from ..model.localizer import Localizer
from .callbacks import KeepLast, Progress

log = logging.getLogger(__name__)
_QUIET = 3.0  # s that compiled kernels take to be loaded, at most
#: What a checkpoint holds for resuming, beside the weights and the configuration.
_STATE: dict[str, type] = {
    "pytorch-lightning_version": str,
    "epoch": int,
    "global_step": int,
    "loops": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
}


def fit(model: Localizer, data: TrainingScenes, directory: Path, config: Config) -> None:
    """Trains the model, from the last checkpoint if it exists, and leaves it on the device that it was trained on.

    Raises:
        KeyboardInterrupt: if training was interrupted.
        ValueError: if the last checkpoint is damaged, or not one of this run.
    """
    last = directory / "checkpoints" / "last.ckpt"
    if last.is_file():
        _check_resumable(last, model)
    _warm_up(model)
    model.train()
    trainer = _trainer(directory, last, config, unused=model.method.leaves_parameters_unused)
    with _expected_warnings_ignored():
        try:
            trainer.fit(model, data, ckpt_path=last if last.is_file() else None, weights_only=True)
        except SystemExit as stop:  # Lightning's answer to Ctrl-C
            raise KeyboardInterrupt from stop
    if trainer.interrupted:
        raise KeyboardInterrupt
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # evaluation runs in one process
    model.to(trainer.strategy.root_device)


def _warm_up(model: Localizer) -> None:
    """Compiles what training compiles, so that it does not stand still in its first step; says so if it takes long."""
    announcement = threading.Timer(_QUIET, log.info, ["Compiling the transport kernel, once: about half a minute"])
    if rank_zero_only.rank == 0:
        announcement.start()
    try:
        model.method.warm_up(model.device)
    finally:
        announcement.cancel()


def _check_resumable(last: Path, model: Localizer) -> None:
    """Checks all that training resumes from, since Lightning's errors name no file, and damaged weights cause none."""
    try:
        checkpoint = read_checkpoint(last)
        for key, kind in _STATE.items():
            if not isinstance(checkpoint.get(key), kind):
                raise ValueError(
                    f"Expected {last} to be the checkpoint of a run, but its {key!r} is no {kind.__name__}"
                )
        try:
            model.load_state_dict(checkpoint["state_dict"])
        except (RuntimeError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"Expected {last} to hold the weights of this configuration, but {reason}") from error
    except ValueError as error:
        raise ValueError(f"{error}. Delete it to train from the start.") from error


def _trainer(directory: Path, last: Path, config: Config, *, unused: bool) -> L.Trainer:
    distributed = config.devices * config.nodes != 1
    return L.Trainer(
        max_epochs=config.epochs,
        accelerator=config.accelerator,
        devices=config.devices,
        num_nodes=config.nodes,
        strategy=("ddp_find_unused_parameters_true" if unused else "ddp") if distributed else "auto",
        # gloo can't average batch statistics; on GPUs every process uses the statistics of the whole batch
        sync_batchnorm=distributed and torch.cuda.is_available() and config.accelerator != "cpu",
        precision=config.precision,
        accumulate_grad_batches=config.accumulate,
        # the CSV logger starts a new version each time, since it overwrites an existing file
        logger=[CSVLogger(directory, name="csv"), TensorBoardLogger(directory, name="", version="tensorboard")],
        callbacks=[KeepLast(last, config.checkpoint_steps), Progress(refresh_rate=5)],
        use_distributed_sampler=False,
        enable_model_summary=False,
        log_every_n_steps=10,
    )


@contextlib.contextmanager
def _expected_warnings_ignored() -> Iterator[None]:
    """In-memory scenes need no workers, frozen batch statistics are intended, and a short epoch is logged once."""
    with warnings.catch_warnings():
        for text in (
            "does not have many workers",
            "module\\(s\\) in eval mode",
            "smaller than the logging interval",
            "LeafSpec",
        ):
            warnings.filterwarnings("ignore", f".*{text}.*")
        yield
