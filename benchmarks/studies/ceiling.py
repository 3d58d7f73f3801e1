"""The best that a map without plateaus can reach on VGG-SS, MUSIC-Solo and MUSIC-Duet, under protocols that mark half.

The map is the truth itself: every pixel of the boxes above every other one, hardly two pixels of one value. A protocol
that marks what is above the median then marks half of the frame, which few objects fill.

    python benchmarks/studies/ceiling.py --metadata DIR

A minute on one core. Writes benchmarks/results/ceiling.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from chance import SETS

sys.path.insert(0, str(Path(__file__).parents[1]))
from result_files import ROOT, markdown
from torch import Tensor

from sslosses.annotations import rasterize
from sslosses.metrics import SoundLocalization

SIZE = 224
#: Of Um et al., Tables 1 and 2, ResNet-18: what to compare with.
PUBLISHED = {
    "MUSIC-Solo": {"AP": 79.8, "IoU@0.5": 71.1, "AUC": 60.9},
    "VGG-SS": {"AP": 51.7, "IoU@0.5": 47.3, "AUC": 44.9},
    "MUSIC-Duet": {"CAP": 61.4, "CIoU@0.3": 45.9, "AUC": 36.1},
}


def best_map(mask: Tensor) -> Tensor:
    """(T, T): the truth, less the distance to a point off every symmetry, so that hardly two pixels are equal."""
    steps = torch.arange(SIZE, dtype=torch.float64)
    distance = ((steps[:, None] - 111.31415).square() + (steps - 110.71828).square()).sqrt() / SIZE
    return 10 * mask - distance


def ceilings(
    title: str, samples: Sequence[Sequence[Sequence[Any]]], task: str, published: Mapping[str, float]
) -> list[tuple[object, ...]]:
    """Lines of the table for one set: the boxes of each source of each sample."""
    metric = SoundLocalization("paper", task=task)
    areas = []
    for sample in samples:
        masks = torch.stack([rasterize(source, SIZE) for source in sample]).double()
        areas.append(masks.mean((1, 2)))
        metric.update(torch.stack([best_map(mask) for mask in masks])[None].float(), [sample])
    result = metric.compute()
    area = f"{100 * torch.cat(areas).mean():.1f}"
    return [
        (*((title, area) if i == 0 else ("", "")), metric, f"{100 * float(result[metric]):.1f}", published[metric])
        for i, metric in enumerate(metric.metrics)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--metadata", type=Path, default=os.environ.get("SSLOSSES_METADATA"), help="folder of the annotation files"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results", help="folder")
    options = parser.parse_args()
    if options.metadata is None:
        parser.error("name the folder of the annotation files: --metadata DIR, or SSLOSSES_METADATA")
    lines = []
    for each in SETS:
        boxes = [record.boxes for record in each.read(Path(options.metadata) / each.file)]
        variants = {each.title: boxes}
        if each.task == "mixtures":  # as NoPrior's script for MUSIC has it
            variants[f"{each.title}, both boxes one truth"] = [(sum(sample, ()),) for sample in boxes]
        for title, samples in variants.items():
            lines += ceilings(title, samples, each.task, PUBLISHED[each.title])
    columns = ("set", "mean area of a truth, %", "metric of `paper`, %", "best map without plateaus", "published")
    text = markdown(columns, lines)
    (options.output / "ceiling.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
