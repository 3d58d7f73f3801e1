"""Pieces of the metrics of masks: overlap and F-measure of one frame, and the areas of its classes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sslosses._checks import check_count, check_shapes
from sslosses._torch import at_least_float32
from sslosses.metrics.functional._inputs import (
    check_binary,
    check_fractions,
    check_maps,
    check_no_nan,
    check_pair,
    check_values,
)

_THRESHOLDS = 255
_BETA2 = 0.3
_PIXELS = 1 << 18  # counted at once: their indices of 2 MiB fit into a processor's cache


class ClassAreas(NamedTuple):
    """Result of :func:`class_areas`: numbers of pixels per frame and class, (N, C), int64."""

    both: Tensor  #: pixels of the class in prediction and ground truth
    predicted: Tensor  #: pixels of the class in the prediction
    true: Tensor  #: pixels of the class in the ground truth


def foreground_iou(binary: Tensor, truth: Tensor) -> Tensor:
    r"""Computes AVSBench's Jaccard index J of a frame.

    .. math:: J = \frac{|b \wedge g|}{|b \vee g|}, \qquad
              J = 1 - \frac{|b|}{N} \text{ if } g \text{ is empty}

    with the binary map b, the ground truth g and N pixels. So a frame without an object scores the share of its pixels
    that are predicted as background: marking half of it wrongly still gives 0.5.

    Args:
        binary: predicted masks, (..., H, W), boolean or holding 0 and 1 only.
        truth: ground truth, (..., H, W), boolean or holding 0 and 1 only; leading dimensions broadcast with those of
            ``binary``.

    Returns:
        J in [0, 1], (...), float64.

    Raises:
        TypeError: if an argument is not a dense real tensor.
        ValueError: if shapes or devices do not fit, or values are not 0 and 1.

    Reference:
        Zhou et al., Audio-Visual Segmentation, ECCV 2022, evaluation code. It adds 1e-7 to denominators, which no digit
        of a table shows.

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import foreground_iou
        >>> binary = torch.tensor([[1, 1], [1, 0]])
        >>> truth = torch.tensor([[[1, 1], [0, 0]], [[0, 0], [0, 0]]])
        >>> foreground_iou(binary, truth)  # 2 / 3, and 1 - 3 / 4 without an object
        tensor([0.6667, 0.2500], dtype=torch.float64)
    """
    check_pair(("binary", binary), ("truth", truth))
    check_binary("binary", binary)
    check_binary("truth", truth)
    return iou_of(binary != 0, truth != 0)


def iou_of(b: Tensor, g: Tensor) -> Tensor:
    """Computes :func:`foreground_iou` of boolean masks without checks."""
    both, either = (b & g).sum((-2, -1)), (b | g).sum((-2, -1))
    pixels = b.shape[-2] * b.shape[-1]
    empty = ~g.any(-1).any(-1)
    # With an empty ground truth, ``either`` counts the prediction alone.
    return torch.where(empty, pixels - either, both).double() / torch.where(empty, pixels, either)


def f_measure_curve(probabilities: Tensor, truth: Tensor) -> Tensor:
    r"""Computes AVSBench's F-measure of a frame at each of 255 thresholds.

    .. math:: F(\theta) = \frac{(1 + \beta^2) P R}{\beta^2 P + R}
              = \frac{1.3\, |b_\theta \wedge g|}{0.3\, |g| + |b_\theta|}, \qquad b_\theta = [p \ge \theta]

    with β² = 0.3, the probabilities p, the ground truth g, and precision P and recall R of the pixels. The thresholds θ
    are ``torch.linspace(0, 1 - 1e-10, 255)`` in float32, so the last one is 1 and the one of index 127 is 0.5.

    Taking the largest F over θ, as M_F does, uses the ground truth to choose the threshold: it is an oracle.

    Args:
        probabilities: maps in [0, 1], (..., H, W), floating; half precision is computed in float32.
        truth: ground truth, (..., H, W), boolean or holding 0 and 1 only; leading dimensions broadcast with those of
            ``probabilities``.

    Returns:
        F in [0, 1], (..., 255), float64; NaN for frames with an empty ground truth, which M_F leaves out.

    Raises:
        TypeError: if ``probabilities`` is not floating, or an argument is not a dense real tensor.
        ValueError: if shapes or devices do not fit, or values are out of range.

    Reference:
        Zhou et al., Audio-Visual Segmentation, ECCV 2022, evaluation code.

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import f_measure_curve
        >>> curve = f_measure_curve(torch.tensor([[0.9, 0.6], [0.3, 0.1]]), torch.tensor([[1, 0], [0, 0]]))
        >>> curve[0], curve[127], curve.max()  # the whole frame; the upper row; one pixel, from 0.6 to 0.9
        (tensor(0.3023, dtype=torch.float64), tensor(0.5652, dtype=torch.float64), tensor(1., dtype=torch.float64))
    """
    check_maps("probabilities", probabilities)
    check_pair(("probabilities", probabilities), ("truth", truth))
    check_fractions("probabilities", probabilities)
    check_binary("truth", truth)
    return f_curve_of(at_least_float32(probabilities)[0], truth != 0)


def f_curve_of(probabilities: Tensor, truth: Tensor) -> Tensor:
    """Computes :func:`f_measure_curve` of a boolean ground truth, in at least float32, without checks."""
    p, g = torch.broadcast_tensors(probabilities, truth)  # type: ignore[no-untyped-call]
    leading, pixels = p.shape[:-2], p.shape[-2] * p.shape[-1]
    p, g = p.reshape(leading.numel(), pixels), g.reshape(leading.numel(), pixels)
    # On the CPU, whose last digit the published numbers depend on, and in float32 whatever the default dtype is.
    thresholds = torch.linspace(0, 1 - 1e-10, _THRESHOLDS, dtype=torch.float32, device="cpu").to(p)
    step = max(1, _PIXELS // pixels)
    parts = [
        _pixels_from_thresholds(p[i : i + step], g[i : i + step], thresholds) for i in range(0, max(1, len(p)), step)
    ]
    background, both = torch.cat(parts).to(torch.float64).unbind(1)
    true = both[:, :1]  # the threshold 0 marks every pixel
    curve = (1 + _BETA2) * both / (_BETA2 * true + both + background)
    return torch.where(true > 0, curve, torch.nan).view(*leading, _THRESHOLDS)


def _pixels_from_thresholds(probabilities: Tensor, truth: Tensor, thresholds: Tensor) -> Tensor:
    """Counts the pixels at or above each threshold, of the background and of the object, (N, 2, thresholds).

    One histogram per frame holds all thresholds: a pixel belongs to the bin of the largest threshold that it reaches.
    """
    frames, bins = len(probabilities), len(thresholds)
    # Thresholds are 1/254 apart up to the last digit, so this is the bin or a neighbor. It is faster than bucketize.
    index = (probabilities * (bins - 1)).long()
    edges = torch.cat([thresholds, thresholds.new_tensor([torch.inf])])
    index += edges[index + 1] <= probabilities
    index -= (edges[index] > probabilities).long()
    index += bins * (2 * torch.arange(frames, device=index.device)[:, None] + truth)
    counts = torch.bincount(index.flatten(), minlength=2 * bins * frames).view(frames, 2, bins)
    return counts.flip(-1).cumsum(-1).flip(-1)


def class_areas(
    predictions: Tensor, truths: Tensor, num_classes: int, *, ignore_index: int | None = None
) -> ClassAreas:
    """Computes the number of pixels of each class in prediction, ground truth and both, for each frame.

    IoU, precision and recall of a class are ratios of these numbers, of a frame or summed over a data set.

    Args:
        predictions: scores of the classes, (N, C, H, W), floating: the largest one counts, of equal ones the first; or
            predicted class ids, (N, H, W), integers.
        truths: class ids, (N, H, W), integers in [0, C).
        num_classes: C, with the background.
        ignore_index: id in ``truths`` of pixels to leave out; None: none are.

    Returns:
        Numbers of pixels, (N, C), int64.

    Raises:
        TypeError: if an argument is not a dense real tensor, or class ids or an option are not integers.
        ValueError: if shapes or devices do not fit, scores are NaN, or class ids are not in [0, C).

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import class_areas
        >>> predicted, true = torch.tensor([[[0, 1], [1, 1]]]), torch.tensor([[[0, 0], [1, 255]]])
        >>> areas = class_areas(predicted, true, 2, ignore_index=255)
        >>> areas.both, areas.predicted, areas.true
        (tensor([[1, 1]]), tensor([[1, 2]]), tensor([[2, 1]]))
    """
    num_classes = check_count("num_classes", num_classes)
    ignored = None if ignore_index is None else check_count("ignore_index", ignore_index, least=-(2**31))
    check_values("predictions", predictions)
    check_values("truths", truths)
    scored = predictions.dtype.is_floating_point
    if scored:
        check_shapes(predictions=(predictions, "N C H W"), truths=(truths, "N H W"))
        if predictions.shape[1] != num_classes:
            raise ValueError(
                f"Expected `predictions` to have shape (N, {num_classes}, H, W), the scores of `num_classes` classes, "
                f"but got {tuple(predictions.shape)}"
            )
        check_no_nan("predictions", predictions)
    else:
        check_shapes(predictions=(predictions, "N H W"), truths=(truths, "N H W"))
    for name, value in (("predictions", predictions), ("truths", truths)):
        if value.dtype == torch.bool or (value.dtype.is_floating_point and not (scored and name == "predictions")):
            raise TypeError(f"Expected `{name}` to hold class ids of an integer dtype, but got {value.dtype}")
    step = max(1, _PIXELS // truths.shape[-2:].numel())
    parts = [
        _class_areas(predictions[i : i + step], truths[i : i + step], num_classes, ignored)
        for i in range(0, max(1, len(truths)), step)
    ]
    return ClassAreas(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _class_areas(predictions: Tensor, truths: Tensor, classes: int, ignored: int | None) -> ClassAreas:
    predicted = (predictions.argmax(1) if predictions.dtype.is_floating_point else predictions).flatten(1).long()
    true = truths.flatten(1).long()
    frame = torch.arange(len(true), device=true.device)[:, None].expand_as(true)
    if ignored is None:
        frame, predicted, true = frame.flatten(), predicted.flatten(), true.flatten()
    else:
        used = true != ignored
        frame, predicted, true = frame[used], predicted[used], true[used]
    for name, ids in (("predictions", predicted), ("truths", true)):
        wrong = ids[(ids < 0) | (ids >= classes)]
        if len(wrong):
            also = "" if ignored is None or name == "predictions" else f", or `ignore_index` {ignored}"
            raise ValueError(
                f"Expected `{name}` to hold class ids from 0 to {classes - 1}{also}, but got {int(wrong[0])}"
            )

    def counted(place: Tensor, ids: Tensor) -> Tensor:
        return torch.bincount(place * classes + ids, minlength=len(truths) * classes).view(len(truths), classes)

    same = predicted == true
    return ClassAreas(counted(frame[same], true[same]), counted(frame, predicted), counted(frame, true))
