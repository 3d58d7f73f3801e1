"""Transport problems of the ORI loss for the benchmarks: pairs of smooth random similarity maps."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from sslosses.transport import PointcloudCost, grid_positions, pointcloud_cost


class Pairs(NamedTuple):
    """P problems of N pixels: source S_n and target 1 − S_m, (P, N) each, and the pixels' positions, (N, 2)."""

    source: Tensor
    target: Tensor
    positions: Tensor

    @property
    def cost(self) -> PointcloudCost:
        return pointcloud_cost(self.source, self.target, self.positions, self.positions)

    def take(self, count: int) -> Pairs:
        return Pairs(self.source[:count], self.target[:count], self.positions)

    def to(self, dtype: torch.dtype) -> Pairs:
        return Pairs(*(tensor.to(dtype) for tensor in self))


def smooth(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Bicubic noise of 4 × 4 standard normal knots, (count, height, width)."""
    knots = torch.randn(count, 1, 4, 4, generator=generator)
    return torch.nn.functional.interpolate(knots, size=(height, width), mode="bicubic", align_corners=False)[:, 0]


def similarity_maps(batch: int, sources: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Maps of ``sources`` foreground references and one background, (B, K + 1, H, W), in (−1, 1) like cosines."""
    noise = smooth(batch * (sources + 1), height, width, generator)
    return (0.4 * noise).tanh().view(batch, sources + 1, height, width)


def pairs_of(maps: Tensor) -> Pairs:
    """The P = B·K(K + 1)/2 unordered pairs of maps of the same sample, differentiable."""
    n, m = zip(*combinations(range(maps.shape[1]), 2), strict=True)
    flat = maps.flatten(2)
    positions = grid_positions(*maps.shape[-2:], dtype=maps.dtype, device=maps.device)
    return Pairs(flat[:, n].flatten(0, 1), 1 - flat[:, m].flatten(0, 1), positions)
