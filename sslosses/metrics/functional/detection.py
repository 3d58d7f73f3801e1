"""Detection metrics over confidence: a localization counts only if the model is confident that something sounds."""

from __future__ import annotations

import torch
from torch import Tensor

from sslosses._checks import check_floating, check_number, check_shapes
from sslosses.metrics.functional._inputs import check_no_nan, check_values


def detection_average_precision(
    ciou: Tensor, confidence: Tensor, threshold: float = 0.5, *, negatives: Tensor | None = None
) -> Tensor:
    r"""Computes the average precision of detections, as AVGN's and SLAVC's evaluation code does.

    At a confidence level c, an entry of confidence ≥ c is a true positive (TP) if its cIoU reaches the threshold and a
    false positive otherwise. An entry below c is a false negative (FN). A sample without a source (a negative) of
    confidence ≥ c is a false positive. Recall is R = TP / (TP + FN), and P is the precision. Levels run down from the
    second largest of the n confidences, those of negatives included, in steps of max(1, ⌊n / 200⌋):

    .. math:: \mathrm{AP} = \sum_i \max_{j \ge i} P_j \; (R_{i+1} - R_i)

    Args:
        ciou: cIoU of the entries, (n,), floating, free of NaN.
        confidence: their confidence, (n,), floating, free of NaN.
        threshold: smallest cIoU of a correct localization, in [0, 1].
        negatives: confidence of the samples without a source, (m,), floating, free of NaN; None: there are none.

    Returns:
        0-d float64 in [0, 1]; 0 with fewer than three confidences, NaN without an entry.

    Raises:
        TypeError: if a tensor is not floating.
        ValueError: if shapes differ, values are NaN or ``threshold`` is outside [0, 1].

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import detection_average_precision
        >>> ciou, confidence = torch.tensor([0.9, 0.8, 0.1, 0.6]), torch.tensor([0.9, 0.7, 0.4, 0.2])
        >>> detection_average_precision(ciou, confidence)  # recall 1/2, 2/3, 1 at precision 1, 2/3, 3/4
        tensor(0.4167, dtype=torch.float64)
        >>> detection_average_precision(ciou, confidence, negatives=torch.tensor([0.8, 0.1]))
        tensor(0.4778, dtype=torch.float64)
    """
    return _detection_average_precision(*_checked(ciou, confidence, threshold, negatives), threshold)


def _detection_average_precision(
    ciou: Tensor, confidence: Tensor, negatives: Tensor | None, threshold: float
) -> Tensor:
    if len(ciou) == 0:
        return ciou.new_tensor(torch.nan)
    ordered, right, has_source = _sorted(ciou, confidence, negatives, threshold)
    count = len(ordered)
    levels = ordered[:-1].flip(0)[:: max(1, count // 200)].contiguous()
    if len(levels) < 2:
        return ciou.new_zeros(())
    precision, recall = _precision_and_recall(ordered, right, has_source, levels)
    best = precision.flip(0).cummax(0).values.flip(0)
    return (best[:-1] * recall.diff()).sum()


def _sorted(
    ciou: Tensor, confidence: Tensor, negatives: Tensor | None, threshold: float
) -> tuple[Tensor, Tensor, Tensor | None]:
    """All confidences in ascending order, whether each is a correct localization, and whether it has a source."""
    hits = (ciou >= threshold).long()
    if negatives is None or len(negatives) == 0:
        ordered, order = confidence.sort(stable=True)
        return ordered, hits[order], None
    ordered, order = torch.cat([confidence, negatives]).sort(stable=True)
    has_source = (order < len(ciou)).long()
    return ordered, torch.cat([hits, hits.new_zeros(len(negatives))])[order], has_source


def _precision_and_recall(
    ordered: Tensor, right: Tensor, has_source: Tensor | None, levels: Tensor
) -> tuple[Tensor, Tensor]:
    first = torch.searchsorted(ordered, levels)  # the first entry of at least that confidence
    # Sums of integers do not depend on their order.
    hits = torch.cat([right.flip(0).cumsum(0).flip(0), right.new_zeros(1)])[first].double()
    missed = first
    if has_source is not None:
        missed = torch.cat([has_source.new_zeros(1), has_source.cumsum(0)])[first]
    return hits / (len(ordered) - first), _recall(hits, missed)


def detection_f1(
    ciou: Tensor,
    confidence: Tensor,
    threshold: float = 0.5,
    level: float = 0.5,
    *,
    negatives: Tensor | None = None,
) -> Tensor:
    r"""Computes the F1 of detections at one confidence level, :math:`2PR / (P + R)`, as AVGN's evaluation code does.

    Precision P and recall R are those of :func:`detection_average_precision`. P is 1 if nothing is detected, R is 1 if
    there is neither a true positive nor a false negative, and F1 is 0 if both are 0.

    Args:
        ciou: cIoU of the entries, (n,), floating, free of NaN.
        confidence: their confidence, (n,), floating, free of NaN.
        threshold: smallest cIoU of a correct localization, in [0, 1].
        level: smallest confidence of a detection.
        negatives: confidence of the samples without a source, (m,), floating, free of NaN; None: there are none.

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
    return _detection_f1(*_checked(ciou, confidence, threshold, negatives), threshold, level)


def _detection_f1(
    ciou: Tensor, confidence: Tensor, negatives: Tensor | None, threshold: float, level: float = 0.5
) -> Tensor:
    if len(ciou) == 0:
        return ciou.new_tensor(torch.nan)
    is_detected = confidence >= level
    right = (is_detected & (ciou >= threshold)).sum().to(torch.float64)
    detected, missed = is_detected.sum(), (~is_detected).sum()
    if negatives is not None:
        detected = detected + (negatives >= level).sum()
    precision = torch.where(detected == 0, 1.0, right / detected.clamp(min=1))
    return _f1(precision, _recall(right, missed))


def detection_max_f1(
    ciou: Tensor, confidence: Tensor, threshold: float = 0.5, *, negatives: Tensor | None = None
) -> Tensor:
    r"""Computes the largest F1 of detections over about ten confidence levels, as SLAVC's evaluation code does.

    The levels are the n confidences in ascending order, those of negatives included, in steps of max(1, ⌊n / 10⌋).
    This is not the largest F1 over all levels. F1 at a level is that of :func:`detection_f1`.

    Args:
        ciou: cIoU of the entries, (n,), floating, free of NaN.
        confidence: their confidence, (n,), floating, free of NaN.
        threshold: smallest cIoU of a correct localization, in [0, 1].
        negatives: confidence of the samples without a source, (m,), floating, free of NaN; None: there are none.

    Returns:
        0-d float64 in [0, 1]; NaN without an entry.

    Raises:
        TypeError: if a tensor is not floating.
        ValueError: if shapes differ, values are NaN or ``threshold`` is outside [0, 1].

    Reference:
        Mo and Morgado, A Closer Look at Weakly-Supervised Audio-Visual Source Localization, NeurIPS 2022, evaluation
        code.

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import detection_max_f1
        >>> ciou, confidence = torch.tensor([0.9, 0.8, 0.1, 0.6]), torch.tensor([0.9, 0.7, 0.4, 0.2])
        >>> detection_max_f1(ciou, confidence)  # at the lowest level, precision is 3/4 and recall 1
        tensor(0.8571, dtype=torch.float64)
    """
    return _detection_max_f1(*_checked(ciou, confidence, threshold, negatives), threshold)


def _detection_max_f1(ciou: Tensor, confidence: Tensor, negatives: Tensor | None, threshold: float) -> Tensor:
    if len(ciou) == 0:
        return ciou.new_tensor(torch.nan)
    ordered, right, has_source = _sorted(ciou, confidence, negatives, threshold)
    levels = ordered[:: max(1, len(ordered) // 10)].contiguous()
    return _f1(*_precision_and_recall(ordered, right, has_source, levels)).amax()


def _f1(precision: Tensor, recall: Tensor) -> Tensor:
    return torch.where(precision + recall == 0, 0.0, 2 * precision * recall / (precision + recall).clamp(min=1e-300))


def _recall(right: Tensor, missed: Tensor) -> Tensor:
    return torch.where(right + missed == 0, 1.0, right / (right + missed).clamp(min=1))


def _checked(
    ciou: Tensor, confidence: Tensor, threshold: float, negatives: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    given = {"ciou": ciou, "confidence": confidence} | ({} if negatives is None else {"negatives": negatives})
    for name, value in given.items():
        check_floating(name, value)
        check_values(name, value)
    check_shapes(ciou=(ciou, "n"), confidence=(confidence, "n"))
    check_number("threshold", threshold, least=0, most=1)
    ciou, confidence = ciou.to(torch.float64), confidence.to(torch.float64)
    check_no_nan("ciou", ciou)
    check_no_nan("confidence", confidence)
    if negatives is not None:
        check_shapes(ciou=(ciou, "n"), negatives=(negatives, "m"))
        negatives = negatives.to(torch.float64)
        check_no_nan("negatives", negatives)
    return ciou, confidence, negatives
