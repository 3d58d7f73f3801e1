"""Cosines and pools in few passes: the same digits at every scale, derivatives, layouts, and the operator."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sslosses import _passes
from sslosses._passes import pixel_cosines, pool_by_first_map, unit, weighted_sums
from sslosses.losses._inputs import finite_samples, zero_unless

MASKS = (0.5, 0.2, 0.3)


def normal(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def channels_last(features: Tensor) -> Tensor:
    return features.mT.contiguous().mT


def pool(features: Tensor, vectors: Tensor) -> tuple[Tensor, ...]:
    return pool_by_first_map(features, unit(vectors, -1), *MASKS)


FEATURES, VECTORS, WEIGHTS = normal(2, 3, 4), normal(2, 2, 3, seed=1), normal(2, 2, 4, seed=2)
FUNCTIONS: dict[str, tuple[Callable[..., object], tuple[Tensor, ...]]] = {
    "unit": (lambda x: unit(x, 1), (FEATURES,)),
    "cosines": (pixel_cosines, (FEATURES, VECTORS)),
    "cosines, shared vectors": (pixel_cosines, (FEATURES, VECTORS[0])),
    "sums": (weighted_sums, (FEATURES, WEIGHTS)),
    "pool": (pool, (FEATURES, VECTORS)),
}


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_first_and_second_derivatives(name: str, last: bool) -> None:
    function, inputs = FUNCTIONS[name]
    inputs = tuple(x.clone() for x in inputs)
    features = channels_last(inputs[0]) if last else inputs[0]
    for x in (features, *inputs[1:]):
        x.requires_grad_()
    assert torch.autograd.gradcheck(function, (features, *inputs[1:]))
    assert torch.autograd.gradgradcheck(function, (features, *inputs[1:]), fast_mode=True)
    # The first derivative is the same whether a second one follows or not.
    total = weighted_total(function(features, *inputs[1:]))
    gradients = [torch.autograd.grad(total, (features, *inputs[1:]), create_graph=x) for x in (True, False)]
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, atol=1e-12, rtol=0)
    # With one input that needs a gradient, too.
    for i in range(len(inputs)):
        one = tuple(x.detach().requires_grad_(i == j) for j, x in enumerate((features, *inputs[1:])))
        assert torch.autograd.gradcheck(function, one, fast_mode=True)


@pytest.mark.parametrize("name", ["unit", "cosines", "pool"])
def test_squares_that_do_not_fit_change_no_digit(name: str) -> None:
    """A vector is then divided by a power of two, so a sample does not depend on the others of its batch."""
    function, inputs = FUNCTIONS[name]
    inputs = tuple(x.float() for x in inputs)
    expected, gradient = graded(function, inputs)
    for power in (-90, -72, 90):  # at -72, squares are subnormal
        scaled, of_scaled = graded(function, (inputs[0] * 2.0**power, *inputs[1:]))
        factor = 2.0**power if name == "pool" else 1.0  # means grow with the features
        assert torch.equal(scaled[-1], expected[-1] * factor)
        if name != "pool":
            assert torch.equal(of_scaled, gradient * 2.0**-power)
        else:
            torch.testing.assert_close(of_scaled, gradient)
    beside = torch.cat([inputs[0][:1], inputs[0][1:] * 0])
    assert torch.equal(graded(function, (beside, *inputs[1:]))[0][-1][0], expected[-1][0])


def weighted_total(result: object) -> Tensor:
    parts = result if isinstance(result, tuple) else (result,)
    return torch.stack([(x * torch.arange(x.numel()).view_as(x)).sum() for x in parts]).sum()


def graded(function: Callable[..., object], inputs: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
    """Results, and the gradient of the last one's weighted sum."""
    features = inputs[0].clone().requires_grad_()
    result = function(features, *inputs[1:])
    results = result if isinstance(result, tuple) else (result,)
    last = results[-1]
    (gradient,) = torch.autograd.grad((last * torch.arange(last.numel()).view_as(last)).sum(), features)
    return tuple(x.detach() for x in results), gradient


@pytest.mark.parametrize("name", ["cosines", "sums", "pool"])
def test_gradients_have_the_layout_of_the_features(name: str) -> None:
    function, inputs = FUNCTIONS[name]
    for features in (inputs[0], channels_last(inputs[0])):
        assert graded(function, (features, *inputs[1:]))[1].stride() == features.stride()


def test_large_features_are_squared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    features = normal(5, 3, 4)
    whole = pixel_cosines(features, VECTORS[0])
    monkeypatch.setattr(_passes, "_CACHED", 25)
    assert torch.equal(pixel_cosines(features, VECTORS[0]), whole)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("power", [0, 90])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own
def test_the_operator_of_compiled_graphs(power: int, last: bool) -> None:
    features = FEATURES.float() * 2.0**power
    features = channels_last(features) if last else features
    leaves = [features.clone().requires_grad_(), unit(VECTORS.float(), -1).requires_grad_()]
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(_passes._pool_forward_op, (*leaves, *MASKS), test_utils=checks)
    results = [_passes._pool_forward_op(*leaves, *MASKS)[:2], pool_by_first_map(*leaves, *MASKS)]
    gradients = [torch.autograd.grad(x.sum() + y.square().sum() * 4.0**-power, leaves) for x, y in results]
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)
    for first, second in zip(*gradients, strict=True):
        assert torch.equal(first, second)
    saved = _passes._pool_forward_op(*(x.detach() for x in leaves), *MASKS)
    rows = (*(torch.ones_like(x) for x in saved[:2]), *(x.detach() for x in leaves), saved[0], *saved[2:])
    torch.library.opcheck(_passes._pool_backward_op, (0.3, True, *rows), test_utils=checks[:2])


def test_finite_samples_and_their_values() -> None:
    largest = torch.full((3, 4), torch.finfo(torch.float32).max)  # sums overflow
    assert finite_samples(largest).all()
    values = largest.clone()
    values[1, 2], values[2, :2] = torch.nan, torch.tensor([torch.inf, -torch.inf])
    assert finite_samples(values).tolist() == [True, False, False]
    assert zero_unless(finite_samples(largest), largest) is largest
    assert torch.equal(zero_unless(finite_samples(values), values), largest * torch.tensor([[1.0], [0], [0]]))
