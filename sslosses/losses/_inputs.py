"""Checks of the inputs that several losses share."""

from __future__ import annotations

import torch
from torch import Tensor

from sslosses._checks import check_floating, check_mask, check_shapes


def finite_samples(values: Tensor) -> Tensor:
    """Whether each sample is free of NaN and inf: (B, ...) → (B,) bool."""
    return values.detach().isfinite().flatten(1).all(1)


def check_references(visual: Tensor, foreground: Tensor, background: Tensor, source_mask: Tensor | None) -> Tensor:
    """Check types, shapes and devices, and return which foreground references are present, (B, K) bool."""
    check_floating("visual", visual)
    check_floating("foreground", foreground)
    check_floating("background", background)
    check_shapes(visual=(visual, "B C H W"), foreground=(foreground, "B K C"), background=(background, "B C"))
    if source_mask is None:
        return torch.ones(foreground.shape[:2], dtype=torch.bool, device=foreground.device)
    check_mask("source_mask", source_mask)
    check_shapes(foreground=(foreground, "B K C"), source_mask=(source_mask, "B K"))
    return source_mask
