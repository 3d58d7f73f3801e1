"""The ORI loss of known maps: constant maps, a perfect partition, a shared map, random maps.

The features prescribe the maps: with orthonormal references r_n, a pixel with the feature Σ S_n r_n + rest has the
similarities S_n. The rest lies in a separate direction and makes the length 1, which needs Σ S_n² ≤ 1 in every pixel.
Two sources that share a map share a reference. The random maps are cosines of random features and references.

    python benchmarks/studies/ori_shortcut.py

Writes benchmarks/results/ori_shortcut.json and docs/figures/ori_shortcut.png.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import torch
from study import study_parser, write_figure, write_json
from torch import Tensor

from sslosses import object_region_isolation_loss, similarity_map

mpl.use("Agg")
import matplotlib.pyplot as plt

SIDE = 14
CHANNELS = 16
EPSILONS = (0.0, 0.01, 0.05, 0.1)
SETTINGS: list[dict[str, Any]] = [
    {"formulation": "pointcloud", "epsilon": e, "solver": "dense" if e else "exact"} for e in EPSILONS
] + [
    {"formulation": "distribution", "normalize": n, "epsilon": 0.0, "solver": "exact"}
    for n in ("softmax", "relu", "shift")
]
# (top, bottom, left, right) of each source's region on the 14 × 14 grid; the rest is background.
REGIONS = ((5, 10, 1, 5), (3, 11, 8, 12), (11, 14, 4, 9))
DRAWN_SOURCES = 2


class Case(NamedTuple):
    """One sample: features (1, C, H, W), references (1, K, C) and (1, C)."""

    name: str
    visual: Tensor
    foreground: Tensor
    background: Tensor

    @property
    def maps(self) -> Tensor:
        """The maps S_n, (K + 1, H, W), the background last."""
        return similarity_map(self.visual, torch.cat([self.foreground, self.background[:, None]], 1))[0]


def prescribed(name: str, maps: Tensor, owners: list[int]) -> Case:
    """A case in which reference n has exactly the map ``maps[owners[n]]``, for (M, H, W) with Σ maps² ≤ 1; float64."""
    count = len(maps)
    rest = (1 - maps.square().sum(0)).clamp(min=0).sqrt()
    visual = torch.cat([maps, rest[None]])
    references = torch.eye(count + 1, dtype=maps.dtype)[owners]
    return Case(name, visual[None], references[None, :-1], references[None, -1])


def cases(sources: int, seed: int) -> list[Case]:
    """The samples with this number of sources."""
    regions = torch.zeros(sources, SIDE, SIDE, dtype=torch.float64)
    for region, (top, bottom, left, right) in zip(regions, REGIONS, strict=False):
        region[top:bottom, left:right] = 1
    half = torch.full((sources + 1, SIDE, SIDE), 0.5, dtype=torch.float64)
    everyone = list(range(sources + 1))
    samples = [
        prescribed("constant ½", half, everyone),
        prescribed("perfect partition", torch.cat([regions, 1 - regions.sum(0, keepdim=True)]), everyone),
    ]
    if sources > 1:
        union = regions.sum(0, keepdim=True)
        shared = [0] * sources + [1]
        samples.append(prescribed("shared map: one region", torch.cat([regions[:1], 1 - regions[:1]]), shared))
        samples.append(prescribed("shared map: all regions", torch.cat([union, 1 - union]), shared))
    samples.append(prescribed("background only", torch.cat([0 * regions, torch.ones_like(half[:1])]), everyone))
    generator = torch.Generator().manual_seed(seed)
    visual, references = (
        torch.randn(1, *shape, generator=generator, dtype=torch.float64)
        for shape in ((CHANNELS, SIDE, SIDE), (sources + 1, CHANNELS))
    )
    samples.append(Case("random features", visual, references[:, :-1], references[:, -1]))
    return samples


def measure(max_iter: int, tol: float, seed: int) -> list[dict[str, Any]]:
    """One row per number of sources, case and setting."""
    rows: list[dict[str, Any]] = []
    for sources in range(1, len(REGIONS) + 1):
        for case in cases(sources, seed):
            for setting in SETTINGS:
                terms = object_region_isolation_loss(
                    case.visual, case.foreground, case.background, max_iter=max_iter, tol=tol, **setting
                )
                rows.append(
                    {
                        "sources": sources,
                        "maps": case.name,
                        **setting,
                        "loss": terms.loss.item(),
                        "distances": terms.distances[0].tolist(),
                        "converged": bool(terms.converged),
                        "marginal_error": terms.marginal_error.item(),
                    }
                )
                print(
                    f"K {sources}, {case.name:24} {', '.join(f'{k} {v}' for k, v in setting.items())}: "
                    f"loss {terms.loss:.4f}, marginal error {terms.marginal_error:.1e}, converged {terms.converged}"
                )
    return rows


def draw(rows: list[dict[str, Any]], seed: int, path: Path) -> None:
    """One column per case: its maps, and below them its loss for every ε."""
    drawn = cases(DRAWN_SOURCES, seed)
    names = [*(f"source {n + 1}" for n in range(DRAWN_SOURCES)), "background"]
    figure = plt.figure(figsize=(1.75 * len(drawn), 7.6), layout="constrained")
    grid = figure.add_gridspec(len(names) + 1, len(drawn), height_ratios=[1] * len(names) + [1.5])
    shared: dict[str, Any] = {}
    for column, case in enumerate(drawn):
        for row, (name, values) in enumerate(zip(names, case.maps, strict=True)):
            axis = figure.add_subplot(grid[row, column])
            image = axis.imshow(values, cmap="viridis", vmin=-0.5, vmax=1)
            axis.set(xticks=[], yticks=[])
            if row == 0:
                axis.set_title(case.name.replace(": ", ":\n").replace(" ", "\n", ": " not in case.name), fontsize=10)
            if column == 0:
                axis.set_ylabel(name)
        axis = figure.add_subplot(grid[len(names), column], **shared)
        shown = (DRAWN_SOURCES, case.name, "pointcloud")
        losses = [r["loss"] for r in rows if (r["sources"], r["maps"], r["formulation"]) == shown]
        colors = ["black", "#9ecae1", "#4292c6", "#08519c"]
        bars = axis.bar([f"{e:g}" for e in EPSILONS], losses, color=colors)
        axis.bar_label(bars, [f"{loss:.2f}" for loss in losses], fontsize=8, padding=1)
        axis.set(xlabel="ε")
        axis.tick_params(labelsize=8)
        axis.margins(y=0.12)
        if column == 0:
            axis.set(ylabel="ORI loss (K = 2)")
            shared = {"sharey": axis}
        else:
            axis.tick_params(labelleft=False)
    figure.colorbar(image, ax=figure.axes[: len(drawn) * (len(names) + 1)], shrink=0.4, anchor=(0, 0.95), label="S")
    write_figure(figure, path, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = study_parser(__doc__, figures=True)
    parser.add_argument("--max-iter", type=int, default=5000, help="largest number of iterations; default: 5000")
    parser.add_argument("--tol", type=float, default=1e-3, help="marginal error; default: 1e-3")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random features")
    options = parser.parse_args()

    options.figures.mkdir(parents=True, exist_ok=True)
    rows = measure(options.max_iter, options.tol, options.seed)
    settings = {name: getattr(options, name) for name in ("max_iter", "tol", "seed")} | {"side": SIDE}
    write_json(options.output / "ori_shortcut.json", {"settings": settings, "rows": rows})
    draw(rows, options.seed, options.figures / "ori_shortcut.png")


if __name__ == "__main__":
    main()
