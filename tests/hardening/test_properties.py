"""Random sizes, scales, masks, τ and ε: losses and gradients are finite, and the reductions agree."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sslosses import ObjectAwareObjective, OCALoss, ORILoss, TriMapContrastiveLoss


@pytest.mark.filterwarnings("ignore::sslosses.transport.ConvergenceWarning")
@settings(deadline=None, max_examples=30)
@given(
    sizes=st.tuples(*(st.integers(low, 4) for low in (0, 0, 1, 1, 1))),
    exponent=st.integers(-25, 25),
    tau=st.floats(-1, 1),
    epsilon=st.floats(1e-4, 10),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 1000),
)
def test_any_batch(
    sizes: tuple[int, ...], exponent: int, tau: float, epsilon: float, dtype: torch.dtype, seed: int
) -> None:
    samples, sources, channels, height, width = sizes
    generator = torch.Generator().manual_seed(seed)
    shapes = (
        (samples, channels, height, width),
        (samples, channels),
        (samples, sources, channels),
        (samples, channels),
    )
    leaves = [torch.randn(shape, generator=generator).to(dtype) * 10.0**exponent for shape in shapes]
    mask = torch.rand(samples, sources, generator=generator) > 0.4
    valid = mask.any(1)

    def losses(reduction: str) -> dict[str, nn.Module]:
        return {
            "oca": OCALoss(tau=tau, reduction=reduction),
            "ori": ORILoss(epsilon=epsilon, max_iter=20, reduction=reduction),
            "trimap": TriMapContrastiveLoss(reduction=reduction),
        }

    for leaf in leaves:
        leaf.requires_grad_()
    terms = ObjectAwareObjective(trimap_weight=0.5, **losses("mean")).terms(*leaves, mask)
    assert terms.total.isfinite()
    for gradient in torch.autograd.grad(terms.total, leaves, allow_unused=True):
        assert gradient is None or gradient.isfinite().all()
    single = ObjectAwareObjective(trimap_weight=0.5, **losses("none")).terms(*leaves, mask)
    for name, counted in (("oca", valid), ("ori", valid), ("trimap", torch.ones_like(valid))):
        values = getattr(single, name)
        assert not values[~counted].any()
        torch.testing.assert_close(getattr(terms, name), values.sum() / counted.sum().clamp(min=1))
