"""Where isolation and separation lead: free maps optimized under each loss from the same starts.

The references are orthonormal and the features of all pixels are free, so the maps are free up to Σ S² ≤ 1 per pixel. A
run is Adam with a cosine-decayed rate and ends early at a loss of 0. It records the spatial standard deviation of every
S, which shows a collapse, and how far apart the maps p = softmax(S / temperature) are: the exact W1 of every pair, and
its overlap Σ min(p_n, p_m), 1 for equal maps and 0 for disjoint ones. It also measures which margins maps can reach.

    python benchmarks/studies/ori_targets.py

Writes benchmarks/results/ori_targets.json and docs/figures/ori_targets.png.
"""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from study import study_parser, write_figure, write_json
from torch import Tensor, nn

from sslosses import (
    ObjectRegionIsolationLoss,
    ObjectRegionSeparationLoss,
    object_region_separation_loss,
    similarity_map,
)

mpl.use("Agg")
import matplotlib.pyplot as plt

SIDE = 14
CHANNELS = 128
FEW = 16
NAMES = ("source 1", "source 2", "background")
REFERENCES = torch.eye(CHANNELS)[None, : len(NAMES)]
PAIRS = tuple(combinations(range(len(NAMES)), 2))
# More iterations than the default 100, so that no effect comes from unsolved problems.
LOSSES: dict[str, dict[str, Any]] = {
    "isolation": {"max_iter": 500},
    "separation": {"max_iter": 500},
    "separation, margin 1": {"margin": 1.0, "max_iter": 500},
}
RECORDED_STEPS = 4  # every fourth step is in the curves
MARGINS = (0.1, 0.2, 0.3, 0.4, 0.5)
SIZES = ((14, 14), (7, 14), (14, 28))


def starts(seed: int) -> dict[str, Tensor]:
    """Features (1, C, H, W) whose maps are random, one blob that all three share, or a perfect partition.

    The cosines of random features with a reference are near 0 in many dimensions and larger in few.
    """
    generator = torch.Generator().manual_seed(seed)
    random, noise = torch.randn(2, 1, CHANNELS, SIDE, SIDE, generator=generator)
    shared = torch.zeros(1, CHANNELS, SIDE, SIDE)
    shared[:, len(NAMES)] = 1
    shared[..., 4:9, 3:8] = 0
    shared[:, : len(NAMES) + 1, 4:9, 3:8] = 0.5
    partition = torch.zeros(1, CHANNELS, SIDE, SIDE)
    partition[:, 0, 5:10, 1:5] = 1
    partition[:, 1, 3:11, 8:12] = 1
    partition[:, 2] = 1 - partition.sum(1)
    few = random.clone()
    few[:, FEW:] = 0
    return {
        f"random, {CHANNELS}": random,
        f"random, {FEW}": few,
        "one shared map": shared + 2e-3 * noise,
        "perfect partition": partition + 2e-3 * noise,
    }


def make_loss(name: str) -> nn.Module:
    kind = ObjectRegionIsolationLoss if name == "isolation" else ObjectRegionSeparationLoss
    return kind(**LOSSES[name])


def evaluate(visual: Tensor, function: Any, **options: Any) -> Any:
    """A loss module or function for these features and the fixed references."""
    references = REFERENCES.to(visual.dtype)
    return function(visual, references[:, :-1], references[:, -1], **options)


def state(visual: Tensor) -> dict[str, Any]:
    """Statistics of the maps of these features."""
    maps = similarity_map(visual.double(), REFERENCES.double())[0]
    exact = evaluate(visual.double(), object_region_separation_loss, epsilon=0, solver="exact")
    p = (maps / ObjectRegionSeparationLoss().temperature).flatten(1).softmax(-1)
    return {
        "std": maps.flatten(1).std(-1).tolist(),
        "w1": [exact.distances[0, n, m].item() for n, m in PAIRS],
        "overlap": [torch.minimum(p[n], p[m]).sum().item() for n, m in PAIRS],
        "pixels": (1 / p.square().sum(-1)).tolist(),
        "maps": [[round(value, 4) for value in values.flatten().tolist()] for values in maps],
    }


def optimize(start: Tensor, loss: nn.Module, steps: int, rate: float) -> dict[str, Any]:
    """Optimizes the features with Adam until the loss is 0 or all steps are done."""
    visual = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([visual], lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    curve: list[tuple[int, float, float]] = []
    step = 0
    while True:
        value = evaluate(visual, loss)
        done = step == steps or value.item() == 0
        if step % RECORDED_STEPS == 0 or done:
            spread = similarity_map(visual.detach(), REFERENCES).flatten(2).std(-1).mean().item()
            curve.append((step, value.item(), spread))
        if done:
            return {"loss": value.item(), "steps": step, "curve": curve, **state(visual.detach())}
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        step += 1


def reachable(samples: int, seed: int) -> list[dict[str, Any]]:
    """Distances that a margin can ask for: of three single pixels as far apart as possible, and of perfect partitions.

    A partition has one rectangle of random sides in the left half and one in the right half; the rest is background.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for height, width in SIZES:
        ends = torch.cartesian_prod(torch.arange(height), torch.arange(width)).double() / max(height, width)
        away = torch.cdist(ends, ends)
        farthest = max(torch.minimum(torch.minimum(row[:, None], row), away).max().item() for row in away)
        visual = torch.zeros(samples, CHANNELS, height, width, dtype=torch.float64)
        for features in visual:
            for source in range(2):
                sides = [int(torch.randint(n // 4, n // 2 + 1, (), generator=generator)) for n in (height, width // 2)]
                top, left = (
                    int(torch.randint(0, n - side + 1, (), generator=generator))
                    for n, side in zip((height, width // 2), sides, strict=True)
                )
                left += source * (width // 2)
                features[source, top : top + sides[0], left : left + sides[1]] = 1
        visual[:, 2] = 1 - visual.sum(1)
        references = REFERENCES.double().expand(samples, -1, -1)
        row: dict[str, Any] = {"size": [height, width], "diagonal": away.max().item(), "three_pixels": farthest}
        for name, epsilon in (("exact", 0.0), ("divergence", 0.05)):
            terms = object_region_separation_loss(
                visual,
                references[:, :-1],
                references[:, -1],
                epsilon=epsilon,
                max_iter=1000,
                reduction="none",
            )
            nearest = torch.stack([terms.distances[:, n, m] for n, m in PAIRS]).amin(0)
            levels = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)
            row[name] = {
                "source_source": terms.distances[:, 0, 1].quantile(levels).tolist(),
                "source_background": terms.distances[:, :2, 2].flatten().quantile(levels).tolist(),
                "share_with_loss_0": {m: (nearest >= m).double().mean().item() for m in MARGINS},
            }
        rows.append(row)
        print(json.dumps(row))
    return rows


def draw(optima: dict[str, dict[str, Any]], path: Path) -> None:
    """One row per start: the maps at the start and at the end of every loss, and the standard deviation on the way."""
    groups = ["start", *LOSSES]
    figure = plt.figure(figsize=(18, 1.75 * len(optima) + 0.9))
    # Three maps per group with a gap after it, then the curves.
    grid = figure.add_gridspec(
        len(optima),
        4 * len(groups) + 1,
        width_ratios=[*([1, 1, 1, 0.25] * len(groups)), 2],
        left=0.03,
        right=0.99,
        bottom=0.13,
        top=0.92,
        wspace=0.05,
        hspace=0.2,
    )
    for row, (start, ends) in enumerate(optima.items()):
        for column, group in enumerate(groups):
            spread = sum(ends[group]["std"]) / len(NAMES)
            for index, (name, values) in enumerate(zip(NAMES, ends[group]["maps"], strict=True)):
                axis = figure.add_subplot(grid[row, 4 * column + index])
                image = axis.imshow(torch.tensor(values).view(SIDE, SIDE), cmap="viridis", vmin=-1, vmax=1)
                axis.set(xticks=[], yticks=[])
                if index == 1:
                    axis.set_title(f"{group}\nstd {spread:.2f}" if row == 0 else f"std {spread:.2f}", fontsize=17)
                if row == len(optima) - 1:
                    axis.set_xlabel(name, fontsize=14)
                if column == index == 0:
                    axis.set_ylabel("\n".join(start.rsplit(" ", 1)), fontsize=15)
        axis = figure.add_subplot(grid[row, -1])
        for loss, color in zip(LOSSES, ("#d62728", "#1f77b4", "#7fb2d9"), strict=True):
            steps, _, spreads = zip(*ends[loss]["curve"], strict=True)
            axis.plot([s + 1 for s in steps], spreads, color=color, label=loss)
            axis.plot(steps[-1] + 1, spreads[-1], "o", color=color, markersize=4)
        axis.set(xscale="log", ylim=(0, 0.45))
        axis.tick_params(labelsize=13, labelbottom=row == len(optima) - 1)
        if row == 0:
            axis.set_title("mean std of S", fontsize=17)
        if row == len(optima) - 1:
            axis.set_xlabel("step + 1", fontsize=14)
    figure.legend(*axis.get_legend_handles_labels(), loc="lower right", ncols=len(LOSSES), fontsize=14, frameon=False)
    figure.colorbar(image, cax=figure.add_axes((0.3, 0.05, 0.3, 0.015)), orientation="horizontal", label="S")
    write_figure(figure, path, dpi=90)
    plt.close(figure)


def main() -> None:
    parser = study_parser(__doc__, figures=True)
    parser.add_argument("--steps", type=int, default=400, help="largest number of steps; default: 400")
    parser.add_argument("--rate", type=float, default=0.03, help="learning rate; default: 0.03")
    parser.add_argument("--samples", type=int, default=200, help="random partitions per size; default: 200")
    parser.add_argument("--seed", type=int, default=0, help="seed of starts and partitions")
    options = parser.parse_args()

    options.figures.mkdir(parents=True, exist_ok=True)
    reach = reachable(options.samples, options.seed)
    optima: dict[str, dict[str, Any]] = {}
    for name, start in starts(options.seed).items():
        optima[name] = {"start": state(start)}
        for loss in LOSSES:
            optima[name][loss] = end = optimize(start, make_loss(loss), options.steps, options.rate)
            shown = {key: [round(x, 3) for x in end[key]] for key in ("std", "w1", "overlap", "pixels")}
            print(f"{name}, {loss}: loss {end['loss']:.4f} after {end['steps']} steps, {shown}", flush=True)
    settings = {key: getattr(options, key) for key in ("steps", "rate", "samples", "seed")}
    settings |= {"side": SIDE, "pairs": PAIRS}
    content = {"settings": settings, "losses": LOSSES, "reachable": reach, "optima": optima}
    write_json(options.output / "ori_targets.json", content)
    draw(optima, options.figures / "ori_targets.png")


if __name__ == "__main__":
    main()
