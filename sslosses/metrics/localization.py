"""Sound localization figures of a protocol, as a torchmetrics metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from sslosses._checks import at_least_float32, check_option
from sslosses.metrics import protocols
from sslosses.metrics._samples import FRAMES, Samples, batches
from sslosses.metrics.functional import (
    AUC_THRESHOLDS,
    area_under_success,
    binarize_above_upper_median,
    binary_average_precision,
    ciou,
    greedy_assignment,
    resize_bicubic,
)


class SoundLocalization(Metric):
    r"""Localization figures of a named protocol, accumulated over samples of any number of sources and maps.

    Per frame, a map is resized to T×T, min-max normalised and binarised above its upper median. The maps of a sample,
    in order, each take the source with the largest cIoU among those left, which records one entry: that cIoU, and the
    pixel average precision of the binary map. A map beyond the number of sources finds nothing left and is an entry of
    0; a source without a map is an entry of 0; a sample without any map adds no entry. The figures are means and
    success rates over entries, see :class:`~sslosses.metrics.protocols.Protocol`.

    The states are sums (float64) and counts, so memory does not grow and DDP synchronises by adding.

    Args:
        protocol: name of a preset (``protocols.available()`` lists them) or a
            :class:`~sslosses.metrics.protocols.Protocol`.
        task: ``"mixtures"`` or ``"single"``: which of the protocol's figures to report. ``"single"`` refuses samples of
            several sources.
        frames: where the sources are. ``"one"``: all in one frame, maps (h, w). ``"stacked"``: source j alone on frame
            j, frames stacked along the height, maps (S·h, w), as in NoPrior's mixtures. ``"side-by-side"``: the same
            along the width, maps (h, S·w).
        kwargs: passed to :class:`torchmetrics.Metric`.

    Raises:
        ValueError: if an option is none of the above; the message lists them.

    Example:
        >>> import torch
        >>> from sslosses.metrics import SoundLocalization, protocols
        >>> truth = torch.zeros(2, 4, 4)
        >>> truth[0, :2] = 1  # source 0 is the upper half of the frame, source 1 the lower
        >>> truth[1, 2:] = 1
        >>> maps = truth + 0.1 * torch.arange(16.0).reshape(4, 4) / 16
        >>> metric = SoundLocalization(protocols.paper.replace(size=4))
        >>> metric.update([maps, maps[:1]], [truth, truth])  # the second sample has one map for two sources
        >>> for name, value in metric.compute().items():
        ...     print(f"{name}: {value:.3g}")
        CAP: 0.703
        CIoU@0.3: 0.75
        AUC: 0.663
        entries: 4
        samples: 2
        samples_without_map: 0
        empty_truths: 0
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    average_precisions: Tensor
    summed_average_precisions: Tensor
    successes: Tensor
    entries: Tensor
    samples: Tensor
    samples_without_map: Tensor
    right_counts: Tensor
    empty_truths: Tensor

    def __init__(
        self,
        protocol: str | protocols.Protocol = "paper",
        *,
        task: str = "mixtures",
        frames: str = "one",
        **kwargs: Any,
    ) -> None:
        """Check the options and set all sums to 0."""
        super().__init__(**kwargs)
        check_option("frames", frames, FRAMES)
        self.protocol = protocols.get(protocol)
        self.figures = self.protocol.figures(task)
        self.task = task
        self.frames = frames
        named = {t for t in (protocols.parse_figure(figure)[1] for figure in self.figures) if t is not None}
        self.thresholds = (*AUC_THRESHOLDS, *sorted(named))
        # float32 sums over thousands of entries would lose the sixth digit
        self.add_state("average_precisions", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("summed_average_precisions", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("successes", torch.zeros(len(self.thresholds), dtype=torch.int64), dist_reduce_fx="sum")
        for name in ("entries", "samples", "samples_without_map", "right_counts", "empty_truths"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self,
        maps: Tensor | Sequence[Tensor],
        truths: Tensor | Sequence[Tensor],
        valid: Tensor | None = None,
    ) -> None:
        """Add samples.

        Args:
            maps: raw heatmaps, higher is more likely, in the model's order: one tensor (B, M, h, w), or B tensors (M_i,
                h, w) with any M_i ≥ 0 and any resolution. Floating; half precision is computed in float32.
            truths: one tensor (B, S, T, T), or B tensors (S_i, T, T) with S_i ≥ 1. Boolean, or values in [0, 1]. A
                truth without a positive pixel counts as a source that nothing can hit, and is counted in
                ``empty_truths``.
            valid: with ``maps`` as one tensor, which maps there are, (B, M), bool; None: all.

        Raises:
            TypeError: if dtypes are wrong.
            ValueError: if shapes or devices do not fit, maps hold NaN or infinity, or truths leave [0, 1].
        """
        groups = batches(
            maps,
            truths,
            valid,
            size=self.protocol.size,
            frames=self.frames,
            most_sources=1 if self.task == "single" else None,
        )
        for group in groups:
            self._count(group)
            if group.maps.shape[1]:
                self._score(group)

    def _count(self, group: Samples) -> None:
        found = group.valid.sum(1)
        sources = group.truths.shape[1]
        missing = (sources - found).clamp(min=0) * (found > 0)
        self.samples += len(found)
        self.samples_without_map += (found == 0).sum()
        self.right_counts += (found == sources).sum()
        self.empty_truths += (group.truths == 0).all(-1).all(-1).sum()
        self.entries += found.sum() + missing.sum()
        # a source without a map is an entry of cIoU 0, which reaches the threshold 0
        self.successes[0] += missing.sum()

    def _score(self, group: Samples) -> None:
        maps, valid, truths = group
        truths = at_least_float32(truths, maps)[0]
        binary = self._binary(self._frames_of(maps, truths.shape[1]))
        overlap, precision = [], []
        for j in range(truths.shape[1]):
            predicted = binary[:, :, 0 if self.frames == "one" else j]
            overlap.append(ciou(predicted, truths[:, j, None]))
            precision.append(binary_average_precision(predicted, truths[:, j, None]))
        assigned = greedy_assignment(torch.stack(overlap, -1), valid)
        entry = torch.stack(precision, -1).gather(-1, assigned.source.clamp(min=0)[..., None])[..., 0]
        self.average_precisions += (entry * assigned.fresh).sum(dtype=torch.float64)
        thresholds = torch.tensor(self.thresholds, dtype=assigned.score.dtype, device=assigned.score.device)
        reached = (assigned.score[..., None] >= thresholds) & valid[..., None]
        self.successes += reached.sum((0, 1))
        if "PIAP" in self.figures:
            summed = self._binary(self._frames_of(maps.sum(1, keepdim=True), truths.shape[1]))[:, 0]
            whole = truths.amax(1, keepdim=True) if self.frames == "one" else truths
            per_sample = binary_average_precision(summed.flatten(1, 2), whole.flatten(1, 2))
            self.summed_average_precisions += (per_sample * valid.any(1)).sum(dtype=torch.float64)

    def _binary(self, maps: Tensor) -> Tensor:
        """Binary maps of maps on the evaluation frames."""
        return binarize_above_upper_median(maps)

    def _frames_of(self, maps: Tensor, sources: int) -> Tensor:
        """Maps resized as a whole and split into frames, (B, M, F, T, T)."""
        size = self.protocol.size
        if self.frames == "one":
            return resize_bicubic(maps, (size, size)).unsqueeze(2)
        if self.frames == "stacked":
            resized = resize_bicubic(maps, (sources * size, size))
            return resized.reshape(*maps.shape[:2], sources, size, size)
        resized = resize_bicubic(maps, (size, sources * size))
        return resized.reshape(*maps.shape[:2], size, sources, size).transpose(2, 3)

    def compute(self) -> dict[str, Tensor]:
        """Figures of all samples so far.

        Returns:
            0-d tensors. First the protocol's figures as fractions in [0, 1] (float64; NaN while there is no entry),
            then the counts (int64): ``entries``, ``samples``, ``samples_without_map``, ``empty_truths``.
        """
        rates = self.successes.to(torch.float64) / self.entries
        figures: dict[str, Tensor] = {}
        for figure in self.figures:
            kind, threshold = protocols.parse_figure(figure)
            if threshold is not None:
                figures[figure] = rates[self.thresholds.index(threshold, len(AUC_THRESHOLDS))]
            elif kind == "AP":
                figures[figure] = self.average_precisions / self.entries
            elif kind == "AUC":
                figures[figure] = area_under_success(rates[: len(AUC_THRESHOLDS)])
            elif kind == "PIAP":
                figures[figure] = self.summed_average_precisions / (self.samples - self.samples_without_map)
            else:
                figures[figure] = self.right_counts.to(torch.float64) / self.samples
        counts = ("entries", "samples", "samples_without_map", "empty_truths")
        return figures | {name: getattr(self, name).clone() for name in counts}

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot the figures, without the counts, with matplotlib.

        Args:
            val: a result of ``compute`` or ``forward``, or a list of them over time; None: the current one.
            ax: matplotlib axes to draw on; None: new ones.

        Returns:
            Figure and axes.

        Raises:
            ModuleNotFoundError: if matplotlib is not installed.
        """
        results = self.compute() if val is None else val
        if isinstance(results, dict):
            return self._plot({name: results[name] for name in self.figures}, ax)
        return self._plot([{name: result[name] for name in self.figures} for result in results], ax)
