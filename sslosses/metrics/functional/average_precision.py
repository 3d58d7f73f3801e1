"""Pixel average precision: of continuous maps with ties by one sort, of binary maps in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from sslosses._checks import at_least_float32, check_floating
from sslosses.metrics.functional.ciou import check_same_frame, ratio_or_zero


def average_precision(scores: Tensor, truth: Tensor) -> Tensor:
    r"""Pixel average precision of continuous maps.

    .. math:: \mathrm{AP} = \sum_k (R_k - R_{k-1})\, P_k

    over the distinct score levels from the highest down, with recall R and precision P of the pixels at or above level
    k, so pixels of one score enter together. A pixel is positive where the truth is above 0. Without any positive pixel
    AP is 0.

    Args:
        scores: maps, (..., H, W), floating, free of NaN.
        truth: truths, (..., H, W), any dtype; leading dimensions broadcast against those of ``scores``.

    Returns:
        AP in [0, 1], (...): float64 if ``scores`` is float64, else float32.

    Raises:
        TypeError: if ``scores`` is not floating.
        ValueError: if the last two dimensions differ.

    Reference:
        ``sklearn.metrics.average_precision_score``, whose value this is.

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import average_precision
        >>> scores = torch.tensor([[0.9, 0.5], [0.5, 0.1]])
        >>> truth = torch.tensor([[True, True], [False, False]])
        >>> average_precision(scores, truth)  # 1/2 · 1 + 1/2 · 2/3
        tensor(0.8333)
    """
    check_floating("scores", scores)
    check_same_frame(scores, truth)
    (scores,) = at_least_float32(scores)
    positive = (truth > 0) | torch.zeros_like(scores, dtype=torch.bool)
    scores = scores.expand_as(positive)
    ordered, order = scores.flatten(-2).sort(dim=-1, descending=True)
    positive = positive.flatten(-2).gather(-1, order)
    count = positive.shape[-1]
    rank = torch.arange(count, device=scores.device).expand_as(ordered)
    # The precision of a level is read at its last pixel: for every pixel, the nearest end of a level at or after it.
    ends = torch.ones_like(positive)
    ends[..., :-1] = ordered[..., 1:] != ordered[..., :-1]
    level_end = torch.where(ends, rank, count - 1).flip(-1).cummin(-1).values.flip(-1)
    precision = (positive.cumsum(-1) / (rank + 1).to(scores.dtype)).gather(-1, level_end)
    return ratio_or_zero((precision * positive).sum(-1), positive.sum(-1).to(scores.dtype))


def binary_average_precision(binary: Tensor, truth: Tensor) -> Tensor:
    r"""Pixel average precision of binary maps, in closed form.

    With two score levels only, the sum of :func:`average_precision` has two terms:

    .. math:: \mathrm{AP} = R\,\frac{t}{p} + (1 - R)\,\frac{P}{N}, \qquad R = \frac{t}{P}

    for N pixels, P positive ones, p predicted ones and t predicted positive ones. An empty map has one level, AP = P /
    N. Without any positive pixel AP is 0.

    Args:
        binary: predicted maps, (..., H, W), boolean or holding 0 and 1 only.
        truth: truths, (..., H, W), positive where above 0; leading dimensions broadcast against those of ``binary``.

    Returns:
        AP in [0, 1], (...): float64 if an argument is float64, else float32.

    Raises:
        ValueError: if the last two dimensions differ.

    Reference:
        ``sklearn.metrics.average_precision_score`` of a binary score, whose value this is.

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import binary_average_precision
        >>> binary = torch.tensor([[True, False], [True, False]])
        >>> truth = torch.tensor([[True, True], [False, False]])
        >>> binary_average_precision(binary, truth)
        tensor(0.5000)
    """
    check_same_frame(binary, truth)
    b, g = at_least_float32(binary, truth)
    positive = (g > 0).to(g.dtype)
    positives = positive.sum((-2, -1))
    hits = (b * positive).sum((-2, -1))
    recall = ratio_or_zero(hits, positives)
    precision = ratio_or_zero(hits, b.sum((-2, -1)))
    pixels = truth.shape[-2] * truth.shape[-1]
    # recall is 0 without a positive, and so is the prevalence
    return recall * precision + (1 - recall) * (positives / pixels)
