"""Normalization of maps by their extremes or a fixed range; binarization at the median, at a value or by area."""

from __future__ import annotations

import torch
from torch import Tensor

from sslosses._checks import check_floating, check_number
from sslosses._torch import at_least_float32
from sslosses.metrics.functional._inputs import check_maps, check_no_nan, check_pair, check_values, extremes
from sslosses.metrics.functional._order import kth_smallest


def min_max_normalize(maps: Tensor) -> Tensor:
    r"""Computes maps scaled to [0, 1] by their own extremes, :math:`(x - \min x) / (\max x - \min x)`.

    A constant map becomes 0 everywhere.

    Args:
        maps: (..., H, W), floating, finite.

    Returns:
        Values in [0, 1], same shape; half precision is computed and returned in float32.

    Raises:
        TypeError: if ``maps`` is not floating.
        ValueError: if it has no pixel, or non-finite values.

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import min_max_normalize
        >>> min_max_normalize(torch.tensor([[-1.0, 1.0], [0.0, 3.0]]))
        tensor([[0.0000, 0.5000],
                [0.2500, 1.0000]])
    """
    check_maps("maps", maps)
    (maps,) = at_least_float32(maps)
    return _rescale(maps, *extremes("maps", maps))


def _min_max_normalize(maps: Tensor) -> Tensor:
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return _rescale(maps, low, high - low)


def _rescale(maps: Tensor, low: Tensor, span: Tensor) -> Tensor:
    return (maps - low).div_(torch.where(span == 0, 1.0, span))


def fixed_range_normalize(maps: Tensor, tau: float = 0.03) -> Tensor:
    r"""Computes cosine similarities divided by τ, scaled from [−1/τ, 1/τ] to [0, 1], :math:`(x + 1/\tau)\,\tau/2`.

    Args:
        maps: (..., H, W), floating.
        tau: τ, at least 1e-30.

    Returns:
        Same shape, in [0, 1] for maps in [−1/τ, 1/τ]; half precision is computed and returned in float32.

    Raises:
        TypeError: if ``maps`` is not floating or ``tau`` is not a number.
        ValueError: if ``tau`` is below 1e-30.

    Reference:
        Mo and Tian, Audio-Visual Grouping Network for Sound Localization from Mixtures, CVPR 2023, evaluation code.

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import fixed_range_normalize
        >>> fixed_range_normalize(torch.tensor([[-2.0, 0.0, 2.0]]), tau=0.5)
        tensor([[0.0000, 0.5000, 1.0000]])
    """
    check_floating("maps", maps)
    check_values("maps", maps)
    tau = check_number("tau", tau, least=1e-30)  # 1/τ has to be finite in float32
    (maps,) = at_least_float32(maps)
    return _fixed_range_normalize(maps, tau)


def _fixed_range_normalize(maps: Tensor, tau: float) -> Tensor:
    return (maps + 1 / tau) / (2 / tau)


def upper_median(maps: Tensor) -> Tensor:
    """Computes the value at index ⌊N/2⌋ of the N pixels of each map in ascending order.

    For an even N this is the larger of the two middle values (``torch.median`` returns the smaller one).

    Args:
        maps: (..., H, W), floating, free of NaN.

    Returns:
        One value per map, (...), dtype of ``maps``.

    Raises:
        TypeError: if ``maps`` is not floating.
        ValueError: if it has no pixel, or contains NaN.

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import upper_median
        >>> upper_median(torch.tensor([[4.0, 1.0], [3.0, 2.0]]))
        tensor(3.)
    """
    check_maps("maps", maps)
    check_no_nan("maps", maps)
    return _upper_median(maps)


def _upper_median(maps: Tensor) -> Tensor:
    pixels = maps.flatten(-2)
    return kth_smallest(pixels, pixels.shape[-1] // 2)


def _level_above_upper_median(maps: Tensor) -> Tensor:
    """Value above which :func:`binarize_above_upper_median` marks pixels, (...)."""
    median = _upper_median(maps)
    at_maximum = median == maps.amax((-2, -1))
    if not bool(at_maximum.any()):
        return median
    low = maps.amin((-2, -1))
    return torch.where(at_maximum & (low < median), torch.nextafter(median, low), median)


def binarize_above_upper_median(maps: Tensor) -> Tensor:
    """Computes which pixels of each min-max normalized map are above its upper median or at its maximum.

    At most half of the pixels are marked, fewer with ties at the median, unless more than half are at the maximum. In a
    constant map no pixel is marked.

    Args:
        maps: (..., H, W), floating, finite.

    Returns:
        Boolean, same shape.

    Raises:
        TypeError: if ``maps`` is not floating.
        ValueError: as for :func:`min_max_normalize`.

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
    return maps > _level_above_upper_median(maps)[..., None, None]


def binarize_from_upper_median(maps: Tensor) -> Tensor:
    """Computes which pixels of each min-max normalized map are at least its upper median.

    At least half of the pixels are marked, more with ties at the median. In a constant map all pixels are marked.

    Args:
        maps: (..., H, W), floating, finite.

    Returns:
        Boolean, same shape.

    Raises:
        TypeError: if ``maps`` is not floating.
        ValueError: as for :func:`min_max_normalize`.

    Reference:
        Mo and Morgado, Localizing Visual Sounds the Easy Way, ECCV 2022, evaluation code.

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import binarize_from_upper_median
        >>> binarize_from_upper_median(torch.tensor([[4.0, 1.0], [3.0, 2.0]]))
        tensor([[ True, False],
                [ True, False]])
    """
    maps = min_max_normalize(maps)
    return maps >= _upper_median(maps)[..., None, None]


def binarize_from_value(maps: Tensor, value: float) -> Tensor:
    """Computes which pixels of each min-max normalized map are at least ``value``.

    Args:
        maps: (..., H, W), floating, finite.
        value: threshold in [0, 1].

    Returns:
        Boolean, same shape.

    Raises:
        TypeError: if ``maps`` is not floating or ``value`` is not a number.
        ValueError: if ``value`` is outside [0, 1], and as for :func:`min_max_normalize`.

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import binarize_from_value
        >>> binarize_from_value(torch.tensor([[4.0, 1.0], [3.0, 2.0]]), 0.5)
        tensor([[ True, False],
                [ True, False]])
    """
    value = check_number("value", value, least=0, most=1)
    return min_max_normalize(maps) >= value


def binarize_area(maps: Tensor, fraction: float) -> Tensor:
    """Computes which pixels are among the ``round(fraction * N)`` largest of the N pixels of each map.

    At least one pixel is marked, and ties with the smallest marked value are marked too.

    Args:
        maps: (..., H, W), floating, free of NaN.
        fraction: share of the pixels, in (0, 1].

    Returns:
        Boolean, same shape; in a constant map all pixels are marked.

    Raises:
        TypeError: if ``maps`` is not floating or ``fraction`` is not a number.
        ValueError: if ``fraction`` is outside (0, 1], or ``maps`` has no pixel or contains NaN.

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import binarize_area
        >>> binarize_area(torch.tensor([[4.0, 1.0], [3.0, 2.0]]), 0.75)
        tensor([[ True, False],
                [ True,  True]])
    """
    check_maps("maps", maps)
    fraction = check_number("fraction", fraction, above=0, most=1)
    (maps,) = at_least_float32(maps)
    check_no_nan("maps", maps)
    return _binarize_area(maps, fraction)


def _binarize_area(maps: Tensor, fraction: float) -> Tensor:
    pixels = maps.flatten(-2)
    count = max(1, round(fraction * pixels.shape[-1]))
    return maps >= kth_smallest(pixels, pixels.shape[-1] - count)[..., None, None]


def binarize_truth_area(maps: Tensor, truth: Tensor) -> Tensor:
    """Computes which pixels of each map are above the value at index N − n of its N pixels in ascending order.

    n is the number of positive pixels of the ground truth, or ⌊N/2⌋ if it has none. Without ties, n − 1 pixels are
    marked, ties with that value are not marked, and in a constant map no pixel is marked. The ground truth decides the
    area, so scores of such maps are scores of an oracle.

    Args:
        maps: (..., H, W), floating, free of NaN.
        truth: ground truth, (..., H, W), any dtype, same shape.

    Returns:
        Boolean, same shape.

    Raises:
        TypeError: if ``maps`` is not floating.
        ValueError: if shapes or devices differ, or ``maps`` has no pixel or contains NaN.

    Reference:
        Senocak et al., Sound Source Localization is All about Cross-Modal Alignment, ICCV 2023, evaluation code
        (adaptive cIoU).

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import binarize_truth_area
        >>> binarize_truth_area(torch.tensor([[4.0, 1.0], [3.0, 2.0]]), torch.tensor([[1, 0], [1, 1]]))
        tensor([[ True, False],
                [ True, False]])
    """
    check_maps("maps", maps)
    check_pair(("maps", maps), ("truth", truth))
    if maps.shape != truth.shape:
        raise ValueError(f"Expected `truth` to have shape {tuple(maps.shape)}, but got {tuple(truth.shape)}")
    (maps,) = at_least_float32(maps)
    check_no_nan("maps", maps)
    return maps > _level_above_truth_area(maps, (truth > 0).sum((-2, -1)))[..., None, None]


def _level_above_truth_area(maps: Tensor, area: Tensor) -> Tensor:
    """Value above which pixels are marked, (...), for a number of positive pixels, (...)."""
    pixels = maps.flatten(-2)
    count = pixels.shape[-1]
    marked = torch.where(area > 0, area, count // 2).long().clamp(min=1)  # a map of one pixel has no half
    return kth_smallest(pixels, count - marked)
