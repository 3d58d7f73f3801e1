"""Overlap of a binary map with a ground truth that may be fractional: cIoU, and IoU with smoothing."""

from __future__ import annotations

import torch
from torch import Tensor

from sslosses._checks import check_number
from sslosses._torch import at_least_float32
from sslosses.metrics.functional._inputs import check_binary, check_fractions, check_pair


def ciou(binary: Tensor, truth: Tensor) -> Tensor:
    r"""Computes the consensus intersection over union (cIoU) of binary maps and a ground truth that may be fractional.

    .. math:: \mathrm{cIoU}(b, g) = \frac{\sum b\,g}{\sum g + \sum b\,[g = 0]}

    with the binary map b and the ground truth g. The sums run over the last two dimensions. For a binary ground truth
    this is the intersection over union. An empty ground truth gives 0, also for an empty map.

    Args:
        binary: predicted maps, (..., H, W), boolean or holding 0 and 1 only.
        truth: ground truth in [0, 1], (..., H, W), any dtype; leading dimensions broadcast with those of ``binary``.

    Returns:
        cIoU in [0, 1], (...); float64 if an argument is float64, else float32.

    Raises:
        TypeError: if an argument is not a dense real tensor.
        ValueError: if shapes or devices do not fit, or values are out of range.

    Reference:
        Senocak et al., Learning to Localize Sound Source in Visual Scenes, CVPR 2018.

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import ciou
        >>> binary = torch.tensor([[1, 1], [1, 0]])
        >>> truth = torch.tensor([[1.0, 0.5], [0.0, 0.0]])
        >>> ciou(binary, truth)  # 1.5 / (1.5 + 1)
        tensor(0.6000)
    """
    b, g = _checked(binary, truth)
    inter = (b * g).sum((-2, -1))
    outside = (b * (g == 0)).sum((-2, -1))
    return ratio_or_zero(inter, g.sum((-2, -1)) + outside)


def smoothed_iou(binary: Tensor, truth: Tensor, smoothing: float = 1e-4) -> Tensor:
    r"""Computes the intersection over union with a constant in numerator and denominator, as in T-VSL's code.

    .. math:: \mathrm{IoU}(b, g) = \frac{\sum b\,g + s}{\sum b + \sum g - \sum b\,g + s}

    with the binary map b, the ground truth g and the smoothing s. The sums run over the last two dimensions. An empty
    map of an empty ground truth gives 1.

    Args:
        binary: predicted maps, (..., H, W), boolean or holding 0 and 1 only.
        truth: ground truth in [0, 1], (..., H, W), any dtype; leading dimensions broadcast with those of ``binary``.
        smoothing: s, positive.

    Returns:
        IoU in (0, 1], (...); float64 if an argument is float64, else float32.

    Raises:
        TypeError: if an argument is not a dense real tensor, or ``smoothing`` is not a number.
        ValueError: if shapes or devices do not fit, values are out of range, or ``smoothing`` is not positive.

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import smoothed_iou
        >>> smoothed_iou(torch.tensor([[1, 1], [1, 0]]), torch.tensor([[1, 1], [0, 1]]))
        tensor(0.5000)
    """
    smoothing = check_number("smoothing", smoothing, above=0)
    b, g = _checked(binary, truth)
    inter = (b * g).sum((-2, -1))
    return (inter + smoothing) / (b.sum((-2, -1)) + g.sum((-2, -1)) - inter + smoothing)


def _checked(binary: Tensor, truth: Tensor) -> tuple[Tensor, ...]:
    check_pair(("binary", binary), ("truth", truth))
    b, g = at_least_float32(binary, truth)
    check_binary("binary", b)
    check_fractions("truth", g)
    return b, g


def ratio_or_zero(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Computes ``numerator / denominator``, and 0 where the denominator is 0."""
    empty = denominator == 0
    return torch.where(empty, 0.0, numerator / torch.where(empty, 1.0, denominator))
