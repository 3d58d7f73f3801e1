"""Targets: the ground truth on its canvases, with the sums over pixels that metrics are computed from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import pad

from sslosses._torch import at_least_float32, full_matmul
from sslosses.metrics._pipeline.marks import MedianMarks
from sslosses.metrics._pipeline.samples import Samples
from sslosses.metrics.functional.boxes import pixel_corners, rasterize_corners


@dataclass(frozen=True)
class MaskTargets:
    """Ground truth as maps (B, S, H, W), floating, ≥ 0."""

    maps: Tensor

    @property
    def sources(self) -> int:
        """Number of sources S."""
        return self.maps.shape[1]

    @cached_property
    def total(self) -> Tensor:
        """Sum over the pixels of each source, (B, S)."""
        return self.maps.flatten(2).sum(-1)

    @cached_property
    def positive(self) -> Tensor:
        """Number of positive pixels of each source, (B, S)."""
        return (self.maps > 0).sum((-2, -1))

    def spread(self, axis: int) -> MaskTargets:
        """Puts source s on frame s of a canvas of S frames along ``axis``, −2 or −1, with 0 elsewhere."""
        size = self.maps.shape[axis]
        margins = [(s * size, (self.sources - 1 - s) * size) for s in range(self.sources)]
        parts = [pad(self.maps[:, s], (0, 0, *margin) if axis == -2 else margin) for s, margin in enumerate(margins)]
        return MaskTargets(torch.stack(parts, 1))

    def union(self) -> MaskTargets:
        """One target per sample: the maximum over its sources."""
        return MaskTargets(self.maps.amax(1, keepdim=True))

    @cached_property
    def is_binary(self) -> bool:
        """Whether all values are 0 or 1: then none exceeds 1 and they add up to the number of non-zero values."""
        flat = self.maps.flatten()
        if flat.numel() == 0:
            return True
        return bool((flat.ceil().sum() == flat.sum()) & (flat.amax() <= 1))

    def sums(self, binary: Tensor | MedianMarks) -> dict[str, Tensor]:
        """Computes the sums over pixels for all pairs of a map and a source, (B, M, S), float64.

        The sums are computed in float32 only where that is exact or accurate to seven digits (counts below 2²⁴).

        Args:
            binary: (B, M, F, H, W) of 0 and 1 with F = 1 or F = S; for boxes, marks with F = 1, too.

        Returns:
            By name: ``inter``, the sum of map times target; ``hits``, the marked pixels where the target is positive;
            ``binary``, the marked pixels; ``truth``, the sum of the target; ``positive``, its positive pixels.
        """
        assert isinstance(binary, Tensor)  # marks are counted in the cells of boxes
        b, g = binary.flatten(3).to(self.maps.dtype), self.maps.flatten(2)

        def pairs(truths: Tensor) -> Tensor:
            if b.shape[2] == 1:
                return full_matmul(b[:, :, 0], truths.transpose(-2, -1))
            return full_matmul(b.transpose(1, 2), truths[..., None])[..., 0].transpose(1, 2)

        with torch.autocast(b.device.type, enabled=False):
            inter = pairs(g)
            positive = g if self.is_binary else (g > 0).to(g.dtype)
            hits = inter if positive is g else pairs(positive)
        return _sums(inter, hits, b.sum(-1), g.sum(-1), positive.sum(-1))


class BoxTargets:
    """Ground truth as boxes. Sums need no drawn masks: they are taken over the cells between the boxes' edges.

    Args:
        corners: xmin, ymin, xmax, ymax in pixels, n boxes per source, (B, S, n, 4), int64.
        canvas: height and width.
        add: whether boxes add up where they overlap.
    """

    def __init__(self, corners: Tensor, canvas: tuple[int, int], add: bool) -> None:
        self.corners, self.canvas, self.add = corners, canvas, add
        self.sources = corners.shape[1]
        self.is_binary = not add
        xmin, ymin, xmax, ymax = corners.unbind(-1)
        self._across, wide, widths = _segments(xmin, xmax)
        self._down, high, heights = _segments(ymin, ymax)
        cover = high.transpose(-2, -1) @ wide
        self._cover = cover if add else cover.clamp_(max=1)
        area = heights[..., :, None] * widths[..., None, :]
        self.total = (area * self._cover).sum((-2, -1))
        self.positive = (area * (self._cover > 0)).sum((-2, -1)) if add else self.total

    def spread(self, axis: int) -> BoxTargets:
        """As :meth:`MaskTargets.spread`."""
        shift = torch.arange(self.sources, device=self.corners.device)[:, None, None] * self.canvas[axis]
        along = torch.tensor([axis == -1, axis == -2] * 2, device=self.corners.device)
        height, width = self.canvas
        canvas = (height * self.sources, width) if axis == -2 else (height, width * self.sources)
        return BoxTargets(self.corners + shift * along, canvas, self.add)

    def union(self) -> Targets:
        """As :meth:`MaskTargets.union`."""
        if self.add:
            return MaskTargets(self.maps).union()
        return BoxTargets(self.corners.flatten(1, 2)[:, None], self.canvas, self.add)

    @cached_property
    def maps(self) -> Tensor:
        """The boxes drawn as masks, (B, S, H, W)."""
        covered = rasterize_corners(self.corners, self.canvas)
        return covered if self.add else covered.clamp_(max=1)

    def sums(self, binary: Tensor | MedianMarks) -> dict[str, Tensor]:
        """As :meth:`MaskTargets.sums`."""
        if isinstance(binary, MedianMarks):
            cells, marked = binary.cells(self._down, self._across)
        else:
            cells, marked = self._cells(binary.float())
        inter = (cells * self._cover[:, None]).sum((-2, -1))
        hits = (cells * (self._cover[:, None] > 0)).sum((-2, -1)) if self.add else inter
        return _sums(inter, hits, marked, self.total, self.positive)

    def _cells(self, binary: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`MedianMarks.cells`, of maps (B, M, F, H, W)."""
        batch, maps = binary.shape[:2]
        down, across = self._segment_rows
        with torch.autocast(binary.device.type, enabled=False):
            if binary.shape[2] == 1:
                rows = down.flatten(1, 2)[:, None].expand(-1, maps, -1, -1) @ binary[:, :, 0]
                rows = rows.view(batch, maps, *down.shape[1:3], binary.shape[-1])
            else:
                rows = down[:, None] @ binary
            return rows @ across[:, None].transpose(-2, -1), binary.flatten(3).sum(-1)

    @cached_property
    def _segment_rows(self) -> tuple[Tensor, Tensor]:
        """The segments along the height and the width as rows of 0 and 1, (B, S, 2n − 1, length), float32."""
        height, width = self.canvas
        return _rows(self._down, height), _rows(self._across, width)


Targets = MaskTargets | BoxTargets


def targets_of(samples: Samples, size: int, add: bool) -> Targets:
    """Returns the ground truth on frames of T×T; with ``add``, overlapping boxes of a source count 2, 3, …."""
    if samples.boxed:
        return box_targets(samples.truths, size, add)
    truths = samples.truths if samples.truths.dtype.is_floating_point else samples.truths.float()
    if samples.truths.dtype != torch.bool and not (bool((truths >= 0).all()) and (add or bool((truths <= 1).all()))):
        raise ValueError(f"Expected `truths` to hold values {'>= 0' if add else 'in [0, 1]'} only")
    return MaskTargets(at_least_float32(truths, samples.maps)[0])


def box_targets(boxes: Tensor, size: int, add: bool) -> BoxTargets:
    """Returns targets of boxes (B, S, n, 4) in fractions of the frame, NaN for padding."""
    return BoxTargets(pixel_corners(boxes, size), (size, size), add)


def _segments(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The 2n − 1 segments between the ends of intervals (..., n) along an axis.

    Returns:
        The ends in ascending order (..., 2n), which segments each interval covers (..., n, 2n − 1), and the length of
        each segment (..., 2n − 1); the last two float32.
    """
    ends = torch.cat([low, high], -1).sort(-1).values
    start, end = ends[..., :-1], ends[..., 1:]
    covers = (low[..., None] <= start[..., None, :]) & (end[..., None, :] <= high[..., None])
    return ends, covers.float(), (end - start).float()


def _rows(ends: Tensor, length: int) -> Tensor:
    """The segments between ends (..., 2n) as rows of 0 and 1, (..., 2n − 1, length), float32."""
    pixel = torch.arange(length, device=ends.device)
    return ((pixel >= ends[..., :-1, None]) & (pixel < ends[..., 1:, None])).float()


def _sums(inter: Tensor, hits: Tensor, binary: Tensor, truth: Tensor, positive: Tensor) -> dict[str, Tensor]:
    sums = {
        "inter": inter,
        "hits": hits,
        "binary": binary.expand_as(inter),
        "truth": truth[:, None].expand_as(inter),
        "positive": positive[:, None].expand_as(inter),
    }
    return {name: value.double() for name, value in sums.items()}
