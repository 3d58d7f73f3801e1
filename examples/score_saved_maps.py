"""Score saved heatmaps by several protocols, beside chance levels.

    python examples/score_saved_maps.py              # writes and scores maps made for this example
    python examples/score_saved_maps.py maps.npz     # scores yours: arrays `maps`, `boxes` as below

For the public annotation files there is a command instead: python -m sslosses.evaluate --help
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from sslosses.metrics import SoundLocalization, chance_levels


def write_example(path: Path, samples: int = 20, sources: int = 2, side: int = 14) -> None:
    """Save noisy maps of two objects per frame, and the objects' boxes."""
    generator = np.random.default_rng(0)
    corner = generator.uniform(0.02, 0.1, (samples, sources, 2))
    corner[:, 1, 0] += 0.48  # the second object stands to the right of the first one
    size = generator.uniform([0.3, 0.6], [0.4, 0.9], (samples, sources, 2))  # width, height
    boxes = np.concatenate([corner, corner + size], axis=2)  # xmin, ymin, xmax, ymax as fractions of the frame
    centers = (np.arange(side) + 0.5) / side
    xmin, ymin, xmax, ymax = (boxes[..., i, None] for i in range(4))
    inside_x = (centers >= xmin) & (centers <= xmax)  # (samples, sources, side)
    inside_y = (centers >= ymin) & (centers <= ymax)
    inside = inside_y[..., :, None] & inside_x[..., None, :]
    maps = inside + generator.normal(0, 0.5, inside.shape)  # higher is more likely to sound
    np.savez(path, maps=maps.astype(np.float32), boxes=boxes.astype(np.float32))


def score(path: Path) -> None:
    """Print one table per protocol."""
    with np.load(path, allow_pickle=False) as saved:
        maps = saved["maps"]  # (B, M, h, w), raw
        boxes = saved["boxes"]  # (B, K, 4)
    nested = [[[tuple(box)] for box in sample] for sample in boxes.tolist()]  # samples, sources, boxes of a source
    for protocol in ("paper", "clean"):
        metric = SoundLocalization(protocol, task="mixtures")
        metric.update(torch.from_numpy(maps), nested)
        chance = chance_levels(nested, protocol, resolution=maps.shape[-2:])
        print(metric.result(chance=chance).to_markdown(), end="\n\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        score(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            write_example(Path(folder) / "maps.npz")
            score(Path(folder) / "maps.npz")
