"""Detection metrics over confidence: a localization counts only if the model is confident that something sounds."""

from __future__ import annotations

import torch
from torch import Tensor

from sslosses._checks import check_floating, check_number, check_shapes
from sslosses.metrics.functional._inputs import check_no_nan, check_values


def detection_average_precision(ciou: Tensor, confidence: Tensor, threshold: float = 0.5) -> Tensor:
    r"""Computes the average precision of detections, as AVGN's (and SLAVC's) evaluation code does.

    At a confidence level c, an entry of confidence ≥ c is a true positive (TP) if its cIoU reaches the threshold and a
    false positive otherwise. An entry below c is a false negative (FN). Recall is R = TP / (TP + FN), and P is the
    precision. Levels run down from the second largest confidence in steps of max(1, ⌊n / 200⌋) entries:

    .. math:: \mathrm{AP} = \sum_i \max_{j \ge i} P_j \; (R_{i+1} - R_i)

    Args:
        ciou: cIoU of the entries, (n,), floating, free of NaN.
        confidence: their confidence, (n,), floating, free of NaN.
        threshold: smallest cIoU of a correct localization, in [0, 1].

    Returns:
        0-d float64 in [0, 1]; 0 with fewer than three entries, NaN without an entry.

    Raises:
        TypeError: if a tensor is not floating.
        ValueError: if shapes differ, values are NaN or ``threshold`` is outside [0, 1].

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import detection_average_precision
        >>> ciou, confidence = torch.tensor([0.9, 0.8, 0.1, 0.6]), torch.tensor([0.9, 0.7, 0.4, 0.2])
        >>> detection_average_precision(ciou, confidence)  # recall 1/2, 2/3, 1 at precision 1, 2/3, 3/4
        tensor(0.4167, dtype=torch.float64)
    """
    return _detection_average_precision(*_checked(ciou, confidence, threshold), threshold)


def _detection_average_precision(ciou: Tensor, confidence: Tensor, threshold: float) -> Tensor:
    count = len(ciou)
    if count == 0:
        return ciou.new_tensor(torch.nan)
    ordered, order = confidence.sort(stable=True)
    right = (ciou[order] >= threshold).long()  # sums of integers do not depend on their order
    levels = ordered[:-1].flip(0)[:: max(1, count // 200)].contiguous()
    first = torch.searchsorted(ordered, levels)  # the first entry of at least that confidence
    hits = torch.cat([right.flip(0).cumsum(0).flip(0), right.new_zeros(1)])[first].double()
    precision, recall = hits / (count - first), _recall(hits, first)
    if len(levels) < 2:
        return ciou.new_zeros(())
    best = precision.flip(0).cummax(0).values.flip(0)
    return (best[:-1] * recall.diff()).sum()


def detection_f1(ciou: Tensor, confidence: Tensor, threshold: float = 0.5, level: float = 0.5) -> Tensor:
    r"""Computes the F1 of detections at one confidence level, :math:`2PR / (P + R)`, as AVGN's evaluation code does.

    Precision P and recall R are those of :func:`detection_average_precision`. P is 1 if nothing is detected, R is 1 if
    there is neither a true positive nor a false negative, and F1 is 0 if both are 0.

    Args:
        ciou: cIoU of the entries, (n,), floating, free of NaN.
        confidence: their confidence, (n,), floating, free of NaN.
        threshold: smallest cIoU of a correct localization, in [0, 1].
        level: smallest confidence of a detection.

    Returns:
        0-d float64 in [0, 1]; NaN without an entry.

    Raises:
        TypeError: if a tensor is not floating.
        ValueError: if shapes differ, values are NaN or ``threshold`` is outside [0, 1].

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import detection_f1
        >>> detection_f1(torch.tensor([0.9, 0.8, 0.1, 0.6]), torch.tensor([0.9, 0.7, 0.6, 0.2]))
        tensor(0.6667, dtype=torch.float64)
    """
    level = check_number("level", level)
    return _detection_f1(*_checked(ciou, confidence, threshold), threshold, level)


def _detection_f1(ciou: Tensor, confidence: Tensor, threshold: float, level: float = 0.5) -> Tensor:
    if len(ciou) == 0:
        return ciou.new_tensor(torch.nan)
    is_detected = confidence >= level
    right = (is_detected & (ciou >= threshold)).sum().to(torch.float64)
    detected, missed = is_detected.sum(), (~is_detected).sum()
    precision = torch.where(detected == 0, 1.0, right / detected.clamp(min=1))
    recall = _recall(right, missed)
    return torch.where(precision + recall == 0, 0.0, 2 * precision * recall / (precision + recall).clamp(min=1e-300))


def _recall(right: Tensor, missed: Tensor) -> Tensor:
    return torch.where(right + missed == 0, 1.0, right / (right + missed).clamp(min=1))


def _checked(ciou: Tensor, confidence: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    for name, value in (("ciou", ciou), ("confidence", confidence)):
        check_floating(name, value)
        check_values(name, value)
    check_shapes(ciou=(ciou, "n"), confidence=(confidence, "n"))
    threshold = check_number("threshold", threshold, least=0, most=1)
    ciou, confidence = ciou.to(torch.float64), confidence.to(torch.float64)
    check_no_nan("ciou", ciou)
    check_no_nan("confidence", confidence)
    return ciou, confidence
