"""Several processes: together they take the steps of one with the whole batch, and the command runs with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from avsl.config import Config
from avsl.data.loading import SceneBatch
from avsl.model.localizer import Localizer
from torch import nn

import sslosses

from ... import processes
from ..conftest import TINY

processes.preload(__name__)

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parents[3] / "examples"
CONFIG = Config(**TINY, trimap_weight=1.0, precision="64-true", mirror=False)
SAMPLES = 32


def build() -> Localizer:
    """Without a GPU, batch statistics are those of each process alone, so they are fixed here."""
    torch.manual_seed(0)
    model = Localizer(CONFIG.as_dict(), 10)
    model.method.text.fit(torch.randn(30, 10), 1.0)
    model.double().train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    model.log_dict = lambda *_, **__: None
    return model


def batch() -> SceneBatch:
    generator = torch.Generator().manual_seed(1)
    return SceneBatch(
        torch.randint(256, (SAMPLES, 3, 64, 64), dtype=torch.uint8, generator=generator),
        0.1 * torch.randn(SAMPLES, 48_000, generator=generator),
        torch.randn(SAMPLES, 2, 10, generator=generator).double(),
        torch.randn(SAMPLES, 10, generator=generator).double(),
        torch.tensor([[True, True], [True, False]]).repeat(SAMPLES // 2, 1),
        torch.arange(SAMPLES) % 3 > 0,
        torch.tensor([[0, 1], [1, -1]]).repeat(SAMPLES // 2, 1),
        torch.arange(SAMPLES)[:, None],
    )


class _Step(nn.Module):
    """What Lightning wraps: forward is the training step."""

    def __init__(self, model: Localizer) -> None:
        super().__init__()
        self.model = model

    def forward(self, part: SceneBatch) -> torch.Tensor:
        return self.model.training_step(part, 0)


def _worker(rank: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    step = nn.parallel.DistributedDataParallel(_Step(build()))
    part = SceneBatch(*(value[rank::2] for value in batch()))
    loss = step(part)
    loss.backward()
    mean = loss.detach() / 2
    torch.distributed.all_reduce(mean)
    return mean, [p.grad for p in step.module.model.parameters()]


@pytest.mark.filterwarnings("ignore")
def test_two_processes_with_half_of_the_batch_each() -> None:
    model = build()
    loss = model.training_step(batch(), 0)
    loss.backward()
    for mean, gradients in processes.run_group(_worker):
        torch.testing.assert_close(mean, loss.detach(), rtol=1e-6, atol=0)
        for ours, theirs in zip(gradients, model.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs.grad, rtol=1e-6, atol=1e-9)


LAUNCHERS = {"lightning": [], "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]}
SMALL = "--quick --train-scenes 16 --test-scenes 4 --batch-size 4 --epochs 2"
TWO = "--accelerator cpu --devices 2 --subsets single duet"


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_command_with_two_processes(tmp_path: Path, launcher: str) -> None:
    line = [*SMALL.split(), *TWO.split(), "--runs", str(tmp_path / "runs"), "--data", str(tmp_path / "data")]
    command = [sys.executable, *LAUNCHERS[launcher], str(SCRIPTS / "train_vggsound.py"), *line]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(sslosses.__file__).parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    rows = json.loads((folder / "metrics.json").read_text())["percent"]
    assert {"single AP", "duet CAP"} <= set(rows["trained"])
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 2 * (16 // 8 + 16 // 8)  # two epochs, two pools, eight scenes a step
    assert done.stdout.count("centered") == 1  # one process reports
