"""AVSBench's metrics of binary masks, M_J and M_F, as a torchmetrics metric."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sslosses._checks import check_count, check_option, check_shapes
from sslosses._torch import at_least_float32
from sslosses.metrics.functional._inputs import check_binary, check_maps, check_no_nan, check_values
from sslosses.metrics.functional.segmentation import f_curve_of, iou_of
from sslosses.metrics.segmentation._sums import SumsOfFrames

_SCALES = ("logits", "probabilities")
_CURVE = 255
_HALF = 127  # index of the threshold 0.5
# Places of sums over frames or videos, after the 255 of the curves.
_IOU, _FRAMES, _WITH_OBJECT, _VIDEOS = range(_CURVE, _CURVE + 4)


class AVSBenchSegmentation(SumsOfFrames):
    r"""Computes AVSBench's M_J and M_F of binary masks, as published and pooled over all frames.

    .. math:: M_J = \frac1B \sum_b \frac{1}{|b|} \sum_{i \in b} J_i, \qquad
              M_F = \frac1B \sum_b \max_\theta \frac{1}{|b'|} \sum_{i \in b'} F_i(\theta)

    over B batches b of frames i, where b' are the frames of b with an object;
    :func:`~sslosses.metrics.functional.foreground_iou` of the pixels with p > 0.5 is J, and
    :func:`~sslosses.metrics.functional.f_measure_curve` is F. A batch without any object counts 0 in M_F.

    M_F chooses the best of 255 thresholds by the ground truth, anew for each batch. So it is an oracle, and it grows as
    batches shrink. The published code takes 1 video per batch by default, and its scripts pass 4. ``M_F pooled``
    chooses one threshold for all frames. It is an oracle too, but does not depend on batches. ``F@0.5 pooled`` has a
    fixed threshold and is no oracle.

    A batch consists of consecutive videos, whether one update adds them or several. The last batch may be smaller, and
    so may the last one of each process and of each merged metric. Memory does not grow with the number of frames.

    Args:
        scale: what maps hold: ``"logits"``, of which the sigmoid is computed, or ``"probabilities"``.
        videos_per_batch: number of videos per batch.
        kwargs: passed to :class:`torchmetrics.Metric`.

    Raises:
        TypeError: if ``videos_per_batch`` is not an integer.
        ValueError: if ``scale`` is not one of the two, or ``videos_per_batch`` is below 1.

    Reference:
        Zhou et al., Audio-Visual Segmentation, ECCV 2022, evaluation code.

    Example:
        >>> import torch
        >>> from sslosses.metrics import AVSBenchSegmentation
        >>> metric = AVSBenchSegmentation(scale="probabilities")
        >>> maps = torch.tensor([[[[0.9, 0.6]], [[0.6, 0.2]]], [[[0.2, 0.4]], [[0.3, 0.1]]]])  # 2 videos of 2 frames
        >>> truths = torch.tensor([[[[1, 0]], [[1, 0]]], [[[0, 1]], [[0, 0]]]])
        >>> metric.update(maps, truths)
        >>> for name, value in metric.compute().items():
        ...     print(f"{name}: {value:.3g}")
        M_J: 0.625
        M_F (oracle): 0.891
        M_J pooled: 0.625
        M_F pooled (oracle): 0.855
        F@0.5 pooled: 0.522
        frames: 4
        frames_without_object: 1
        videos: 2
        batches: 2
    """

    higher_is_better = True
    #: ``forward`` has to go on with the batch that earlier videos began.
    full_state_update = True

    whole: Tensor
    begun: Tensor
    batches: Tensor

    def __init__(self, *, scale: str, videos_per_batch: int = 1, **kwargs: Any) -> None:
        check_option("scale", scale, _SCALES)
        self.scale = scale
        self.videos_per_batch = check_count("videos_per_batch", videos_per_batch)
        settings = {"videos_per_batch": self.videos_per_batch, "scale": _SCALES.index(scale)}
        super().__init__(settings, **kwargs)
        for name, size in (("whole", _VIDEOS + 1), ("begun", _VIDEOS + 1), ("batches", 3)):
            self.add_state(name, torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")

    def extra_repr(self) -> str:
        """Names the settings, for ``repr``."""
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in ("scale", "videos_per_batch"))

    def update(self, maps: Tensor, truths: Tensor) -> None:
        """Adds videos. After an error nothing is added.

        Args:
            maps: maps of V videos of F frames, (V, F, H, W), floating; half precision is computed in float32. They have
                the size of the masks: resize smaller ones with :func:`~sslosses.metrics.functional.resize_bilinear`.
            truths: masks, (V, F, H, W), boolean or holding 0 and 1 only.

        Raises:
            TypeError: if dtypes are wrong.
            ValueError: if shapes or devices do not fit, maps are NaN, probabilities are outside [0, 1], or masks hold
                values other than 0 and 1.
        """
        check_maps("maps", maps)
        check_no_nan("maps", maps)
        check_values("truths", truths)
        check_binary("truths", truths)
        sizes = check_shapes(maps=(maps, "V F H W"), truths=(truths, "V F H W"))
        if sizes["F"] == 0:
            raise ValueError(f"Expected `maps` to have shape (V, F, H, W) with F >= 1, but got {tuple(maps.shape)}")
        (probabilities,) = at_least_float32(maps)
        if self.scale == "logits":
            probabilities = probabilities.sigmoid()
        elif not bool(((probabilities >= 0) & (probabilities <= 1)).all()):
            raise ValueError(
                'Expected `maps` to lie in [0, 1], as `scale` is "probabilities", but got other values. Pass '
                'scale="logits" for logits'
            )
        rows = torch.zeros(len(maps), _VIDEOS + 1, dtype=torch.float64, device=maps.device)
        masks = truths != 0
        curves = f_curve_of(probabilities, masks)
        rows[:, :_CURVE] = curves.nan_to_num(0.0).sum(1)
        rows[:, _IOU] = iou_of(probabilities > 0.5, masks).sum(1)
        rows[:, _FRAMES] = sizes["F"]
        rows[:, _WITH_OBJECT] = (~curves[..., 0].isnan()).sum(1).double()
        rows[:, _VIDEOS] = 1
        rows = rows.to(self.device)
        self.whole = self.whole + rows.sum(0)
        room = self.videos_per_batch - int(self.begun[_VIDEOS])
        for part in (rows[:room], *torch.split(rows[room:], self.videos_per_batch)):
            self.begun = self.begun + part.sum(0)
            if int(self.begun[_VIDEOS]) == self.videos_per_batch:
                self._end_batch()

    def _end_batch(self) -> None:
        self.batches, self.begun = self.batches + _batch(self.begun), torch.zeros_like(self.begun)

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        self._end_batch()  # the batches of two processes are two
        super()._sync_dist(*args, **kwargs)

    def _mergeable(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        begun = state["begun"]
        return state | {"batches": state["batches"] + _batch(begun), "begun": torch.zeros_like(begun)}

    def compute(self) -> dict[str, Tensor]:
        """Computes the metrics of all videos so far.

        Returns:
            0-d tensors: M_J and M_F as published and pooled, and F at the threshold 0.5 (float64 in [0, 1]; NaN without
            a frame, and pooled F without a frame with an object); then the counts ``frames``,
            ``frames_without_object``, ``videos`` and ``batches`` (int64).
        """
        iou, score, batches = (self.batches + _batch(self.begun)).unbind()
        frames, with_object, videos = self.whole[_FRAMES], self.whole[_WITH_OBJECT], self.whole[_VIDEOS]
        curve = self.whole[:_CURVE] / with_object
        return {
            "M_J": iou / batches,
            "M_F (oracle)": score / batches,
            "M_J pooled": self.whole[_IOU] / frames,
            "M_F pooled (oracle)": curve.max(),
            "F@0.5 pooled": curve[_HALF],
            "frames": frames.long(),
            "frames_without_object": (frames - with_object).long(),
            "videos": videos.long(),
            "batches": batches.long(),
        }


def _batch(sums: Tensor) -> Tensor:
    """Computes mean J and largest mean F of the frames of a batch, and 1; zeros for a batch without a video."""
    score = (sums[:_CURVE] / sums[_WITH_OBJECT].clamp(min=1)).max()
    values = torch.stack([sums[_IOU] / sums[_FRAMES].clamp(min=1), score, torch.ones_like(score)])
    return values * (sums[_VIDEOS] > 0)
