"""Metrics of class masks as a torchmetrics metric: per frame, as AVSBench-Semantic, and pooled over the data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sslosses._checks import check_count
from sslosses.metrics.functional.segmentation import class_areas
from sslosses.metrics.segmentation._sums import SumsOfFrames

_BETA2 = 0.3
_NONE = -(2**62)  # in place of an ``ignore_index`` of None


class SemanticSegmentation(SumsOfFrames):
    r"""Computes the metrics of class masks in both published ways: per frame, and pooled over the data set.

    With the areas ∩ (both), P (predicted) and G (true) of a class c, and ∪ = P + G − ∩:

    .. math:: \mathrm{IoU}_c^{\text{frame}} = \frac{1}{n_c} \sum_i \frac{\cap_{ic}}{\cup_{ic}}, \qquad
              \mathrm{IoU}_c^{\text{pooled}} = \frac{\sum_i \cap_{ic}}{\sum_i \cup_{ic}}

    over frames i, of which the class has :math:`\cup_{ic} > 0` in :math:`n_c`. F is
    :math:`(1 + \beta^2) \cap / (\beta^2 G + P)` with β² = 0.3, or 1 for F1, and averaged or pooled in the same way. The
    false discovery rate FDR is :math:`(P - \cap) / P`; low is good. Numbers of one way cannot be compared with numbers
    of the other.

    A class that is neither predicted nor true in any frame counts 0 in the means ``mIoU per frame``, ``mF per frame``
    and ``mIoU pooled``, as published. The metrics of "occurring classes" leave it out. So do F0.3, F1 and FDR, as
    published; FDR also leaves out a class that is never predicted. Memory does not grow with the number of frames.

    Args:
        num_classes: number of classes, with the background.
        ignore_index: class id in the ground truth of pixels to leave out; None: none are.
        without: classes to leave out of all means, such as the background. AVSBench-Semantic's code leaves out its last
            class under the name "noBg"; check which class is the background.
        kwargs: passed to :class:`torchmetrics.Metric`.

    Raises:
        TypeError: if an option is not an integer.
        ValueError: if ``num_classes`` is below 1, ``without`` holds other classes, or leaves none.

    Reference:
        Zhou et al., Audio-Visual Segmentation with Semantics, IJCV 2024, evaluation code (per frame); Chen et al.,
        Unraveling Instance Associations, CVPR 2024, evaluation code (pooled).

    Example:
        >>> import torch
        >>> from sslosses.metrics import SemanticSegmentation
        >>> metric = SemanticSegmentation(3)
        >>> predicted = torch.tensor([[[0, 0, 1, 1]], [[0, 0, 0, 1]]])  # class ids of two frames; scores work, too
        >>> metric.update(predicted, torch.tensor([[[0, 1, 1, 1]], [[0, 0, 0, 0]]]))
        >>> for name, value in metric.compute().items():
        ...     print(f"{name}: {value:.3g}")
        mIoU per frame: 0.319
        mF per frame: 0.398
        mIoU per frame, occurring classes: 0.479
        mF per frame, occurring classes: 0.598
        mIoU pooled: 0.389
        mIoU pooled, occurring classes: 0.583
        F0.3 pooled: 0.733
        F1 pooled: 0.733
        FDR pooled: 0.267
        frames: 2
        classes: 2
    """

    areas: Tensor
    ratios: Tensor
    frames: Tensor

    def __init__(
        self, num_classes: int, *, ignore_index: int | None = None, without: Sequence[int] = (), **kwargs: Any
    ) -> None:
        self.num_classes = check_count("num_classes", num_classes)
        self.ignore_index = None if ignore_index is None else check_count("ignore_index", ignore_index, least=-(2**31))
        if not isinstance(without, tuple | list | range):
            raise TypeError(f"Expected `without` to be a sequence of class ids, but got {without!r}")
        self.without = tuple(check_count(f"without[{i}]", c, least=0) for i, c in enumerate(without))
        classes = range(self.num_classes)
        self._kept = [c for c in classes if c not in self.without]
        if any(c not in classes for c in self.without) or not self._kept:
            raise ValueError(
                f"Expected `without` to hold some, but not all, of the classes 0 to {num_classes - 1}, but got "
                f"{self.without}"
            )
        ignored = _NONE if self.ignore_index is None else self.ignore_index
        super().__init__({"num_classes": self.num_classes, "ignore_index": ignored}, **kwargs)
        #: Per class: sums of the areas ∩, P and G.
        self.add_state("areas", torch.zeros(3, self.num_classes, dtype=torch.int64), dist_reduce_fx="sum")
        #: Per class: sums of IoU and F over frames, and the number of frames with the class.
        self.add_state("ratios", torch.zeros(3, self.num_classes, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("frames", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def extra_repr(self) -> str:
        """Names the settings, for ``repr``."""
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in ("num_classes", "ignore_index", "without"))

    def update(self, predictions: Tensor, truths: Tensor) -> None:
        """Adds frames. After an error nothing is added.

        Args:
            predictions: scores of the classes, (N, C, H, W), floating, of which the largest counts; or predicted class
                ids, (N, H, W), integers.
            truths: class ids, (N, H, W), integers.

        Raises:
            TypeError: if dtypes are wrong.
            ValueError: if shapes or devices do not fit, scores are NaN, or class ids are not in [0, C).
        """
        areas = class_areas(predictions, truths, self.num_classes, ignore_index=self.ignore_index)
        both, predicted, true = (area.to(self.device, torch.float64) for area in areas)
        union = predicted + true - both
        ratios = torch.stack([both / union, _f(both, predicted, true, _BETA2)]).nan_to_num(0.0)
        self.ratios = self.ratios + torch.stack([*ratios.sum(1), (union > 0).sum(0).double()])
        self.areas = self.areas + torch.stack([area.sum(0).to(self.device) for area in areas])
        self.frames = self.frames + len(truths)

    def compute(self) -> dict[str, Tensor]:
        """Computes the metrics of all frames so far.

        Returns:
            0-d tensors: means over classes, per frame and pooled (float64 in [0, 1], NaN without a frame or class to
            average); then the number of ``frames`` and of ``classes`` that occur in them (int64).
        """
        both, predicted, true = self.areas[:, self._kept].double()
        iou, score, counts = self.ratios[:, self._kept]
        iou, score = iou / counts, score / counts  # 0 / 0 is NaN, here and below
        pooled = both / (predicted + true - both)
        nothing = self.frames == 0

        def with_zeros(values: Tensor) -> Tensor:
            return torch.where(nothing, torch.nan, values.nan_to_num(0.0).mean())

        return {
            "mIoU per frame": with_zeros(iou),
            "mF per frame": with_zeros(score),
            "mIoU per frame, occurring classes": iou.nanmean(),
            "mF per frame, occurring classes": score.nanmean(),
            "mIoU pooled": with_zeros(pooled),
            "mIoU pooled, occurring classes": pooled.nanmean(),
            "F0.3 pooled": _f(both, predicted, true, _BETA2).nanmean(),
            "F1 pooled": _f(both, predicted, true, 1.0).nanmean(),
            "FDR pooled": ((predicted - both) / predicted).nanmean(),
            "frames": self.frames.clone(),
            "classes": (counts > 0).sum(),
        }


def _f(both: Tensor, predicted: Tensor, true: Tensor, beta2: float) -> Tensor:
    """Computes F from the areas of classes; NaN for a class without a pixel."""
    return (1 + beta2) * both / (beta2 * true + predicted)
