"""Losses called by several threads at once, and solvers used before a fork."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from sslosses import ObjectAwareObjective, ORILoss
from sslosses.transport import available


def value_and_gradient(inputs: tuple[torch.Tensor, ...], solver: str) -> tuple[torch.Tensor, ...]:
    leaves = [x.clone().requires_grad_() for x in inputs[:4]]
    loss = ObjectAwareObjective(trimap_weight=0.5, ori=ORILoss(solver=solver, tol=1e-4, max_iter=1000))
    total = loss(*leaves, inputs[4])
    return total.detach(), *torch.autograd.grad(total, leaves)


@pytest.mark.parametrize("solver", ["fused", "dense", "pot", "geomloss"])
def test_several_threads_get_the_results_of_one(solver: str, batch: Callable[..., Any]) -> None:
    inputs = [batch(samples) for samples in (2, 3, 4, 5)]
    expected = [value_and_gradient(each, solver) for each in inputs]
    results: list[Any] = [None] * 4
    barrier = threading.Barrier(4)

    def work(i: int) -> None:
        barrier.wait(timeout=60)
        results[i] = value_and_gradient(inputs[i], solver)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    for result, wanted in zip(results, expected, strict=True):
        assert all(map(torch.equal, result, wanted))


WORKERS = """
import sys, warnings
warnings.simplefilter("ignore")
import torch
from torch.utils.data import DataLoader, Dataset
from sslosses.transport import grid_positions, pointcloud_cost, solve

torch.manual_seed(0)
torch.set_num_threads(2)
one, two, at = torch.rand(64, 49), torch.rand(64, 49), grid_positions(7, 7)

def value(rows):
    cost = pointcloud_cost(one[rows], two[rows], at, at)
    return solve(cost, epsilon=0.0 if name == "exact" else 0.1, solver=name, tol=1e-2).value()

class Values(Dataset):
    def __len__(self):
        return 2
    def __getitem__(self, i):
        return value(slice(32 * i, 32 * i + 32))

for name in sys.argv[1:]:
    before = value(slice(0, 64))
    loader = DataLoader(Values(), batch_size=None, num_workers=1, multiprocessing_context="fork", timeout=60)
    print(name, torch.allclose(torch.cat(list(loader)), before, atol=1e-5))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_data_loader_forks_after_use() -> None:
    """Solvers that start threads. The time limit of the loader turns a hang into an error."""
    solvers = [name for name in ("fused", "dense", "exact", "geomloss-keops") if available()[name]]
    command = [sys.executable, "-c", WORKERS, *solvers]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "KeOps" not in line]
    assert lines == [f"{name} True" for name in solvers]
