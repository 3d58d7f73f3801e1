"""Resizing of heatmaps to the evaluation frame."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from sslosses._checks import at_least_float32, check_floating


def resize_bicubic(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps by cubic convolution with a = −0.75 and half-pixel centres, as OpenCV's ``INTER_CUBIC`` does.

    There is no anti-aliasing, and values can overshoot the range of the map. At the map's own size it is the identity.

    Args:
        maps: (..., h, w), floating.
        size: height and width wanted.

    Returns:
        ``(..., *size)``; half precision is computed and returned in float32.

    Raises:
        TypeError: if ``maps`` is not floating.
        ValueError: if ``maps`` has fewer than two dimensions or no pixel.

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import resize_bicubic
        >>> resize_bicubic(torch.tensor([[0.0, 1.0]]), (1, 4))
        tensor([[-0.1055,  0.2266,  0.7734,  1.1055]])
    """
    check_floating("maps", maps)
    if maps.ndim < 2 or 0 in maps.shape[-2:]:
        raise ValueError(f"Expected `maps` to have shape (..., h, w) with h, w >= 1, but got {tuple(maps.shape)}")
    (maps,) = at_least_float32(maps)
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    if flat.shape[0] == 0:
        return maps.new_zeros(*maps.shape[:-2], *size)
    resized = F.interpolate(flat, size=size, mode="bicubic", align_corners=False)
    return resized.reshape(*maps.shape[:-2], *size)
