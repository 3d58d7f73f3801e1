"""The library leaves torch's precision settings alone, and computes nothing in TF32 that needs more digits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import torch

from sslosses import ObjectAwareObjective, _torch
from sslosses.metrics import center_surround_saliency
from sslosses.metrics._pipeline.targets import MaskTargets
from sslosses.metrics.functional import resize_bicubic
from sslosses.transport import adjoint, solve


@pytest.fixture(params=["highest", "high"])
def precision(request: pytest.FixtureRequest) -> Iterator[str]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision(before)


def test_settings_stay_as_they_are(precision: str) -> None:
    visual = torch.randn(2, 8, 4, 4, requires_grad=True)
    objective = ObjectAwareObjective(oca_weight=1.0, ori_weight=0.1)
    objective(visual, torch.randn(2, 8), torch.randn(2, 2, 8), torch.randn(2, 8)).backward()
    for solver in ("dense", "pot", "pot-batch", "geomloss", "exact"):
        solve(torch.rand(2, 3, 3), epsilon=0.0 if solver == "exact" else 0.5, solver=solver)
    assert torch.get_float32_matmul_precision() == precision
    assert torch.backends.cuda.matmul.allow_tf32 == (precision == "high")


@pytest.mark.parametrize(
    ("is_cuda", "dtype", "allowed", "rounds"),
    [
        (True, torch.float32, True, True),
        (True, torch.float32, False, False),
        (True, torch.float64, True, False),
        (False, torch.float32, True, False),
    ],
)
def test_products_are_rounded_on_a_gpu_where_the_program_allows_it(is_cuda, dtype, allowed, rounds) -> None:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        assert _torch.rounds_to_tf32(SimpleNamespace(is_cuda=is_cuda, dtype=dtype)) is rounds
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def gradient(cost: torch.Tensor) -> torch.Tensor:
    cost = cost.clone().requires_grad_()
    solve(cost, epsilon=0.1, solver="dense").value().sum().backward()
    assert cost.grad is not None
    return cost.grad


def fractional_overlap(frames: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Sums of marks times fractional truths, of one frame for all sources or of one frame per source."""

    def overlap(truths: torch.Tensor) -> torch.Tensor:
        marks = (torch.arange(frames * 12) % 3 == 0).view(1, 1, frames, 3, 4)
        return MaskTargets(truths).sums(marks)["inter"].float()

    return overlap


# No CPU has TF32, so the operands are looked at.
@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (gradient, (2, 4, 5)),
        (lambda maps: resize_bicubic(maps, (5, 7)), (2, 3, 4)),
        (center_surround_saliency, (1, 3, 8, 8)),
        (fractional_overlap(1), (1, 2, 3, 4)),
        (fractional_overlap(2), (1, 2, 3, 4)),
    ],
)
def test_where_products_would_be_rounded_they_are_computed_in_float64(function, shape, monkeypatch) -> None:
    value = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    expected = function(value)
    products = []
    matmul = torch.matmul

    def record(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        products.append((a.dtype, b.dtype))
        return matmul(a, b)

    for module in (_torch, adjoint):
        monkeypatch.setattr(module, "rounds_to_tf32", lambda _: True)
    monkeypatch.setattr(torch, "matmul", record)
    monkeypatch.setattr(torch.Tensor, "__matmul__", record)
    result = function(value)
    assert products
    assert set(products) == {(torch.float64, torch.float64)}
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)
