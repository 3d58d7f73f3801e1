"""What the runs of each method learned: the loss, and whether the maps depend on the sound.

A frame's map by its own sound is compared with its maps by the sounds of other test scenes, which share no class with
it. The result is the share of these pairs in which the own sound's map is higher, on average, in the boxes of the
sources. Chance is 50 %. Equal values count half, so a map that does not depend on the sound has 50 %, too.

    python examples/reproduce_tables.py --table 1 --only MUSIC-Duet --seeds 0 1 2 --jobs 2
    OMP_NUM_THREADS=2 python benchmarks/studies/own_sound.py --runs runs/*

Takes about ten seconds per run. Writes benchmarks/results/NAME.md.
"""

from __future__ import annotations

import csv
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from study import ROOT, markdown, study_parser, write_text
from torch import Tensor

sys.path.insert(0, str(ROOT / "examples"))
from avsl.constants import FRAME_SIZE
from avsl.evaluation.held_out import HeldOutScenes
from avsl.evaluation.score import box_masks
from avsl.model.localizer import Localizer
from clustering import TestScenes, encode, spread

#: The loss if nothing is known, for a batch of B clips. The other losses have no such value.
CHANCE: dict[str, Callable[[int], float]] = {
    "attention10k": lambda _: 0.25,
    "dsol": lambda _: math.log(2),
    "ez-vsl": lambda batch: 2 * math.log(batch),
    "lvs": lambda batch: math.log(batch + 1),
    "mix-and-localize": lambda _: math.log(2),
    "ots": lambda _: math.log(2),
}
SHIFTS = 10  # other sounds per scene


class Learned(NamedTuple):
    """A run's loss at the tenth step and in the last epoch, and the share in percent per subset."""

    first: float
    last: float
    shares: dict[str, float]


@torch.no_grad()
def share_of_own(model: Localizer, scenes: TestScenes) -> float:
    """The share of pairs, in percent, in which the own sound's map is higher in the sources' boxes."""
    held_out, encoded = scenes
    own = _in_boxes(held_out, model.sound_map(encoded))
    classes = [{name for clip in scene for name in held_out.test.clips[clip].classes} for scene in held_out.test.scenes]
    wins, pairs = 0.0, 0
    for shift in range(1, SHIFTS + 1):
        other = encoded._replace(audio=encoded.audio.roll(shift, 0), sound=encoded.sound.roll(shift, 0))
        level = _in_boxes(held_out, model.sound_map(other))
        compared = torch.tensor([not names & classes[i - shift] for i, names in enumerate(classes)])
        wins += float(((own > level).double() + 0.5 * (own == level).double())[compared].sum())
        pairs += int(compared.sum())
    return 100 * wins / pairs if pairs else math.nan


def _in_boxes(held_out: HeldOutScenes, maps: Tensor) -> Tensor:
    """The mean of each scene's map over the boxes of its sources, (N,). With several frames, source j is in frame j."""
    levels = []
    for scene, boxes, scene_map in zip(held_out.test.scenes, held_out.test.boxes, maps, strict=True):
        frames = F.interpolate(
            torch.stack(scene_map.chunk(len(scene), 1))[:, None], (FRAME_SIZE, FRAME_SIZE), mode="bilinear"
        )
        masks = box_masks(boxes)
        per_source = frames.expand(len(masks), -1, -1, -1)[:, 0] if len(scene) == 1 else frames[:, 0]
        levels.append((per_source * masks).sum() / masks.sum())
    return torch.stack(levels)


def losses(run: Path) -> tuple[float, float]:
    """The loss at the tenth step, and the mean over every tenth step of the last epoch."""
    with (run / "csv" / "version_0" / "metrics.csv").open() as lines:
        rows = [(int(row["epoch"]), float(row["total"])) for row in csv.DictReader(lines) if row["total"]]
    return rows[0][1], statistics.mean(value for epoch, value in rows if epoch == rows[-1][0])


def row(name: str, batch: int, runs: Sequence[Learned]) -> tuple[str, ...]:
    """The row of a method: means over its runs."""
    method = name.split()[0]  # the options follow
    chance = f"{CHANCE[method](batch):.2f}" if method in CHANCE else ""
    shares = (spread([run.shares[subset] for run in runs]) for subset in runs[0].shares)
    first, last = (statistics.mean(getattr(run, key) for run in runs) for key in ("first", "last"))
    return (name, str(len(runs)), chance, f"{first:.2f}", f"{last:.2f}", *shares)


def main() -> None:
    parser = study_parser(__doc__)
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="folders of complete runs on one data set")
    parser.add_argument("--name", default="own_sound", help="name of the file of results")
    options = parser.parse_args()
    runs: dict[str, list[Learned]] = {}
    batches = {}
    for run in options.runs:
        if not (run / "metrics.json").is_file():
            continue
        model, tests = encode(run)
        shares = {test.held_out.subset: share_of_own(model, test) for test in tests}
        name = " ".join([model.config.method, *model.config.method_options])
        batches[name] = model.config.batch_size
        runs.setdefault(name, []).append(Learned(*losses(run), shares))
    subsets = next(iter(runs.values()))[0].shares
    header = (
        "method",
        "runs",
        "loss at chance",
        "tenth step",
        "last epoch",
        *(f"{s}: own sound higher, %" for s in subsets),
    )
    text = markdown(header, [row(name, batches[name], runs[name]) for name in sorted(runs)])
    write_text(options.output / f"{options.name}.md", text)
    print(text)


if __name__ == "__main__":
    main()
