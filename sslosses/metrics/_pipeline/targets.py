"""Truths on their canvases: the sums over pixels that metrics are made of, and masks where a metric needs them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import pad

from sslosses.metrics.functional.boxes import pixel_corners, rasterize_corners


@dataclass(frozen=True)
class Masks:
    """Truths as maps of the pixels, (B, S, H, W), floating, ≥ 0."""

    maps: Tensor

    @property
    def sources(self) -> int:
        """S."""
        return self.maps.shape[1]

    @cached_property
    def total(self) -> Tensor:
        """Sum of each truth, (B, S)."""
        return self.maps.flatten(2).sum(-1)

    def spread(self, axis: int) -> Masks:
        """On canvases of S frames along ``axis``, −2 or −1: source s on frame s, 0 elsewhere."""
        size = self.maps.shape[axis]
        around = [(s * size, (self.sources - 1 - s) * size) for s in range(self.sources)]
        parts = [pad(self.maps[:, s], (0, 0, *each) if axis == -2 else each) for s, each in enumerate(around)]
        return Masks(torch.stack(parts, 1))

    def union(self) -> Masks:
        """The largest value of any source, as the only one."""
        return Masks(self.maps.amax(1, keepdim=True))

    @cached_property
    def is_binary(self) -> bool:
        """Whether there are only zeros and ones: values of at most 1 add up to the number of those that are not 0."""
        flat = self.maps.flatten()
        if flat.numel() == 0:
            return True
        return bool((flat.ceil().sum() == flat.sum()) & (flat.amax() <= 1))

    def sums(self, binary: Tensor) -> dict[str, Tensor]:
        """Sums over pixels for all pairs, binary (B, M, F, H, W) of 0 and 1, F of 1 or S → (B, M, S), float64.

        They are sums of float32 only where these are exact or good to the seventh digit: counts below 2²⁴.
        """
        b, g = binary.flatten(3).to(self.maps.dtype), self.maps.flatten(2)

        def pairs(truths: Tensor) -> Tensor:
            if b.shape[2] == 1:
                return b[:, :, 0] @ truths.transpose(-2, -1)
            return (b.transpose(1, 2) @ truths[..., None])[..., 0].transpose(1, 2)

        with torch.autocast(b.device.type, enabled=False):
            inter = pairs(g)
            positive = g if self.is_binary else (g > 0).to(g.dtype)
            hits = inter if positive is g else pairs(positive)
        return _sums(inter, hits, b.sum(-1), g.sum(-1), positive.sum(-1))


class Boxes:
    """Truths as boxes, which are never drawn for a sum: cells between their edges are summed instead.

    Args:
        corners: xmin, ymin, xmax, ymax in pixels, n boxes a source, (B, S, n, 4), int64.
        canvas: height and width.
        add: whether boxes add up where they overlap.
    """

    def __init__(self, corners: Tensor, canvas: tuple[int, int], add: bool) -> None:
        """Find the cells."""
        self.corners, self.canvas, self.add = corners, canvas, add
        self.sources = corners.shape[1]
        self.is_binary = not add
        xmin, ymin, xmax, ymax = corners.unbind(-1)
        self._across, wide, widths = _segments(xmin, xmax, canvas[1])
        self._down, high, heights = _segments(ymin, ymax, canvas[0])
        cover = high.transpose(-2, -1) @ wide
        self._cover = cover if add else cover.clamp_(max=1)
        area = heights[..., :, None] * widths[..., None, :]
        self.total = (area * self._cover).sum((-2, -1))
        self._positive = (area * (self._cover > 0)).sum((-2, -1)) if add else self.total

    def spread(self, axis: int) -> Boxes:
        """As :meth:`Masks.spread`."""
        shift = torch.arange(self.sources, device=self.corners.device)[:, None, None] * self.canvas[axis]
        along = torch.tensor([axis == -1, axis == -2] * 2, device=self.corners.device)
        height, width = self.canvas
        canvas = (height * self.sources, width) if axis == -2 else (height, width * self.sources)
        return Boxes(self.corners + shift * along, canvas, self.add)

    def union(self) -> Masks | Boxes:
        """As :meth:`Masks.union`."""
        if self.add:
            return Masks(self.maps).union()
        return Boxes(self.corners.flatten(1, 2)[:, None], self.canvas, self.add)

    @cached_property
    def maps(self) -> Tensor:
        """As of :class:`Masks`."""
        covered = rasterize_corners(self.corners, self.canvas)
        return covered if self.add else covered.clamp_(max=1)

    def sums(self, binary: Tensor) -> dict[str, Tensor]:
        """As :meth:`Masks.sums`."""
        b = binary.float()
        batch, maps = b.shape[:2]
        with torch.autocast(b.device.type, enabled=False):
            if b.shape[2] == 1:
                rows = self._down.flatten(1, 2)[:, None].expand(-1, maps, -1, -1) @ b[:, :, 0]
                rows = rows.view(batch, maps, *self._down.shape[1:3], b.shape[-1])
            else:
                rows = self._down[:, None] @ b
            cells = rows @ self._across[:, None].transpose(-2, -1)
        inter = (cells * self._cover[:, None]).sum((-2, -1))
        hits = (cells * (self._cover[:, None] > 0)).sum((-2, -1)) if self.add else inter
        return _sums(inter, hits, b.flatten(3).sum(-1), self.total, self._positive)


def boxes_of(boxes: Tensor, size: int, add: bool) -> Boxes:
    """Boxes in fractions of the frame, (B, S, n, 4), NaN where there is none."""
    return Boxes(pixel_corners(boxes, size), (size, size), add)


def _segments(low: Tensor, high: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of intervals (..., n) along an axis: the 2n − 1 segments between their ends as rows of 0 and 1 (..., 2n − 1,
    length), which segments each interval covers (..., n, 2n − 1), and the segments' lengths; all float32."""
    ends = torch.cat([low, high], -1).sort(-1).values
    start, end = ends[..., :-1, None], ends[..., 1:, None]
    pixel = torch.arange(length, device=low.device)
    rows = ((pixel >= start) & (pixel < end)).float()
    covers = (low[..., None] <= start.mT) & (end.mT <= high[..., None])
    return rows, covers.float(), (end - start)[..., 0].float()


def _sums(inter: Tensor, hits: Tensor, binary: Tensor, truth: Tensor, positive: Tensor) -> dict[str, Tensor]:
    sums = {
        "inter": inter,
        "hits": hits,
        "binary": binary.expand_as(inter),
        "truth": truth[:, None].expand_as(inter),
        "positive": positive[:, None].expand_as(inter),
    }
    return {name: value.double() for name, value in sums.items()}
