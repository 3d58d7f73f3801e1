"""How far Sinkhorn's distance ⟨P, C⟩ is above the exact Wasserstein distance on maps like those of the ORI loss.

The problems are pairs of smooth random maps. Each pixel is a point of mass 1/N, and the cost is
|S_n(x) − (1 − S_m(y))| + ‖x − y‖₂, as in ``ORILoss(formulation="pointcloud")``. Three regimes follow the order of
training: similarities around 0 as at the start; independent maps around 1/2; nearly complementary maps, S_m = 1 − S_n
up to about 0.05. Maps that are 1/2 everywhere have the exact distance 0; their Sinkhorn distance is the residual.

    python benchmarks/studies/entropic_gap.py

Writes benchmarks/results/entropic_gap.json and docs/figures/entropic_gap.png.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import torch
from study import study_parser, write_figure, write_json
from torch import Tensor

from sslosses.transport import PointcloudCost, TransportResult, grid_positions, pointcloud_cost, solve

mpl.use("Agg")
import matplotlib.pyplot as plt

EPSILONS = (0.1, 0.05, 0.02, 0.01, 0.005, 0.001)
GRIDS = ((14, 7), (14, 14))
REGIMES = {
    "start": "similarities around 0",
    "independent": "independent, around ½",
    "complementary": "nearly complementary",
}


def smooth_noise(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Bicubic noise of 4 × 4 knots with values of about ±0.2, (count, height·width) in float64."""
    knots = 0.2 * torch.randn(count, 1, 4, 4, generator=generator, dtype=torch.float64)
    return torch.nn.functional.interpolate(knots, size=(height, width), mode="bicubic").flatten(1)


def map_pairs(regime: str, count: int, height: int, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Maps S_n and S_m of one regime, (count, height·width) each."""
    first, second = (smooth_noise(count, height, width, generator) for _ in range(2))
    if regime == "start":
        return first, second
    if regime == "independent":
        return 0.5 + first, 0.5 + second
    return 0.5 + first, 0.5 - first + 0.25 * second


def descending(cost: PointcloudCost, max_iter: int, tol: float) -> list[TransportResult]:
    """One result per ε, each started at the potentials of the ε before it."""
    results: list[TransportResult] = []
    for epsilon in EPSILONS:
        init = results[-1].potentials if results else None
        results.append(solve(cost, epsilon=epsilon, solver="dense", max_iter=max_iter, tol=tol, init=init))
    return results


def measure(pairs: int, max_iter: int, tol: float, seed: int) -> list[dict[str, object]]:
    """One row per grid, regime and ε."""
    generator = torch.Generator().manual_seed(seed)
    rows: list[dict[str, object]] = []
    for height, width in GRIDS:
        positions = grid_positions(height, width, dtype=torch.float64)
        half = torch.full((1, height * width), 0.5, dtype=torch.float64)
        residuals = descending(pointcloud_cost(half, 1 - half, positions, positions), max_iter, tol)
        for regime in REGIMES:
            first, second = map_pairs(regime, pairs, height, width, generator)
            cost = pointcloud_cost(first, 1 - second, positions, positions)
            exact = solve(cost, epsilon=0).value()
            for result, residual in zip(descending(cost, max_iter, tol), residuals, strict=True):
                ratio = result.value() / exact
                rows.append(
                    {
                        "grid": f"{height}x{width}",
                        "regime": regime,
                        "epsilon": result.epsilon,
                        "exact": exact.mean().item(),
                        "ratio_mean": ratio.mean().item(),
                        "ratio_min": ratio.min().item(),
                        "ratio_max": ratio.max().item(),
                        "residual_of_constant_maps": residual.value().item(),
                        "converged": int(result.converged.sum()) + int(residual.converged.sum()),
                        "of": pairs + 1,
                        "marginal_error": max(result.marginal_error.max().item(), residual.marginal_error.item()),
                    }
                )
                print(", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in rows[-1].items()))
    return rows


def draw(rows: list[dict[str, object]], path: Path) -> None:
    """Ratio to the exact distance on the left, residual of the constant maps on the right."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    styles = {"14x7": "--", "14x14": "-"}
    colors = dict(zip(REGIMES, ("tab:blue", "tab:orange", "tab:red"), strict=True))
    for grid, style in styles.items():
        for regime, color in colors.items():
            part = [row for row in rows if row["grid"] == grid and row["regime"] == regime]
            epsilons = [row["epsilon"] for row in part]
            left.plot(
                epsilons, [row["ratio_mean"] for row in part], style, color=color, marker="o", markersize=4,
                label=f"{REGIMES[regime]}, {grid.replace('x', ' × ')}",
            )  # fmt: skip
            left.fill_between(
                epsilons,
                [row["ratio_min"] for row in part],
                [row["ratio_max"] for row in part],
                color=color,
                alpha=0.12,
            )
        right.plot(
            epsilons, [row["residual_of_constant_maps"] for row in part], style, color="tab:green", marker="o",
            markersize=4, label=grid.replace("x", " × "),
        )  # fmt: skip
    left.axhline(1, color="gray", linewidth=0.8)
    left.set(
        xscale="log", xlabel="ε", ylabel="Sinkhorn distance / exact W₁", title="Random smooth maps (mean and range)"
    )
    right.set(xscale="log", xlabel="ε", ylabel="Sinkhorn distance", title="Constant maps ½: the exact distance is 0")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, handlelength=3.5)
    write_figure(figure, path, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = study_parser(__doc__, figures=True)
    parser.add_argument("--pairs", type=int, default=8, help="pairs of maps per grid and regime")
    parser.add_argument("--max-iter", type=int, default=5000, help="largest number of iterations; default: 5000")
    parser.add_argument("--tol", type=float, default=1e-3, help="marginal error; default: 1e-3")
    parser.add_argument("--seed", type=int, default=0, help="seed of the maps")
    options = parser.parse_args()

    options.figures.mkdir(parents=True, exist_ok=True)
    rows = measure(options.pairs, options.max_iter, options.tol, options.seed)
    settings = {name: getattr(options, name) for name in ("pairs", "max_iter", "tol", "seed")}
    write_json(options.output / "entropic_gap.json", {"settings": settings, "rows": rows})
    draw(rows, options.figures / "entropic_gap.png")


if __name__ == "__main__":
    main()
