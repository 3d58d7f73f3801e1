"""Resizing of heatmaps to the evaluation frame."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from sslosses._torch import at_least_float32, full_matmul
from sslosses.metrics.functional._inputs import check_maps, check_size, extremes


def resize_bicubic(maps: Tensor, size: tuple[int, int], *, align_corners: bool = False) -> Tensor:
    """Computes maps resized by cubic convolution with a = −0.75.

    The default has half-pixel centers, like OpenCV's ``INTER_CUBIC``. There is no anti-aliasing, and values can
    overshoot the range of the map. Resizing to the same size is the identity.
    A constant map stays exactly constant.

    Args:
        maps: (..., h, w), floating, finite.
        size: height and width of the result.
        align_corners: whether to align the centers of the corner pixels instead of the corners of the frame.

    Returns:
        ``(..., *size)``; half precision is computed and returned in float32.

    Raises:
        TypeError: if ``maps`` is not floating or ``size`` is not a pair of integers.
        ValueError: if ``maps`` has fewer than two dimensions, no pixel or non-finite values, or ``size`` is out of
            range.

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import resize_bicubic
        >>> resize_bicubic(torch.tensor([[0.0, 1.0]]), (1, 4))
        tensor([[-0.1055,  0.2266,  0.7734,  1.1055]])
    """
    return _resize_bicubic(*_checked(maps, size), align_corners=align_corners)


def resize_bilinear(maps: Tensor, size: tuple[int, int], *, align_corners: bool = False) -> Tensor:
    """Computes maps resized bilinearly with half-pixel centers, like OpenCV's ``INTER_LINEAR``, or aligned corners.

    There is no anti-aliasing. Resizing to the same size is the identity. A constant map stays exactly constant.

    Args:
        maps: (..., h, w), floating, finite.
        size: height and width of the result.
        align_corners: whether to align the centers of the corner pixels instead of the corners of the frame.

    Returns:
        ``(..., *size)``; half precision is computed and returned in float32.

    Raises:
        TypeError: if ``maps`` is not floating or ``size`` is not a pair of integers.
        ValueError: if ``maps`` has fewer than two dimensions, no pixel or non-finite values, or ``size`` is out of
            range.

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import resize_bilinear
        >>> resize_bilinear(torch.tensor([[0.0, 1.0]]), (1, 4))
        tensor([[0.0000, 0.2500, 0.7500, 1.0000]])
        >>> resize_bilinear(torch.tensor([[0.0, 1.0]]), (1, 4), align_corners=True)
        tensor([[0.0000, 0.3333, 0.6667, 1.0000]])
    """
    return _resize_bilinear(*_checked(maps, size), align_corners=align_corners)


def _checked(maps: Tensor, size: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
    check_maps("maps", maps)
    size = check_size("size", size)
    (maps,) = at_least_float32(maps)
    if maps.shape[-2:] != size:
        extremes("maps", maps)
    return maps, size


def _resize_bicubic(maps: Tensor, size: tuple[int, int], *, align_corners: bool) -> Tensor:
    return _resize(maps, size, cubic=True, align_corners=align_corners)


def _resize_bilinear(maps: Tensor, size: tuple[int, int], *, align_corners: bool) -> Tensor:
    return _resize(maps, size, cubic=False, align_corners=align_corners)


def _resize(maps: Tensor, size: tuple[int, int], *, cubic: bool, align_corners: bool) -> Tensor:
    if maps.shape[-2:] == size:
        return maps
    axes = list(zip(maps.shape[-2:], size, strict=True))
    table = {axis: _weights(*axis, cubic, align_corners).to(maps) for axis in set(axes)}
    down, across = (table[axis] for axis in axes)
    # The weights sum to 1 only up to rounding. Relative to its minimum, a constant map is exactly 0 and stays constant.
    low = maps.amin((-2, -1), keepdim=True)
    with torch.autocast(maps.device.type, enabled=False):
        # Matrix products are several times as fast as torch's interpolation on a CPU.
        return full_matmul(down, full_matmul(maps - low, across.T)).add_(low)


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # cached weights may be used with gradients later
def _weights(old: int, new: int, cubic: bool, align_corners: bool) -> Tensor:
    """Weights of the old pixels for each new pixel along an axis, (new, old), float64."""
    index = torch.arange(new, dtype=torch.float64)
    if align_corners:
        center = index * ((old - 1) / (new - 1) if new > 1 else 0.0)
    else:
        center = (index + 0.5) * (old / new) - 0.5
        if not cubic:
            center = center.clamp(min=0)
    first = center.floor()
    weights = torch.zeros(new, old, dtype=torch.float64)
    for step in range(-1, 3) if cubic else range(2):
        tap = first + step
        share = _cubic((center - tap).abs()) if cubic else 1 - (center - tap).abs()
        # Taps beyond the border repeat the border pixel.
        weights.scatter_add_(1, tap.clamp(0, old - 1).long()[:, None], share[:, None])
    return weights


def _cubic(d: Tensor, a: float = -0.75) -> Tensor:
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * (d**3 - 5 * d**2 + 8 * d - 4)
    return torch.where(d <= 1, near, far)
