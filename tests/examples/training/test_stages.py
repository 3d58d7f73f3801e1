"""Methods with stages: stopped after any checkpoint, a run ends as an unbroken one does; and with two processes."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from avsl.config import Config
from avsl.data.music import MusicFolder
from avsl.methods import dsol
from avsl.training import fit as fitting
from avsl.training.callbacks import KeepLast
from avsl.training.data_location import DataLocation
from avsl.training.fit import fit
from avsl.training.model_setup import set_up_training

from sslosses import Dictionary, build_dictionary

from ... import processes
from ..conftest import TINY, write_clip

processes.preload(__name__)

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.slow,
    # Lightning warns when a run is resumed that it replaces the log of the earlier part.
    pytest.mark.filterwarnings("ignore:Experiment logs directory .* exists and is not empty:UserWarning"),
]

EPOCHS, BATCHES = 4, 2
#: The first two epochs are the first stage; DSOL has no classes in its first epoch.
METHODS = {"coarse-to-fine": {}, "dsol": {}, "avgn": {"method_options": ("heads=2", "depth=1", "drop_path=0.5")}}


class KilledError(Exception):
    pass


@pytest.fixture
def folder(music: Path) -> MusicFolder:
    """Five clips with one or two sources, which are two batches."""
    rng = np.random.default_rng(1)
    with (music / "metadata" / "music_solo_train.txt").open("a") as lines:
        for name, instrument in (("f", "cello"), ("g", "flute")):
            write_clip(music, name, rng)
            lines.write(f"{name},{instrument}\n")
    return MusicFolder(music)


def configuration(method: str, **changes: object) -> Config:
    own = {"method": method, "embedding_dim": 8, "image_size": 32, "epochs": EPOCHS, "batch_size": 2, "rate": 0.01}
    return Config(**TINY | own | METHODS[method] | {"workers": 0, "accelerator": "cpu"} | changes)


def train(folder: MusicFolder, method: str, run: Path, stop: int | None = None) -> dict:
    """Trains in ``run`` until after checkpoint number ``stop``; returns the last checkpoint."""
    config = configuration(method, checkpoint_steps=1)
    model, scenes = set_up_training(DataLocation(run), config, folder)

    class Stopping(KeepLast):
        saved = 0

        def _save(self, trainer: object) -> None:
            super()._save(trainer)
            Stopping.saved += 1
            if Stopping.saved == stop:
                raise KilledError

    torch.manual_seed(np.random.default_rng().integers(2**31))  # what a new process would have is unknown
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "KeepLast", Stopping)
        if stop is None:
            fit(model, scenes, run, config)
        else:
            with pytest.raises(KilledError):
                fit(model, scenes, run, config)
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.mark.parametrize("method", METHODS)
def test_stopped_at_any_checkpoint(method: str, folder: MusicFolder, tmp_path: Path) -> None:
    """In the middle of an epoch, at its end, and in either stage: the same weights, labels and optimizer."""
    whole = train(folder, method, tmp_path / "whole")
    assert whole["global_step"] == EPOCHS * BATCHES
    if method != "avgn":
        state = whole["state_dict"]["method._extra_state"]
        assert state["aligned" if method == "coarse-to-fine" else "second_stage"]
        assert len(state["labels"]) == 5
    for stop in range(1, EPOCHS * BATCHES):
        run = tmp_path / str(stop)
        stopped = train(folder, method, run, stop)
        assert stopped["global_step"] == stop
        resumed = train(folder, method, run)
        for key in ("global_step", "epoch", "state_dict", "optimizer_states"):
            torch.testing.assert_close(resumed[key], whole[key], rtol=0, atol=0)


def _worker(rank: int, port: int, root: Path, run: Path) -> dict[str, torch.Tensor]:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}

    def differing(*arguments: object, **options: object) -> Dictionary:
        """Clusters that differ between the processes, as those of different batch statistics can."""
        rows, labels = build_dictionary(*arguments, **options)
        return Dictionary(rows.roll(rank, 0), (torch.arange(len(labels)) + rank) % 2)

    dsol.build_dictionary = differing
    config = configuration("dsol", devices=2, batch_size=1)
    model, scenes = set_up_training(DataLocation(run), config, MusicFolder(root))
    fit(model, scenes, run, config)
    return model.cpu().state_dict()


@pytest.mark.filterwarnings("ignore")
def test_two_processes(folder: MusicFolder, tmp_path: Path) -> None:
    """Each step leaves some parameters without gradient; both have the same clusters and the same teacher."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    first, second = processes.run(_worker, port, folder.root, tmp_path)
    assert first["method._extra_state"]["second_stage"]
    assert len(first["method._extra_state"]["labels"].unique()) == 2
    names = [name for name in first if "running" not in name and "num_batches" not in name]
    torch.testing.assert_close(*({name: state[name] for name in names} for state in (first, second)), rtol=0, atol=0)
