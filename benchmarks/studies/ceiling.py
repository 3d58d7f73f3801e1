"""The best metrics that a map without plateaus can reach on VGG-SS, MUSIC-Solo and MUSIC-Duet.

The map is the ground truth: every pixel of the boxes is above every other pixel, and hardly two pixels are equal. A
protocol that marks all pixels above the median then marks half of the frame, which few objects fill.

    python benchmarks/studies/ceiling.py --metadata DIR

Takes a minute on one core. Writes benchmarks/results/ceiling.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from chance import SETS
from study import markdown, metadata_folder, study_parser, write_text
from torch import Tensor

from sslosses.annotations import rasterize
from sslosses.metrics import SoundLocalization

SIZE = 224
#: Um et al., Tables 1 and 2, ResNet-18.
PUBLISHED = {
    "MUSIC-Solo": {"AP": 79.8, "IoU@0.5": 71.1, "AUC": 60.9},
    "VGG-SS": {"AP": 51.7, "IoU@0.5": 47.3, "AUC": 44.9},
    "MUSIC-Duet": {"CAP": 61.4, "CIoU@0.3": 45.9, "AUC": 36.1},
}


def best_map(mask: Tensor) -> Tensor:
    """(T, T): the ground truth minus the distance to an asymmetric point, so that hardly two pixels are equal."""
    steps = torch.arange(SIZE, dtype=torch.float64)
    distance = ((steps[:, None] - 111.31415).square() + (steps - 110.71828).square()).sqrt() / SIZE
    return 10 * mask - distance


def ceilings(
    title: str, samples: Sequence[Sequence[Sequence[Any]]], task: str, published: Mapping[str, float]
) -> list[tuple[object, ...]]:
    """Rows of the table for one data set, from the boxes of each source of each sample."""
    metric = SoundLocalization("paper", task=task)
    areas = []
    for sample in samples:
        masks = torch.stack([rasterize(source, SIZE) for source in sample]).double()
        areas.append(masks.mean((1, 2)))
        metric.update(torch.stack([best_map(mask) for mask in masks])[None].float(), [sample])
    result = metric.compute()
    area = f"{100 * torch.cat(areas).mean():.1f}"
    return [
        (*((title, area) if i == 0 else ("", "")), name, f"{100 * float(result[name]):.1f}", published[name])
        for i, name in enumerate(metric.metrics)
    ]


def main() -> None:
    parser = study_parser(__doc__, metadata=True)
    options = parser.parse_args()
    folder = metadata_folder(parser, options)
    rows = []
    for data in SETS:
        boxes = [record.boxes for record in data.read(folder / data.file)]
        variants = {data.title: boxes}
        if data.task == "mixtures":  # as in NoPrior's script for MUSIC
            variants[f"{data.title}, both boxes as one ground truth"] = [(sum(sample, ()),) for sample in boxes]
        for title, samples in variants.items():
            rows += ceilings(title, samples, data.task, PUBLISHED[data.title])
    columns = (
        "set",
        "mean area of a ground truth, %",
        "metric of `paper`, %",
        "map without plateaus",
        "published",
    )
    text = markdown(columns, rows)
    write_text(options.output / "ceiling.md", text)
    print(text)


if __name__ == "__main__":
    main()
