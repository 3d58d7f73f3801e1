"""Iterations that Sinkhorn needs to a marginal error of 1e-3, and what saves some: counted, hence the same anywhere.

On problems of similarity maps as in ``transport.py``, "random", and on as many that are nearly complementary,
S_m ≈ 1 − S_n, as after training; float64. One iteration updates both potentials. All ways are counted by one loop and
one criterion.

- plain: from zero.
- warm start: the maps move by a smooth random step of the given root mean square, as between two visits of a sample in
  training, and the solve starts at the potentials of the step before; the mean over 5 steps.
- ε-scaling: from 0.5 down to ε by a factor, a few iterations at every level, each started at the level before it; the
  count is of all levels.
- over-relaxation: f ← (1 − ω) f + ω f', the same for g. "best ω" is the one of 1.0, 1.1 … 1.9 with the fewest
  iterations for all problems; "estimated ω" takes 2 / (1 + √(1 − r)) from the error's ratio r of successive
  iterations after 10 plain ones, each problem its own. Neither is known to converge from everywhere.

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
    """Iterations of every problem, (P,), more than the limit if not converged, and g / ε to start another from."""

    iterations: Tensor
    scaled_g: Tensor


def problems(regime: str, count: int, height: int, width: int) -> Pairs:
    """``count`` problems of a regime, in float64."""
    generator = torch.Generator().manual_seed(0)
    if regime == "random":
        return pairs_of(similarity_maps(count, 1, height, width, generator)).to(torch.float64)
    one, two = (smooth(count, height, width, generator).flatten(1) for _ in range(2))
    source = 0.5 + 0.2 * one
    return Pairs(source, source + 0.05 * two, grid_positions(height, width)).to(torch.float64)


def sinkhorn(
    pairs: Pairs, epsilon: float, *, start: Tensor | None = None, omega: float | None = 1.0, most: int = MOST
) -> Counted:
    """Over-relaxed Sinkhorn on the kernel, which float64 holds down to ε = 0.005 here; ω None: estimated."""
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
        # The error at u and the v before its update: i − ½ iterations, which count as i.
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
    """Iterations of every problem, the mean over steps of a walk after its first solve."""
    generator = torch.Generator().manual_seed(1)
    start = sinkhorn(pairs, epsilon).scaled_g
    counts = []
    for _ in range(STEPS):
        moves = smooth(2 * len(pairs.source), height, width, generator).flatten(1).double()
        moves = step * moves / moves.square().mean(1, keepdim=True).sqrt()
        one, two = moves.chunk(2)
        pairs = pairs._replace(source=pairs.source + one, target=pairs.target - two)
        count, start = sinkhorn(pairs, epsilon, start=start)
        counts.append(count)
    return torch.stack(counts).mean(0)


def scaled(pairs: Pairs, epsilon: float, factor: float, each: int, omega: float = 1.0) -> Tensor:
    """Iterations of every problem over all levels of ε-scaling; ω is that of the last."""
    total, start, level = torch.zeros(len(pairs.source)), None, 0.5
    while level > epsilon * 1.001:
        count, start = sinkhorn(pairs, level, start=start, most=each)
        following = max(level * factor, epsilon)
        total, start, level = total + count.clamp(max=each), start * (level / following), following
    return total + sinkhorn(pairs, epsilon, start=start, omega=omega).iterations


def measure(known: Container[str] = (), count: int = 4) -> Iterator[tuple[str, dict[str, Any]]]:
    """Key and row per grid, regime and ε, but ``known`` ones; of every way the mean iterations and the most."""
    for height, width in GRIDS:
        for regime in REGIMES:
            pairs = problems(regime, count, height, width)
            for epsilon in EPSILONS:
                key = f"{height}x{width} {regime} eps{epsilon:g}"
                if key in known:
                    continue
                ways: dict[str, Tensor] = {"plain": sinkhorn(pairs, epsilon).iterations}
                for step in (0.01, 0.05):
                    ways[f"warm start, step {step}"] = warm(pairs, epsilon, step, height, width)
                for factor, each in ((0.5, 1), (0.5, 5), (0.5, 20), (0.25, 5)):
                    ways[f"ε-scaling by {factor}, {each} a level"] = scaled(pairs, epsilon, factor, each)
                ways["ε-scaling by 0.5, 5 a level, then ω = 1.5"] = scaled(pairs, epsilon, 0.5, 5, 1.5)
                # A relaxation that takes longer than plain iterations is of no use.
                most = int(ways["plain"].max())
                tried = {omega: sinkhorn(pairs, epsilon, omega=omega, most=most).iterations for omega in OMEGAS}
                best = min(tried, key=lambda omega: float(tried[omega].max()))
                ways["best ω"], ways["ω = 1.5"] = tried[best], tried[1.5]
                ways["estimated ω"] = sinkhorn(pairs, epsilon, omega=None, most=most).iterations
                row = {
                    "pixels": f"{height}x{width}",
                    "maps": regime,
                    "epsilon": epsilon,
                    "best_omega": best,
                    "slower_or_diverging_omega": [omega for omega in OMEGAS if tried[omega].max() > most],
                    "mean": {name: round(float(value.double().mean()), 1) for name, value in ways.items()},
                    "most": {name: round(float(value.max())) for name, value in ways.items()},
                }
                yield key, row
