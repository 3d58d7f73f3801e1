"""The warning of the losses that solve transport problems: whether it comes, its reason, and what it advises."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from sslosses import ObjectRegionSeparationLoss, ORILoss, object_region_isolation_loss, object_region_separation_loss
from sslosses.transport import ConvergenceWarning

LOSSES = (ORILoss, ObjectRegionSeparationLoss)


def make(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = (4, 16, 7, 7), (4, 2, 16), (4, 16)
    visual, foreground, background = (torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes)
    return visual, foreground, background


def warning_of(loss: Any, *inputs: Tensor) -> str:
    with pytest.warns(ConvergenceWarning) as caught:
        loss(*inputs)
    return str(caught[0].message)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("filler", [torch.nan, torch.inf])
def test_non_finite_features_are_named_with_their_place(loss: Any, filler: float) -> None:
    visual, foreground, background = make()
    visual[1, 2, 0, 3] = filler
    message = warning_of(loss(), visual, foreground, background)
    assert f"{loss.__name__} got NaN or inf: `visual` holds {filler} at [1, 2, 0, 3]." in message
    assert "max_iter" not in message
    visual, foreground, background = make()
    background[3, 5] = filler
    assert f"`background` holds {filler} at [3, 5]" in warning_of(loss(), visual, foreground, background)


def test_padding_is_not_blamed() -> None:
    visual, foreground, background = make()
    foreground[1, 1] = torch.nan
    foreground[2, 1] = torch.inf
    mask = torch.ones(4, 2, dtype=torch.bool)
    mask[1, 1] = False
    message = warning_of(ORILoss(), visual, foreground, background, mask)
    assert "`foreground` holds inf at [2, 1, 0]" in message
    foreground[2, 1] = 0
    background[0] = torch.nan
    background[3, 5] = torch.inf
    described = torch.tensor([False, True, True, True])
    message = warning_of(ORILoss(), visual, foreground, background, mask, described)
    assert "`background` holds inf at [3, 5]" in message


@pytest.mark.parametrize("solver", ["fused", "dense"])
def test_an_epsilon_that_float32_cannot_resolve_is_named(solver: str) -> None:
    message = warning_of(ORILoss(epsilon=1e-10, solver=solver), *make())
    assert "epsilon (1e-10) is below what float32 resolves" in message
    assert "Pass float64 features, a larger epsilon" in message
    assert "max_iter" not in message


def test_too_few_iterations_are_named() -> None:
    message = warning_of(ORILoss(epsilon=0.01, max_iter=3), *make())
    assert "did not converge within max_iter=3: the marginal error is up to" in message
    assert "tol is 0.01. Raise max_iter or epsilon" in message


@pytest.mark.parametrize("loss", [*LOSSES, lambda: ORILoss(formulation="distribution")])
@pytest.mark.parametrize("channels", [4, 16, 256])
def test_a_first_step_with_the_defaults_does_not_warn(loss: Any, channels: int) -> None:
    generator = torch.Generator().manual_seed(channels)
    shapes = (8, channels, 7, 7), (8, 2, channels), (8, channels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss()(*(torch.randn(shape, generator=generator) for shape in shapes))


@pytest.mark.parametrize(
    ("function", "options", "share"),
    [
        (object_region_isolation_loss, {}, 0.03),
        (object_region_isolation_loss, {"formulation": "distribution"}, 0.08),
        (object_region_separation_loss, {}, 0.06),
    ],
)
def test_the_error_of_the_gradient_with_the_default_tolerance(function: Any, options: Any, share: float) -> None:
    visual, *references = make(torch.float64)
    visual.requires_grad_()
    gradients = [
        torch.autograd.grad(function(visual, *references, **options, **limits).loss, visual)[0]
        for limits in ({}, {"tol": 1e-9, "max_iter": 20_000})
    ]
    assert (gradients[0] - gradients[1]).norm() <= share * gradients[1].norm()
