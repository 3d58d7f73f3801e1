"""Checks of the arguments of functional metrics. Public functions check; their private blocks do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sslosses._checks import check_count, check_dense, check_floating, check_number

#: Largest side of a frame: its mask takes a gigabyte in float32.
MOST_SIDE = 16_384


def check_values(name: str, value: Any) -> None:
    """Raises unless ``value`` is a dense real tensor with data (not complex, quantized or on the meta device)."""
    check_dense(name, value)
    if value.dtype.is_complex or (value.dtype.is_floating_point and value.dtype.itemsize < 2):
        raise TypeError(
            f"Expected `{name}` to have a real dtype, of 16 bits or more if floating, but got {value.dtype}"
        )
    if value.is_quantized:
        raise TypeError(f"Expected `{name}` to be a dense tensor, but got {value.dtype}")
    if value.is_meta:
        raise ValueError(f"Expected `{name}` to hold values, but got a tensor on the device meta")


def check_maps(name: str, value: Any) -> None:
    """Raises unless ``value`` holds floating maps (..., h, w) with at least one pixel."""
    check_floating(name, value)
    check_values(name, value)
    if value.ndim < 2 or 0 in value.shape[-2:]:
        raise ValueError(f"Expected `{name}` to have shape (..., h, w) with h, w >= 1, but got {tuple(value.shape)}")


def check_pair(first: tuple[str, Any], second: tuple[str, Any]) -> None:
    """Raises unless both (name, value) pairs hold maps of the same height and width that broadcast."""
    for name, value in (first, second):
        check_values(name, value)
    (name, a), (other, b) = first, second
    if a.ndim < 2 or b.ndim < 2 or a.shape[-2:] != b.shape[-2:]:
        raise ValueError(
            f"Expected `{name}` and `{other}` to have shapes (..., H, W) of the same height and width, "
            f"but got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    if a.device != b.device:
        raise ValueError(f"Expected `{other}` to be on the device of `{name}` ({a.device}), but got {b.device}")
    if any(m != n and 1 not in (m, n) for m, n in zip(reversed(a.shape), reversed(b.shape), strict=False)):
        raise ValueError(
            f"Expected the leading dimensions of `{name}` and `{other}` to broadcast, "
            f"but got {tuple(a.shape)} and {tuple(b.shape)}"
        )


def check_no_nan(name: str, value: Tensor) -> None:
    """Raises if a value is NaN."""
    if value.dtype.is_floating_point and bool(torch.isnan(value).any()):
        raise ValueError(f"Expected `{name}` to be free of NaN, but got {int(torch.isnan(value).sum())} NaN values")


def check_scores(name: str, value: Any) -> None:
    """Raises unless ``value`` is floating with finite values of at least 0."""
    check_floating(name, value)
    check_values(name, value)
    if not bool(((value >= 0) & (value < torch.inf)).all()):
        raise ValueError(f"Expected `{name}` to hold finite values >= 0 only, but got others")


def check_binary(name: str, value: Tensor) -> None:
    """Raises unless ``value``, of any dtype, holds 0 and 1 only."""
    if value.dtype != torch.bool and not bool(((value == 0) | (value == 1)).all()):
        raise ValueError(f"Expected `{name}` to hold 0 and 1 only, but got other values")


def check_fractions(name: str, value: Tensor) -> None:
    """Raises unless ``value``, of any dtype, lies in [0, 1]."""
    if value.dtype != torch.bool and not bool(((value >= 0) & (value <= 1)).all()):
        raise ValueError(f"Expected `{name}` to hold values in [0, 1] only, but got others")


def extremes(name: str, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Computes the minimum of each map, (..., 1, 1), and its range.

    Raises:
        ValueError: if a value is not finite, or so large that sums and differences of a few values may overflow.
    """
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    limit = torch.finfo(maps.dtype).max / 8
    if not bool(((low >= -limit) & (high <= limit)).all()):
        raise ValueError(f"Expected `{name}` to be finite, within ±{limit:.2g}, but got NaN, infinite or larger values")
    return low, high - low


def check_size(name: str, size: Any) -> tuple[int, int]:
    """Returns height and width; raises unless ``size`` is a pair of integers that a map can have as sides."""
    if not isinstance(size, Sequence) or isinstance(size, str) or len(size) != 2:
        raise TypeError(f"Expected `{name}` to be two integers, height and width, but got {size!r}")
    height, width = (check_side(f"{name}[{i}]", side) for i, side in enumerate(size))
    return height, width


def check_side(name: str, side: Any) -> int:
    """Returns ``side``; raises unless it is a number of pixels that a map can have along a side."""
    count = check_count(name, side)
    check_number(name, side, most=MOST_SIDE)
    return count
