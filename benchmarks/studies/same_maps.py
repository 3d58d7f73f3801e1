"""One model's maps under every protocol: why numbers of different papers can't be compared.

Draws and tabulates what the example's evaluation wrote:

    OMP_NUM_THREADS=1 python examples/train_music.py
    python examples/evaluate.py runs/composed-seed0 --protocol lvs,ez-vsl,avgn,noprior,tvsl,paper,clean
    python benchmarks/studies/same_maps.py --evaluation evaluation/composed-seed0-music

Writes benchmarks/results/same-maps.md and docs/figures/same-maps.png.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

sys.path.insert(0, str(Path(__file__).parents[1]))
from result_files import ROOT, markdown

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

#: What readers take for one thing, and the metrics that go by that name.
FAMILIES = {
    "“AP”": r"C?AP|AP50",
    "“IoU”, “CIoU”": r"m?C?IoU|C?IoU@.*|Precision@.*",
    "“AUC”": r"AUC",
}
CHANCE = {"centered Gaussian": "^", "whole frame": "s", "random maps": "x"}
Results = Mapping[str, Mapping[str, Any]]


def family(results: Results, pattern: str) -> list[tuple[str, str]]:
    """(protocol, metric) of a family, in the order of the protocols."""
    return [(p, f) for p, result in results.items() for f in result["metrics"] if re.fullmatch(pattern, f)]


def table(results: Results) -> str:
    """A line a protocol: its metrics of each family, the highest chance level in brackets."""
    lines = []
    for protocol, result in results.items():
        cells = []
        for pattern in FAMILIES.values():
            names = [f for p, f in family(results, pattern) if p == protocol]
            best = {f: max(level[f] for level in result["chance"].values()) for f in names}
            cells.append("<br>".join(f"{f} **{100 * result['metrics'][f]:.1f}** ({100 * best[f]:.1f})" for f in names))
        lines.append((f"`{protocol}`", *(cell or "–" for cell in cells)))
    return markdown(("protocol", *FAMILIES), lines)


def draw(axis: Axes, results: Results, pattern: str) -> None:
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluation", type=Path, default=Path("evaluation/composed-seed0-music"), help="folder")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the table")
    parser.add_argument("--figures", type=Path, default=ROOT / "docs" / "figures", help="folder of the plot")
    options = parser.parse_args()
    subsets = json.loads((options.evaluation / "metrics.json").read_text(encoding="utf-8"))["subsets"]
    parts = []
    figure, axes = plt.subplots(
        len(subsets), len(FAMILIES), figsize=(12, 3.9 * len(subsets)), layout="constrained", squeeze=False
    )
    for line, (subset, content) in zip(axes, subsets.items(), strict=True):
        results = content["protocols"]
        parts.append(f"**{subset.capitalize()}s**, {content['scenes']} scenes\n\n{table(results)}")
        for axis, (name, pattern) in zip(line, FAMILIES.items(), strict=True):
            draw(axis, results, pattern)
            axis.set_title(f"{name} of the same maps, {subset}s, %", fontsize=10)
    axes[0, 0].plot([], [], "o", color="tab:blue", markersize=8, label="model")
    for name, marker in CHANCE.items():
        axes[0, 0].plot([], [], marker, color="tab:gray", markersize=5, label=name)
    figure.legend(loc="outside lower center", ncols=4)
    figure.savefig(options.figures / "same-maps.png", dpi=100, metadata={"Software": None})
    text = "\n".join(parts)
    (options.output / "same-maps.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
