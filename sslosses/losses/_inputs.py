"""Checks of the inputs that several losses share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sslosses._checks import check_floating, check_mask, check_shapes


def finite_samples(values: Tensor) -> Tensor:
    """Whether each sample is free of NaN and inf: (B, ...) → (B,) bool."""
    return values.detach().isfinite().flatten(1).all(1)


class Present(NamedTuple):
    """Which references exist.

    Attributes:
        foreground: (B, K) bool.
        background: (B,) bool, False for samples without a foreground reference.
    """

    foreground: Tensor
    background: Tensor


def check_references(
    visual: Tensor,
    foreground: Tensor,
    background: Tensor,
    source_mask: Tensor | None,
    background_mask: Tensor | None,
) -> Present:
    """Check types, shapes and devices, and return which references are present."""
    check_floating("visual", visual)
    check_floating("foreground", foreground)
    check_floating("background", background)
    check_shapes(visual=(visual, "B C H W"), foreground=(foreground, "B K C"), background=(background, "B C"))
    if source_mask is None:
        source_mask = torch.ones(foreground.shape[:2], dtype=torch.bool, device=foreground.device)
    check_mask("source_mask", source_mask)
    check_shapes(foreground=(foreground, "B K C"), source_mask=(source_mask, "B K"))
    described = source_mask.any(1)
    if background_mask is not None:
        check_mask("background_mask", background_mask)
        check_shapes(foreground=(foreground, "B K C"), background_mask=(background_mask, "B"))
        described = described & background_mask
    return Present(source_mask, described)
