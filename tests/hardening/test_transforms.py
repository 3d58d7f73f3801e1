"""vmap, torch.func and second derivatives: correct, or an error that names an alternative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from sslosses import (
    ObjectAwareObjective,
    cluster_objects,
    cosine,
    cross_similarity_map,
    foreground_mask,
    hard_mask,
    identify_objects,
    masked_pool,
    object_aware_contrastive_loss,
    object_region_isolation_loss,
    object_region_separation_loss,
    similarity_map,
    straight_through_mask,
    trimap_contrastive_loss,
)
from sslosses.transport import solve


def features(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


VISUAL, AUDIO, FOREGROUND, BACKGROUND = (
    features(2, 3, 5, 3, 4),
    features(2, 3, 5),
    features(2, 3, 2, 5),
    features(2, 3, 5),
)
MAPPED: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "cosine": (cosine, (AUDIO, BACKGROUND)),
    "similarity_map": (similarity_map, (VISUAL, AUDIO)),
    "cross_similarity_map": (cross_similarity_map, (VISUAL, AUDIO)),
    "foreground_mask": (foreground_mask, (VISUAL,)),
    "hard_mask": (lambda x: hard_mask(x, area=0.3), (VISUAL,)),
    "straight_through_mask": (lambda x: straight_through_mask(x, area=0.3), (VISUAL,)),
    "masked_pool": (lambda x, s: masked_pool(x, s, alpha=0.3), (VISUAL, VISUAL[:, :, 0])),
    "oca": (
        lambda *x: object_aware_contrastive_loss(*x, reduction="none").loss,
        (VISUAL, AUDIO, FOREGROUND, BACKGROUND),
    ),
    "trimap": (lambda *x: trimap_contrastive_loss(*x, reduction="none").loss, (VISUAL, AUDIO)),
}


@pytest.mark.parametrize("name", MAPPED)
def test_vmap_is_a_loop(name: str) -> None:
    function, inputs = MAPPED[name]
    expected = torch.stack([function(*(x[i] for x in inputs)) for i in range(2)])
    torch.testing.assert_close(vmap(function)(*inputs), expected)


@pytest.mark.parametrize(
    ("function", "inputs"),
    [
        (lambda v, a: identify_objects(v, a).maps, (VISUAL, AUDIO)),
        (lambda v, a: cluster_objects(v, a).maps, (VISUAL, AUDIO)),
        (lambda *x: object_region_isolation_loss(*x).loss, (VISUAL, FOREGROUND, BACKGROUND)),
        (lambda c: solve(c, solver="dense").value(), (VISUAL,)),
        (lambda c: solve(c, gradient="unrolled").value(), (VISUAL,)),
    ],
)
def test_what_iterates_refuses_vmap(function: Callable[..., Any], inputs: tuple[Tensor, ...]) -> None:
    with pytest.raises(ValueError, match=r"Expected `(visual|cost)` .* got one inside torch.vmap.* batch dimensions"):
        vmap(function)(*inputs)


def test_gradients_of_torch_func() -> None:
    inputs = tuple(x[0] for x in (VISUAL, AUDIO, FOREGROUND, BACKGROUND))
    leaf = inputs[0].clone().requires_grad_()
    object_aware_contrastive_loss(leaf, *inputs[1:]).loss.backward()
    gradient = grad(lambda x: object_aware_contrastive_loss(x, *inputs[1:]).loss)(inputs[0])
    torch.testing.assert_close(gradient, leaf.grad)

    def value(cost: Tensor, gradient: str) -> Tensor:
        return solve(cost, epsilon=0.5, tol=1e-12, max_iter=500, solver="dense", gradient=gradient).value().sum()

    cost = inputs[0][0].clone().requires_grad_()
    value(cost, "exact").backward()
    torch.testing.assert_close(grad(lambda x: value(x, "unrolled"))(cost.detach()), cost.grad, atol=1e-8, rtol=0)
    with pytest.raises(ValueError, match=r"`cost` .* got one inside torch.func.grad .* gradient='unrolled'"):
        grad(lambda x: value(x, "exact"))(cost.detach())
    with pytest.raises(ValueError, match=r"`visual` .* got one inside torch.func.grad"):
        grad(lambda x: object_region_isolation_loss(x, *inputs[2:]).loss)(inputs[0])


@pytest.mark.filterwarnings("ignore::sslosses.transport.ConvergenceWarning")
def test_functional_call() -> None:
    """A model that contains its loss, called with other weights than its own."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Conv2d(5, 5, 1, dtype=torch.float64)
            self.loss = ObjectAwareObjective(trimap_weight=0.5)

        def forward(self, visual: Tensor, *others: Tensor) -> Tensor:
            result: Tensor = self.loss(self.encoder(visual), *others)
            return result

    torch.manual_seed(0)
    model, other = Model(), Model()
    inputs = tuple(x[0] for x in (VISUAL, AUDIO, FOREGROUND, BACKGROUND))
    expected = other(*inputs)
    assert expected != model(*inputs)
    assert functional_call(model, dict(other.named_parameters()), inputs) == expected


SMALL = (features(2, 3, 2, 2), features(2, 3), features(2, 1, 3), features(3, 3)[:2])
TWICE: dict[str, Callable[..., Tensor]] = {
    "oca": lambda *x: object_aware_contrastive_loss(*x, omega=0.3).loss,
    "trimap": lambda v, a, *_: trimap_contrastive_loss(v, a, omega=0.3, temperature=1.0).loss,
    "ori, unrolled": lambda v, _, *x: (
        object_region_isolation_loss(v, *x, solver="dense", gradient="unrolled", epsilon=0.5, max_iter=3).loss
    ),
}


@pytest.mark.parametrize("name", TWICE)
def test_second_derivatives(name: str) -> None:
    inputs = [x.clone().requires_grad_() for x in SMALL]
    assert torch.autograd.gradgradcheck(TWICE[name], inputs, fast_mode=True)


@pytest.mark.parametrize("name", TWICE)
def test_a_pixel_of_zeros_has_no_second_derivative_of_nan(name: str) -> None:
    """Rectifiers produce many such pixels. Their cosine is 0 with a gradient of 0."""
    inputs = [x.clone() for x in SMALL]
    inputs[0][0, :, 0, 0] = 0
    visual = inputs[0].requires_grad_()
    (first,) = torch.autograd.grad(TWICE[name](*inputs), visual, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), visual)
    assert second.isfinite().all()
    assert second.any()


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (object_region_isolation_loss, {}),
        (object_region_isolation_loss, {"solver": "dense"}),
        (object_region_separation_loss, {}),
        (object_region_isolation_loss, {"epsilon": 0.0}),
        (object_region_isolation_loss, {"kind": "regularized"}),
        (object_region_isolation_loss, {"gradient": "envelope"}),
    ],
)
def test_a_second_derivative_is_refused_where_it_would_be_wrong(
    function: Callable[..., Any], options: dict[str, Any]
) -> None:
    visual = SMALL[0].clone().requires_grad_()
    loss = function(visual, *SMALL[2:], **options).loss
    with pytest.raises(RuntimeError, match=r'no second derivative\. Use gradient="unrolled" with the dense solver'):
        torch.autograd.grad(loss, visual, create_graph=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own
def test_forward_mode_is_refused_by_name() -> None:
    with torch.autograd.forward_ad.dual_level():
        cost = torch.autograd.forward_ad.make_dual(VISUAL[0, 0, 0], VISUAL[1, 0, 0])
        with pytest.raises(ValueError, match=r"`cost` .* got one inside forward-mode differentiation"):
            solve(cost, epsilon=0.5).value()
