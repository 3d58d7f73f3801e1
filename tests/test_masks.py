"""Masks equal the equations; pooling works at every similarity."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sslosses.masks import (
    background_mask,
    foreground_mask,
    hard_mask,
    mask_weights,
    masked_pool,
    straight_through_mask,
    trimap_masks,
)

LEVELS = [-1.0, -0.9, -0.5, 0.0, 0.1, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0]
HALF = [torch.float32, torch.bfloat16, torch.float16]


def loop_pool(features: torch.Tensor, similarity: torch.Tensor, alpha: float, foreground: bool) -> torch.Tensor:
    """Eqs. 2 and 3 of one sample, pixel by pixel."""
    channels, height, width = features.shape
    pooled = torch.zeros(channels, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            mask = 1 / (1 + math.exp(-(float(similarity[y, x]) - alpha) / 0.03))
            pooled += features[:, y, x].double() * (mask if foreground else 1 - mask) / (height * width)
    return pooled


def test_soft_masks_equal_the_equations() -> None:
    levels = torch.tensor([LEVELS], dtype=torch.float64)
    for level, p, n in zip(LEVELS, foreground_mask(levels)[0], background_mask(levels)[0], strict=True):
        assert float(p) == pytest.approx(1 / (1 + math.exp(-(level - 0.65) / 0.03)), rel=1e-12)
        assert float(n) == pytest.approx(1 - 1 / (1 + math.exp(-(level - 0.4) / 0.03)), abs=1e-15)


@pytest.mark.parametrize(("foreground", "alpha"), [(True, 0.65), (False, 0.4)])
def test_pooling_has_the_direction_of_the_equation(foreground: bool, alpha: float) -> None:
    torch.manual_seed(0)
    features, similarity = torch.randn(2, 5, 3, 4).double(), torch.rand(2, 3, 4).double() * 1.2 - 0.2
    pooled = masked_pool(features, similarity, alpha=alpha, foreground=foreground)
    for b in range(2):
        expected = loop_pool(features[b], similarity[b], alpha, foreground)
        torch.testing.assert_close(pooled[b] / pooled[b].norm(), expected / expected.norm(), atol=1e-10, rtol=0)


def test_pooling_is_a_weighted_mean() -> None:
    similarity = torch.tensor([[[-1.0, -1.0, 0.7]]])
    weights = mask_weights(similarity, alpha=0.65)
    assert weights.sum() == pytest.approx(1)
    assert torch.equal(masked_pool(torch.ones(1, 3, 1, 3), similarity, alpha=0.65), torch.ones(1, 3))


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("foreground", [True, False])
def test_every_constant_map_pools_with_gradient(level: float, dtype: torch.dtype, foreground: bool) -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 4, 3, 3).to(dtype).requires_grad_()
    similarity = torch.full((2, 3, 3), level).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        pooled = masked_pool(features, similarity, alpha=0.65 if foreground else 0.4, foreground=foreground)
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, features.float().mean((2, 3)), atol=1e-6, rtol=1e-5)
    (pooled * torch.tensor([1.0, -2.0, 3.0, 0.5])).sum().backward()
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()
    assert (features.grad != 0).all()
    # The slope of log M^n at -1 is 5e-21 and that of log M^p at 1 is 9e-6: no input in float16 can hold the first.
    assert similarity.grad is not None
    assert torch.isfinite(similarity.grad).all()
    if not (dtype == torch.float16 and not foreground and level <= 0):
        assert similarity.grad.any()


@pytest.mark.parametrize("foreground", [True, False])
def test_a_mask_that_underflows_still_weighs(foreground: bool) -> None:
    """exp(-165) is 0 in float32; the weights and their gradient are those of float64."""
    level = -1.0 if foreground else 1.0
    similarity = torch.tensor([[level, level * 0.999]], requires_grad=True)
    wide = similarity.detach().double().requires_grad_()
    results = []
    for values in (similarity, wide):
        weights = mask_weights(values, alpha=-level * 0.65, omega=0.01, foreground=foreground)
        results.append((weights, *torch.autograd.grad(weights[0, 0], values)))
    for narrow, exact in zip(*results, strict=True):
        assert exact.any()
        torch.testing.assert_close(narrow.double(), exact, atol=0, rtol=1e-3)


@settings(deadline=None, max_examples=40)
@given(values=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=9), foreground=st.booleans())
def test_weights_are_finite_and_sum_to_one(values: list[float], foreground: bool) -> None:
    similarity = torch.tensor([values], requires_grad=True)
    weights = mask_weights(similarity, alpha=0.5, foreground=foreground)
    assert (weights >= 0).all()
    assert float(weights.detach().sum()) == pytest.approx(1, abs=1e-5)
    (gradient,) = torch.autograd.grad((weights * torch.arange(len(values))).sum(), similarity)
    assert torch.isfinite(gradient).all()


def test_pooling_gradcheck() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    similarity = (torch.rand(2, 2, 2, dtype=torch.float64) * 0.2 + 0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda f, s: masked_pool(f, s, alpha=0.6), (features, similarity))


def test_trimap_shares_sum_to_one() -> None:
    levels = torch.linspace(-1, 1, 401)[None]
    masks = trimap_masks(levels)
    torch.testing.assert_close(sum(masks), torch.ones_like(levels))
    assert all((mask >= 0).all() for mask in masks)
    assert torch.equal(masks.positive, foreground_mask(levels))
    assert torch.equal(masks.negative, background_mask(levels))
    assert masks.ignore[0, levels[0].sub(0.525).abs().argmin()] > 0.9
    with pytest.raises(ValueError, match=r"`alpha_foreground` to be a finite number and >= 0\.4"):
        trimap_masks(levels, alpha_foreground=0.3)


def test_hard_masks() -> None:
    values = torch.tensor([[[0.1, 0.5], [0.9, 0.3]], [[0.2, 0.2], [0.2, 0.2]]])
    assert hard_mask(values, threshold=0.5).tolist() == [[[False, True], [True, False]], [[False] * 2] * 2]
    for area, count in ((0.25, 1), (0.5, 2), (0.01, 1), (1, 4)):
        kept = hard_mask(values, area=area)
        assert kept.dtype == torch.bool
        assert kept.sum((1, 2)).tolist() == [count, count]
    assert hard_mask(values, area=0.5)[0].tolist() == [[False, True], [True, False]]
    assert hard_mask(torch.zeros(0, 2, 2), area=0.5).shape == (0, 2, 2)
    for options in ({}, {"threshold": 0.1, "area": 0.1}):
        with pytest.raises(ValueError, match="one of `threshold` and `area`"):
            hard_mask(values, **options)
    with pytest.raises(ValueError, match="`area` to be a finite number and > 0 and <= 1"):
        hard_mask(values, area=0.0)


@pytest.mark.parametrize("options", [{"threshold": 0.45}, {"area": 0.3}])
def test_straight_through_is_hard_forward_and_soft_backward(options: dict[str, float]) -> None:
    torch.manual_seed(0)
    values = torch.rand(2, 3, 4, requires_grad=True)
    mask = straight_through_mask(values, omega=0.1, **options)
    hard = hard_mask(values, **options)
    assert torch.equal(mask, hard.float())
    (actual,) = torch.autograd.grad((mask * torch.arange(4)).sum(), values)
    step = 0.45 if "threshold" in options else values.detach().where(hard, torch.inf).amin((1, 2), keepdim=True)
    soft = torch.sigmoid((values - step) / 0.1)
    (expected,) = torch.autograd.grad((soft * torch.arange(4)).sum(), values)
    torch.testing.assert_close(actual, expected)
    assert actual.any()


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="`omega` to be a finite number and > 0"):
        foreground_mask(torch.zeros(1, 1), omega=0.0)
    with pytest.raises(TypeError, match="`alpha`"):
        background_mask(torch.zeros(1, 1), alpha="high")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`similarity` to have shape \(B, H, W\) with W = 2"):
        masked_pool(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 3), alpha=0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("foreground", [True, False])
def test_the_mean_of_the_largest_finite_features_is_finite(foreground: bool, dtype: torch.dtype) -> None:
    """The weights of 5 × 5 equal pixels add up to a little more than 1."""
    for size in range(1, 12):
        features = torch.full((1, 2, size, size), torch.finfo(dtype).max, dtype=dtype)
        features[:, 1] *= -1
        features.requires_grad_()
        pooled = masked_pool(features, torch.zeros(1, size, size), alpha=0.65, foreground=foreground)
        torch.testing.assert_close(pooled[0], features[0, :, 0, 0].to(pooled.dtype))
        (gradient,) = torch.autograd.grad(pooled.sum(), features)
        torch.testing.assert_close(gradient, torch.full_like(gradient, 1 / size**2))
