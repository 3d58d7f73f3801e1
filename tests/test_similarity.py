"""Cosine maps: equal to the equation; all scales of features, zero vectors and gradients."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sslosses.similarity import cosine, cross_similarity_map, similarity_map, unit


def loop_map(features: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Eq. 1 of one sample, pixel by pixel: (C, H, W), (C,) -> (H, W)."""
    channels, height, width = features.shape
    result = torch.zeros(height, width, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            dot = sum(float(features[c, y, x]) * float(vectors[c]) for c in range(channels))
            first = math.sqrt(sum(float(features[c, y, x]) ** 2 for c in range(channels)))
            second = math.sqrt(sum(float(vectors[c]) ** 2 for c in range(channels)))
            result[y, x] = dot / (first * second)
    return result


def test_maps_equal_the_loop() -> None:
    torch.manual_seed(0)
    features, vectors = torch.randn(2, 5, 3, 4).double(), torch.randn(2, 3, 5).double()
    several, one, cross = (
        similarity_map(features, vectors),
        similarity_map(features, vectors[:, 1]),
        cross_similarity_map(features, vectors[0]),
    )
    for b in range(2):
        torch.testing.assert_close(one[b], loop_map(features[b], vectors[b, 1]), atol=1e-12, rtol=0)
        for k in range(3):
            torch.testing.assert_close(several[b, k], loop_map(features[b], vectors[b, k]), atol=1e-12, rtol=0)
            torch.testing.assert_close(cross[b, k], loop_map(features[b], vectors[0, k]), atol=1e-12, rtol=0)


@settings(deadline=None, max_examples=30)
@given(first=st.floats(-30, 30), second=st.floats(-30, 30), seed=st.integers(0, 1000))
def test_positive_scale_does_not_matter(first: float, second: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features, vectors = torch.randn(2, 6, 3, 3, generator=generator), torch.randn(2, 6, generator=generator)
    expected = similarity_map(features, vectors)
    actual = similarity_map(features * 10**first, vectors * 10**second)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1.0, 1e30])
def test_gradient_shrinks_as_the_scale_grows(scale: float) -> None:
    torch.manual_seed(0)
    value, other = torch.randn(1, 6, 1, 1), torch.randn(1, 6)
    expected = value.double().requires_grad_()
    similarity_map(expected, other.double()).sum().backward()
    scaled = (value * scale).requires_grad_()
    similarity_map(scaled, other).sum().backward()
    assert expected.grad is not None
    assert scaled.grad is not None
    torch.testing.assert_close(scaled.grad.double() * scale, expected.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-45, 1e-40, 1e-36, 1e-34, 1e37, 3.4e38])
def test_every_finite_length_has_a_finite_value_and_gradient(scale: float) -> None:
    """Below 1e-35, where the gradient would overflow, a vector counts as zero."""
    torch.manual_seed(0)
    signs, other = torch.randn(1, 6, 2, 2).sign(), torch.randn(1, 6)
    features, vectors = (signs * scale).requires_grad_(), (signs[:, :, 0, 0] * scale).requires_grad_()
    maps, cosines = similarity_map(features, other), cosine(vectors, other)
    short = scale < 1e-35
    torch.testing.assert_close(maps, similarity_map(signs, other) * (not short))
    torch.testing.assert_close(cosines, cosine(signs[:, :, 0, 0], other) * (not short))
    for gradient in torch.autograd.grad(maps.sum() + cosines.sum(), (features, vectors)):
        assert gradient.isfinite().all()
        assert not short or not gradient.any()


def test_zero_vectors_give_zero_and_no_gradient() -> None:
    features = torch.randn(1, 4, 2, 2)
    features[:, :, 0, 0] = 0
    features.requires_grad_()
    vectors = torch.cat([torch.zeros(1, 1, 4), torch.randn(1, 1, 4)], 1).requires_grad_()
    maps = similarity_map(features, vectors)
    maps.sum().backward()
    assert features.grad is not None
    assert vectors.grad is not None
    assert (maps[:, 0] == 0).all()
    assert (maps[:, 1, 0, 0] == 0).all()
    assert (features.grad[:, :, 0, 0] == 0).all()
    assert (vectors.grad[:, 0] == 0).all()
    assert torch.isfinite(features.grad).all()
    assert features.grad.any()


def test_gradcheck() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    vectors = torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(similarity_map, (features, vectors))
    assert torch.autograd.gradcheck(cross_similarity_map, (features, vectors[0].detach().requires_grad_()))


def test_cosine_and_unit() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(3, 5).double(), torch.randn(3, 5).double()
    expected = torch.nn.functional.cosine_similarity(first, second, dim=-1)
    torch.testing.assert_close(cosine(first, second), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(unit(first, 0).norm(dim=0), torch.ones(5).double(), atol=1e-12, rtol=0)


def test_layout_and_empty_batches() -> None:
    torch.manual_seed(0)
    features, vectors = torch.randn(3, 4, 5, 6).permute(3, 2, 0, 1), torch.randn(5, 6).T
    assert not features.is_contiguous()
    expected = similarity_map(features.contiguous(), vectors.contiguous())
    torch.testing.assert_close(similarity_map(features, vectors), expected, atol=1e-6, rtol=0)
    assert similarity_map(torch.zeros(0, 4, 2, 3), torch.zeros(0, 4)).shape == (0, 2, 3)
    assert similarity_map(torch.zeros(0, 4, 2, 3), torch.zeros(0, 5, 4)).shape == (0, 5, 2, 3)
    assert similarity_map(torch.zeros(2, 4, 2, 3), torch.zeros(2, 0, 4)).shape == (2, 0, 2, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_computes_in_at_least_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    features, vectors = torch.randn(2, 64, 2, 2).to(dtype), torch.randn(2, 64).to(dtype)
    expected = similarity_map(features.double(), vectors.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = similarity_map(features, vectors)
        both = cross_similarity_map(features, vectors), cosine(vectors, vectors)
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    assert {actual.dtype, both[0].dtype, both[1].dtype} == {wanted}
    torch.testing.assert_close(actual.double(), expected, atol=1e-6, rtol=0)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"Expected `vectors` to have shape \(B, C\) with B = 2"):
        similarity_map(torch.zeros(2, 4, 2, 2), torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"Expected `features` to have shape \(B, C, H, W\)"):
        similarity_map(torch.zeros(2, 4, 2), torch.zeros(2, 4))
    with pytest.raises(TypeError, match="`features` to have a floating dtype"):
        similarity_map(torch.zeros(2, 4, 2, 2, dtype=torch.int64), torch.zeros(2, 4))
    with pytest.raises(TypeError, match="`first` to be a tensor"):
        cosine([1.0], torch.zeros(1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`vectors` to have shape \(G, C\)"):
        cross_similarity_map(torch.zeros(2, 4, 2, 2), torch.zeros(2, 2, 4))
