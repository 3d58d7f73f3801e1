"""Checks of the inputs that several losses share."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sslosses._checks import check_floating, check_mask, check_number, check_shapes
from sslosses._torch import can_branch


def finite_samples(values: Tensor) -> Tensor:
    """Whether each sample is free of NaN and inf: (B, ...) → (B,) bool."""
    flat = values.detach().flatten(1)
    if flat.shape[1] == 0:
        return flat.new_ones(flat.shape[0], dtype=torch.bool)
    if can_branch(flat):
        # A sum is the fastest pass. It is not finite if an entry is not, and seldom otherwise.
        finite = flat.sum(1).isfinite()
        if bool(finite.all()):
            return finite
    # A NaN is both the largest and the smallest entry. On a CPU, isfinite of all entries takes 7 times as long.
    return flat.amax(1).isfinite() & flat.amin(1).isfinite()


def zero_unless(finite: Tensor, values: Tensor) -> Tensor:
    """``values`` (B, ...) with zeros in samples that are not ``finite`` (B,); without a copy if all are."""
    if can_branch(finite) and bool(finite.all()):
        return values
    return values.where(finite.view(-1, *[1] * (values.ndim - 1)), 0)


def check_scalar(name: str, value: Any, like: Tensor) -> Any:
    """Return a number, or a tensor of one entry as a scalar of the dtype of ``like``.

    The tensor may be on the device of ``like``, or on the CPU, from where a scalar works with any device.
    """
    if not isinstance(value, Tensor):
        return check_number(name, value)
    check_floating(name, value)
    if value.numel() != 1:
        raise ValueError(f"Expected `{name}` to be a number or a tensor with one entry, but got {tuple(value.shape)}")
    if value.device not in (like.device, torch.device("cpu")):
        raise ValueError(f"Expected `{name}` to be on the device of `visual` ({like.device}), but got {value.device}")
    return value.reshape(()).to(like.dtype)


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
