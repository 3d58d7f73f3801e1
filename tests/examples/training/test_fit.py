"""Training does not resume from a checkpoint that is damaged or belongs to something else."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import lightning
import pytest
import torch
from avsl.config import Config
from avsl.model.localizer import Localizer
from avsl.training import callbacks
from avsl.training import fit as fitting
from avsl.training.callbacks import KeepLast, Progress
from avsl.training.fit import fit

from ..conftest import TINY

CONFIG = Config(**TINY, workers=0)


class Unsafe:
    pass


def model(**changes: object) -> Localizer:
    return Localizer(Config(**TINY | changes, workers=0).as_dict(), 10)


def content(made: Localizer) -> dict:
    trainer = {"epoch": 0, "global_step": 1, "loops": {}, "optimizer_states": [], "lr_schedulers": []}
    weights = {"state_dict": made.state_dict(), "hyper_parameters": dict(made.hparams)}
    return trainer | weights | {"pytorch-lightning_version": lightning.__version__}


def overwrite(path: Path, part: bytes) -> None:
    """Zeroes a part of the file in place, as a bad disk does."""
    data = path.read_bytes()
    assert data.count(part) == 1
    path.write_bytes(data.replace(part, bytes(len(part))))


def zero_weights(path: Path) -> None:
    """Without its checksum, this would be read as weights of 0."""
    largest = max(torch.load(path, weights_only=True)["state_dict"].values(), key=torch.numel)
    overwrite(path, largest.numpy().tobytes())


def mark_as_folder(path: Path) -> None:
    """Flips a bit in the archive's list of contents. No checksum covers it, and torch then reads random weights."""
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02", 0, data.rindex(b"data/5"))
    data[entry + 38] ^= 0x10
    path.write_bytes(data)


def save(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        values = torch.load(path, weights_only=True)
        change(values)
        torch.save(values, path)

    return damage


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (zero_weights, r"it is damaged: last/data/\d+ is not as it was written"),
        (mark_as_folder, r"it is damaged: last/data/\d+ is not as it was written"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1000]), "can't be read as weights and plain values"),
        (lambda path: path.write_bytes(b""), "can't be read as weights and plain values"),
        (save(lambda values: values.update(a=Unsafe())), "can't be read as weights and plain values"),
        (lambda path: torch.save([1], path), "holds no weights"),
        (save(lambda values: values.pop("loops")), "'loops' is no dict"),
        (save(lambda values: values.update(epoch="1")), "'epoch' is no int"),
        (save(lambda values: values.update(state_dict=5)), "the weights of this configuration, but"),
        (
            save(lambda values: values.update(state_dict=model(embedding_dim=4).state_dict())),
            "the weights of this configuration, but .* size mismatch",
        ),
    ],
)
def test_a_damaged_checkpoint_is_named(tmp_path: Path, damage: Callable[[Path], None], match: str) -> None:
    made, last = model(), tmp_path / "checkpoints" / "last.ckpt"
    last.parent.mkdir()
    torch.save(content(made), last)
    damage(last)
    with pytest.raises(ValueError, match=rf"Expected .*last\.ckpt .*{match}.* Delete it to train from the start\."):
        fit(made, None, tmp_path, CONFIG)


def test_a_lack_of_memory_does_not_count_against_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    made, last = model(), tmp_path / "checkpoints" / "last.ckpt"
    last.parent.mkdir()
    torch.save(content(made), last)
    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(RuntimeError, match="allocate memory"):
        fit(made, None, tmp_path, CONFIG)


def test_weights_that_are_not_finite_do_not_replace_a_checkpoint(tmp_path: Path) -> None:
    made, last = model(), tmp_path / "last.ckpt"
    last.write_text("earlier")
    trainer = SimpleNamespace(lightning_module=made, loggers=[], is_global_zero=True, global_step=7)
    trainer.save_checkpoint = lambda path, **_: path.write_text("later")
    KeepLast(last).on_train_epoch_end(trainer, made)
    assert last.read_text() == "later"
    next(made.parameters()).data.view(-1)[0] = torch.nan
    with pytest.raises(ValueError, match=r"diverged: weights are NaN or infinite at step 7\. .*last\.ckpt is left"):
        KeepLast(last).on_train_epoch_end(trainer, made)
    assert last.read_text() == "later"


def test_the_bar_leaves_out_the_first_step_and_terms_without_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    terms = {"v_num": 1, "total": "0.5", "trimap": "0.000", "oca": "0.5"}
    for name, result in (("on_train_start", None), ("on_train_batch_end", None), ("get_metrics", terms)):
        monkeypatch.setattr(callbacks.TQDMProgressBar, name, lambda *_, result=result: result)
    now = 0.0
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now)
    loop = SimpleNamespace(total_batch_idx=-1)
    trainer = SimpleNamespace(
        fit_loop=SimpleNamespace(epoch_loop=loop), num_training_batches=10, max_epochs=2, num_sanity_val_steps=0
    )
    module, bar = SimpleNamespace(config=Config(ori_weight=0.0)), Progress()
    bar.on_train_start(trainer, module)
    assert bar.get_metrics(trainer, module) == {"total": "0.5", "oca": "0.5"}
    for now, done in ((60.0, 1), (62.0, 2), (64.0, 3)):  # noqa: B007 - the first step compiles
        loop.total_batch_idx = done - 1
        bar.on_train_batch_end(trainer, module, None, None, 0)
    assert bar.get_metrics(trainer, module)["left"] == "0:00:34"  # 17 steps of 2 s


def test_what_training_compiles_is_announced_if_it_takes_long(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    announced = threading.Event()
    monkeypatch.setattr(fitting.log, "info", lambda *_: announced.set())
    slow = SimpleNamespace(device="cpu", method=SimpleNamespace(warm_up=lambda _: announced.wait(60)))
    quick = SimpleNamespace(device="cpu", method=SimpleNamespace(warm_up=lambda _: None))
    fitting._warm_up(quick)
    assert not announced.is_set()
    monkeypatch.setattr(fitting, "_QUIET", 0.0)
    fitting._warm_up(slow)
    assert announced.is_set()


@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_the_transport_kernel_is_compiled_before_training(weight: float, monkeypatch: pytest.MonkeyPatch) -> None:
    made, shapes = model(ori_weight=weight), []
    compute = made.method.objective.ori.forward
    monkeypatch.setattr(
        made.method.objective.ori,
        "forward",
        lambda visual, *rest: shapes.append(visual.shape) or compute(visual, *rest),
    )
    made.method.warm_up(torch.device("cpu"))
    assert shapes == ([torch.Size([1, 1, 2, 2])] if weight else [])
