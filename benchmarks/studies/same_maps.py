"""The maps of one model under every protocol: why numbers of different papers can't be compared.

Draws and tabulates the results of the example's evaluation:

    OMP_NUM_THREADS=1 python examples/train_music.py --config crops
    python examples/evaluate.py runs/composed-crops-seed0 --protocol lvs,ez-vsl,avgn,noprior,tvsl,paper,clean
    python benchmarks/studies/same_maps.py --evaluation evaluation/composed-crops-seed0-music

Writes benchmarks/results/same-maps.md and docs/figures/same-maps.png.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from study import markdown, study_parser, write_figure, write_text

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

#: Names that readers take for one metric, and the metrics of that name.
FAMILIES = {
    "“AP”": r"C?AP|AP50",
    "“IoU”, “CIoU”": r"m?C?IoU|C?IoU@.*|Precision@.*",
    "“AUC”": r"AUC",
}
CHANCE = {"centered Gaussian": "^", "whole frame": "s", "random maps": "x"}
Scores = Mapping[str, Mapping[str, Any]]


def family(results: Scores, pattern: str) -> list[tuple[str, str]]:
    """(protocol, metric) of a family, in the order of the protocols."""
    return [(p, m) for p, result in results.items() for m in result["metrics"] if re.fullmatch(pattern, m)]


def table(results: Scores) -> str:
    """One row per protocol: its metrics of each family, with the highest chance level in brackets."""
    rows = []
    for protocol, result in results.items():
        cells = []
        for pattern in FAMILIES.values():
            names = [metric for name, metric in family(results, pattern) if name == protocol]
            best = {m: max(level[m] for level in result["chance"].values()) for m in names}
            cells.append("<br>".join(f"{m} **{100 * result['metrics'][m]:.1f}** ({100 * best[m]:.1f})" for m in names))
        rows.append((f"`{protocol}`", *(cell or "–" for cell in cells)))
    return markdown(("protocol", *FAMILIES), rows)


def draw(axis: Axes, results: Scores, pattern: str) -> None:
    rows = family(results, pattern)[::-1]
    for height, (protocol, metric) in enumerate(rows):
        result = results[protocol]
        for name, marker in CHANCE.items():
            axis.plot(100 * result["chance"][name][metric], height, marker, color="tab:gray", markersize=5)
        axis.plot(100 * result["metrics"][metric], height, "o", color="tab:blue", markersize=8)
    axis.set_yticks(range(len(rows)), [f"{protocol}: {metric}" for protocol, metric in rows])
    axis.set(xlim=(-3, 103), ylim=(-0.6, len(rows) - 0.4))
    axis.grid(alpha=0.3)


def main() -> None:
    parser = study_parser(__doc__, figures=True)
    default = Path("evaluation/composed-crops-seed0-music")
    parser.add_argument("--evaluation", type=Path, default=default, help="folder of metrics.json")
    options = parser.parse_args()
    subsets = json.loads((options.evaluation / "metrics.json").read_bytes())["subsets"]
    parts = []
    figure, axes = plt.subplots(
        len(subsets), len(FAMILIES), figsize=(12, 3.9 * len(subsets)), layout="constrained", squeeze=False
    )
    for row_axes, (subset, content) in zip(axes, subsets.items(), strict=True):
        results = content["protocols"]
        parts.append(f"**{subset.capitalize()}s**, {content['scenes']} scenes\n\n{table(results)}")
        for axis, (name, pattern) in zip(row_axes, FAMILIES.items(), strict=True):
            draw(axis, results, pattern)
            axis.set_title(f"{name} of the same maps, {subset}s, %", fontsize=10)
    axes[0, 0].plot([], [], "o", color="tab:blue", markersize=8, label="model")
    for name, marker in CHANCE.items():
        axes[0, 0].plot([], [], marker, color="tab:gray", markersize=5, label=name)
    figure.legend(loc="outside lower center", ncols=4)
    write_figure(figure, options.figures / "same-maps.png", dpi=100, metadata={"Software": None})
    text = "\n".join(parts)
    write_text(options.output / "same-maps.md", text)
    print(text)


if __name__ == "__main__":
    main()
