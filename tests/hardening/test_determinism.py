"""With ``torch.use_deterministic_algorithms(True)`` two runs give the same bits, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from sslosses import ObjectAwareObjective, ORILoss, cluster_objects, identify_objects
from sslosses.transport import available


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.filterwarnings("ignore::sslosses.transport.ConvergenceWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("solver", [name for name, ready in available().items() if ready])
def test_two_runs_are_equal(solver: str, dtype: torch.dtype, batch: Callable[..., Any]) -> None:
    if solver == "geomloss-keops" and dtype == torch.float64:
        pytest.skip("compiles for seconds; float32 shows it")

    def run() -> list[torch.Tensor]:
        epsilon = 0.0 if solver == "exact" else 0.2
        inputs = batch(5, 3, dtype)
        leaves = [x.requires_grad_() for x in inputs[:4]]
        objective = ObjectAwareObjective(trimap_weight=0.5, ori=ORILoss(solver=solver, epsilon=epsilon, max_iter=20))
        loss = objective(*leaves, inputs[4])
        objects = (*identify_objects(leaves[0], leaves[1]), *cluster_objects(leaves[0], leaves[1]))
        return [loss, *torch.autograd.grad(loss, leaves), *objects]

    for first, second in zip(run(), run(), strict=True):
        assert torch.equal(first, second)
