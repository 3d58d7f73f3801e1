"""Pixel average precision: by one sort for continuous maps, in closed form for binary maps."""

from __future__ import annotations

import torch
from torch import Tensor

from sslosses._checks import check_floating
from sslosses._optional import can_import
from sslosses._torch import at_least_float32
from sslosses.metrics.functional._inputs import check_binary, check_no_nan, check_pair
from sslosses.metrics.functional._order import ordered_keys, sort_rows, true_places
from sslosses.metrics.functional.ciou import ratio_or_zero

_WORTH_COMPILING = 1 << 18  # with fewer pixels, loading the compiled kernel takes longer than it saves


def average_precision(scores: Tensor, truth: Tensor) -> Tensor:
    r"""Computes the pixel average precision of continuous maps.

    .. math:: \mathrm{AP} = \sum_k (R_k - R_{k-1})\, P_k

    over the distinct score levels k from the highest down, where :math:`R_k` and :math:`P_k` are recall and precision
    of the pixels at or above level k. Pixels with the same score enter together. A pixel is positive where the ground
    truth is above 0. Without any positive pixel AP is 0.

    Args:
        scores: maps, (..., H, W), floating, free of NaN.
        truth: ground truth, (..., H, W), any real dtype, free of NaN; leading dimensions broadcast with those of
            ``scores``.

    Returns:
        AP in [0, 1], (...); float64 if ``scores`` is float64, else float32.

    Raises:
        TypeError: if ``scores`` is not floating, or an argument is not a dense real tensor.
        ValueError: if shapes or devices do not fit, or values are NaN.

    Reference:
        ``sklearn.metrics.average_precision_score``, which gives the same value.

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import average_precision
        >>> scores = torch.tensor([[0.9, 0.5], [0.5, 0.1]])
        >>> truth = torch.tensor([[True, True], [False, False]])
        >>> average_precision(scores, truth)  # 1/2 · 1 + 1/2 · 2/3
        tensor(0.8333)
    """
    check_floating("scores", scores)
    check_pair(("scores", scores), ("truth", truth))
    (scores,) = at_least_float32(scores)
    check_no_nan("scores", scores)
    check_no_nan("truth", truth)
    return _average_precision(scores, truth > 0)


def _average_precision(scores: Tensor, positive: Tensor) -> Tensor:
    scores, positive = torch.broadcast_tensors(scores, positive)  # type: ignore[no-untyped-call]
    compiles = scores.device.type == "cpu" and scores.dtype == torch.float32 and scores.numel() >= _WORTH_COMPILING
    if compiles and can_import("numba"):
        from sslosses.metrics.functional._compiled import average_precision_of_rows

        pixels = scores.shape[-2] * scores.shape[-1]
        rows = average_precision_of_rows(scores.reshape(-1, pixels), positive.reshape(-1, pixels))
        return rows.view(positive.shape[:-2]).to(scores.dtype)
    keys, positive = _sorted_levels(scores.flatten(-2), positive.flatten(-2))
    count, positives = positive.shape[-1], positive.sum(-1).flatten()
    # Positives come first within their level, so the pixels at or above a level start at its first positive.
    places = true_places(positive.flatten())
    row = places.div(count, rounding_mode="floor")
    levels = keys.flatten()[places]
    starts = torch.ones_like(places, dtype=torch.bool)
    starts[1:] = (levels[1:] != levels[:-1]) | (row[1:] != row[:-1])
    first = true_places(starts)
    row, level_size = row[first], first.diff(append=first.new_tensor([len(places)]))
    hits = (positives.cumsum(0)[row] - first).to(torch.float64)
    terms = level_size * hits / (count * (row + 1) - places[first])
    total = torch.zeros_like(positives, dtype=torch.float64).index_add(0, row, terms)
    return ratio_or_zero(total, positives.to(torch.float64)).view(positive.shape[:-1]).to(scores.dtype)


def swapped_average_precision(binary: Tensor, truth: Tensor) -> Tensor:
    """Computes the pixel average precision with swapped arguments, as AVGN's evaluation code does.

    The binary prediction is the label and the ground truth is the score, so the result says how well the ground truth
    predicts the prediction. An empty prediction gives 0. An empty ground truth, which has one score level, gives the
    predicted share of the frame.

    Args:
        binary: predicted maps, (..., H, W), boolean or holding 0 and 1 only.
        truth: ground truth, (..., H, W), any real dtype, free of NaN; leading dimensions broadcast with those of
            ``binary``.

    Returns:
        AP in [0, 1], (...); float64 if an argument is float64, else float32.

    Raises:
        TypeError: if an argument is not a dense real tensor.
        ValueError: if shapes or devices do not fit, or values are out of range or NaN.

    Reference:
        Mo and Tian, Audio-Visual Grouping Network for Sound Localization from Mixtures, CVPR 2023, evaluation code.

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import binary_average_precision, swapped_average_precision
        >>> binary = torch.tensor([[True, True], [True, False]])
        >>> truth = torch.tensor([[True, False], [False, False]])
        >>> swapped_average_precision(binary, truth), binary_average_precision(binary, truth)
        (tensor(0.8333), tensor(0.3333))
    """
    check_pair(("binary", binary), ("truth", truth))
    check_binary("binary", binary)
    b, g = at_least_float32(binary, truth)
    if truth.dtype == torch.bool:
        return _binary_average_precision(g, b)
    check_no_nan("truth", g)
    return _average_precision(g, b > 0)


def _sorted_levels(scores: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """Sorts rows by ascending score, positives first among equal scores.

    Returns:
        Keys that differ between positives of different scores, and the labels of the pixels.
    """
    if scores.dtype == torch.float32:
        # With score and label in one number, sorting needs no indices.
        keys = sort_rows(ordered_keys(scores, ~positive))
        return keys, (keys & 1) == 0
    first = (~positive).sort(dim=-1, stable=True).indices
    ordered, order = scores.gather(-1, first).sort(dim=-1, stable=True)
    return ordered, positive.gather(-1, first).gather(-1, order)


def binary_average_precision(binary: Tensor, truth: Tensor) -> Tensor:
    r"""Computes the pixel average precision of binary maps in closed form.

    With only two score levels, the sum of :func:`average_precision` has two terms:

    .. math:: \mathrm{AP} = R\,\frac{t}{p} + (1 - R)\,\frac{P}{N}, \qquad R = \frac{t}{P}

    for N pixels, P positive pixels, p predicted pixels and t pixels that are both. An empty map has one level, so AP =
    P / N. Without any positive pixel AP is 0.

    Args:
        binary: predicted maps, (..., H, W), boolean or holding 0 and 1 only.
        truth: ground truth, (..., H, W), free of NaN, positive where above 0; leading dimensions broadcast with those
            of ``binary``.

    Returns:
        AP in [0, 1], (...); float64 if an argument is float64, else float32.

    Raises:
        TypeError: if an argument is not a dense real tensor.
        ValueError: if shapes or devices do not fit, or values are out of range or NaN.

    Reference:
        ``sklearn.metrics.average_precision_score`` of a binary score, which gives the same value.

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import binary_average_precision
        >>> binary = torch.tensor([[True, False], [True, False]])
        >>> truth = torch.tensor([[True, True], [False, False]])
        >>> binary_average_precision(binary, truth)
        tensor(0.5000)
    """
    check_pair(("binary", binary), ("truth", truth))
    b, g = at_least_float32(binary, truth)
    check_binary("binary", b)
    check_no_nan("truth", g)
    return _binary_average_precision(b, (g > 0).to(g.dtype))


def _binary_average_precision(binary: Tensor, positive: Tensor) -> Tensor:
    hits = (binary * positive).sum((-2, -1))
    pixels = positive.shape[-2] * positive.shape[-1]
    return _binary_average_precision_of_counts(hits, binary.sum((-2, -1)), positive.sum((-2, -1)), pixels)


def _binary_average_precision_of_counts(hits: Tensor, predicted: Tensor, positives: Tensor, pixels: int) -> Tensor:
    """Computes :func:`binary_average_precision` from numbers of pixels: t, p, P and N."""
    recall = ratio_or_zero(hits, positives)
    # Without a positive pixel, recall and prevalence are 0.
    return recall * ratio_or_zero(hits, predicted) + (1 - recall) * (positives / pixels)
