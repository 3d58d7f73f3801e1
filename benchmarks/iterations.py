"""Counts Sinkhorn iterations to a marginal error of 1e-3, plain and with ways to save some; same on any machine.

The problems are similarity maps as in ``transport.py``, "random", and as many that are nearly complementary,
S_m ≈ 1 − S_n, as after training; in float64. One iteration updates both potentials. The iterations of all methods are
counted by the same loop and criterion.

- plain: from zero.
- warm start: the maps move by a smooth random step of this root mean square, as between two visits of a sample in
  training, and the solve starts at the potentials of the step before; the mean over 5 steps.
- ε-scaling: from 0.5 down to ε by a factor, a few iterations per level, each started at the level before it; the count
  is of all levels.
- over-relaxation: f ← (1 − ω) f + ω f', the same for g. "best ω" is the value of 1.0, 1.1 … 1.9 with the fewest
  iterations for all problems. "estimated ω" is 2 / (1 + √(1 − r)) per problem, where r is the ratio of the errors of
  two successive iterations after 10 plain ones. Neither is known to converge from every start.

Run: python benchmarks/transport.py --preset iterations
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any, NamedTuple

import torch
from problems import Pairs, pairs_of, similarity_maps, smooth
from torch import Tensor

from sslosses.transport import grid_positions

EPSILONS = (0.1, 0.05, 0.02, 0.01, 0.005)
GRIDS = ((14, 7), (14, 14))
TOL = 1e-3
MOST = 50_000
OMEGAS = tuple(1 + i / 10 for i in range(10))
STEPS = 5
REGIMES = ("random", "complementary")


class Counted(NamedTuple):
    """Iterations per problem, (P,), above the limit if not converged, and g / ε as the start of another solve."""

    iterations: Tensor
    scaled_g: Tensor


def problems(regime: str, count: int, height: int, width: int) -> Pairs:
    """``count`` problems of a regime in float64."""
    generator = torch.Generator().manual_seed(0)
    if regime == "random":
        return pairs_of(similarity_maps(count, 1, height, width, generator)).to(torch.float64)
    first, second = (smooth(count, height, width, generator).flatten(1) for _ in range(2))
    source = 0.5 + 0.2 * first
    return Pairs(source, source + 0.05 * second, grid_positions(height, width)).to(torch.float64)


def sinkhorn(
    pairs: Pairs, epsilon: float, *, start: Tensor | None = None, omega: float | None = 1.0, most: int = MOST
) -> Counted:
    """Over-relaxed Sinkhorn on the kernel, which does not underflow in float64 for ε ≥ 0.005; ω None: estimated."""
    kernel = (-pairs.cost.dense() / epsilon).exp()
    mass = 1 / kernel.shape[-1]
    v = torch.ones_like(pairs.target) if start is None else start.exp()
    u = torch.ones_like(pairs.source)
    weight = torch.full_like(u[:, :1], omega or 1.0)
    count = torch.full((len(u),), most + 1.0)
    ratio = before = torch.zeros(len(u), dtype=u.dtype)
    for i in range(1, most + 1):
        image = _product(kernel, v)
        u = u * (mass / image / u) ** weight if i > 1 else mass / image
        # The error after i − ½ iterations, which count as i: v is not updated yet.
        image_of_u = _product(kernel.mT, u)
        error = (u * image - mass).abs().sum(-1) + (v * image_of_u - mass).abs().sum(-1)
        count = torch.where((error <= TOL) & (count > most), i, count)
        if bool((count <= most).all()) or not bool(error.isfinite().all()):
            break
        v = v * (mass / image_of_u / v) ** weight
        ratio, before = error / before, error
        if omega is None and i == 10:
            weight = (2 / (1 + (1 - ratio.clamp(0, 0.999)).sqrt())).unsqueeze(-1)
    return Counted(count, v.log())


def _product(kernel: Tensor, vector: Tensor) -> Tensor:
    return torch.bmm(kernel, vector.unsqueeze(-1))[..., 0]


def warm(pairs: Pairs, epsilon: float, step: float, height: int, width: int) -> Tensor:
    """Iterations per problem: the mean over the steps of a random walk after its first solve."""
    generator = torch.Generator().manual_seed(1)
    start = sinkhorn(pairs, epsilon).scaled_g
    counts = []
    for _ in range(STEPS):
        moves = smooth(2 * len(pairs.source), height, width, generator).flatten(1).double()
        moves = step * moves / moves.square().mean(1, keepdim=True).sqrt()
        source_move, target_move = moves.chunk(2)
        pairs = pairs._replace(source=pairs.source + source_move, target=pairs.target - target_move)
        count, start = sinkhorn(pairs, epsilon, start=start)
        counts.append(count)
    return torch.stack(counts).mean(0)


def scaled(pairs: Pairs, epsilon: float, factor: float, per_level: int, omega: float = 1.0) -> Tensor:
    """Iterations per problem over all levels of ε-scaling; ω is that of the last level."""
    total, start, level = torch.zeros(len(pairs.source)), None, 0.5
    while level > epsilon * 1.001:
        count, start = sinkhorn(pairs, level, start=start, most=per_level)
        following = max(level * factor, epsilon)
        total, start, level = total + count.clamp(max=per_level), start * (level / following), following
    return total + sinkhorn(pairs, epsilon, start=start, omega=omega).iterations


def measure(known: Container[str] = (), count: int = 4) -> Iterator[tuple[str, dict[str, Any]]]:
    """Key and row per grid, regime and ε that is not ``known``: mean and largest number of iterations per method."""
    for height, width in GRIDS:
        for regime in REGIMES:
            pairs = problems(regime, count, height, width)
            for epsilon in EPSILONS:
                key = f"{height}x{width} {regime} eps{epsilon:g}"
                if key in known:
                    continue
                methods: dict[str, Tensor] = {"plain": sinkhorn(pairs, epsilon).iterations}
                for step in (0.01, 0.05):
                    methods[f"warm start, step {step}"] = warm(pairs, epsilon, step, height, width)
                for factor, per_level in ((0.5, 1), (0.5, 5), (0.5, 20), (0.25, 5)):
                    methods[f"ε-scaling by {factor}, {per_level} per level"] = scaled(pairs, epsilon, factor, per_level)
                methods["ε-scaling by 0.5, 5 per level, then ω = 1.5"] = scaled(pairs, epsilon, 0.5, 5, 1.5)
                # A relaxation that takes longer than plain iterations is stopped.
                most = int(methods["plain"].max())
                tried = {omega: sinkhorn(pairs, epsilon, omega=omega, most=most).iterations for omega in OMEGAS}
                best = min(tried, key=lambda omega: float(tried[omega].max()))
                methods["best ω"], methods["ω = 1.5"] = tried[best], tried[1.5]
                methods["estimated ω"] = sinkhorn(pairs, epsilon, omega=None, most=most).iterations
                row = {
                    "pixels": f"{height}x{width}",
                    "maps": regime,
                    "epsilon": epsilon,
                    "best_omega": best,
                    "slower_or_diverging_omega": [omega for omega in OMEGAS if tried[omega].max() > most],
                    "mean": {name: round(float(value.double().mean()), 1) for name, value in methods.items()},
                    "most": {name: round(float(value.max())) for name, value in methods.items()},
                }
                yield key, row
