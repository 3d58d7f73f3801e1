"""Min-max normalisation, the upper median, and the binary map of the pixels above it."""

from __future__ import annotations

import torch
from torch import Tensor

from sslosses._checks import at_least_float32, check_floating


def min_max_normalize(maps: Tensor) -> Tensor:
    r"""Scale each map to [0, 1] by its own extremes, :math:`(x - \min x) / (\max x - \min x)`.

    A constant map, whose range is 0, becomes 0 everywhere.

    Args:
        maps: (..., H, W), floating, finite.

    Returns:
        Values in [0, 1], same shape; half precision is computed and returned in float32.

    Raises:
        TypeError: if ``maps`` is not floating.

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import min_max_normalize
        >>> min_max_normalize(torch.tensor([[-1.0, 1.0], [0.0, 3.0]]))
        tensor([[0.0000, 0.5000],
                [0.2500, 1.0000]])
    """
    check_floating("maps", maps)
    (maps,) = at_least_float32(maps)
    low = maps.amin((-2, -1), keepdim=True)
    span = maps.amax((-2, -1), keepdim=True) - low
    return (maps - low) / torch.where(span == 0, 1.0, span)


def upper_median(maps: Tensor) -> Tensor:
    """The pixel value at index ⌊N/2⌋ of the N ascending sorted pixels of each map.

    For an even N this is the larger of the two middle values (``torch.median`` takes the smaller one).

    Args:
        maps: (..., H, W), floating, free of NaN.

    Returns:
        One value a map, (...), dtype of ``maps``.

    Raises:
        TypeError: if ``maps`` is not floating.

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import upper_median
        >>> upper_median(torch.tensor([[4.0, 1.0], [3.0, 2.0]]))
        tensor(3.)
    """
    check_floating("maps", maps)
    pixels = maps.flatten(-2)
    return pixels.kthvalue(pixels.shape[-1] // 2 + 1, dim=-1).values


def binarize_above_upper_median(maps: Tensor) -> Tensor:
    """Min-max normalise each map, then mark the pixels above its upper median.

    At most half of the pixels are marked, fewer with ties at the median, none in a constant map.

    Args:
        maps: (..., H, W), floating, finite.

    Returns:
        Boolean, same shape.

    Raises:
        TypeError: if ``maps`` is not floating.

    Reference:
        Chen et al., Localizing Visual Sounds the Hard Way, CVPR 2021, evaluation code.

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import binarize_above_upper_median
        >>> binarize_above_upper_median(torch.tensor([[4.0, 1.0], [3.0, 2.0]]))
        tensor([[ True, False],
                [False, False]])
    """
    maps = min_max_normalize(maps)
    return maps > upper_median(maps)[..., None, None]
