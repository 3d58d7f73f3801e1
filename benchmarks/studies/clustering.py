"""Iterative identification and clustering on the same trained models, over several runs of the example.

The options of the clustering were chosen on development scenes, its gain is reported on others:

    OMP_NUM_THREADS=1 python examples/train_music.py --data-seed 0 --name development
    python benchmarks/studies/clustering.py --runs runs/development --name clustering-development
    OMP_NUM_THREADS=1 python examples/train_music.py --seed 0  # and 1, 2, 3, 4
    python benchmarks/studies/clustering.py --runs runs/composed-seed*

Takes half a minute per run. Writes benchmarks/results/NAME.md.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from study import ROOT, markdown, study_parser, write_text
from torch import Tensor

from sslosses import cluster_objects

sys.path.insert(0, str(ROOT / "examples"))
from avsl.evaluation.held_out import HeldOutScenes, load_held_out
from avsl.evaluation.predict import Prediction
from avsl.evaluation.score import run_metrics
from avsl.model.checkpoints import open_model
from avsl.model.encoders import Encoded
from avsl.model.localizer import Localizer
from avsl.model.locations import recorded_data
from avsl.training.data_location import FOLDERS

#: Values of each option around its default.
OPTIONS: dict[str, tuple[float, ...]] = {
    "weight_temperature": (0.25, 1.0, 2.0),
    "start_weight": (0.3, 1.0),
    "membership_temperature": (0.05, 0.2),
    "contrast_weight": (1.0, 4.0),
}
SOUND_WEIGHTS = (0.0, 0.5, 1.0, 2.0)
THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
Maps = Callable[[Encoded], tuple[Tensor, Tensor]]


class TestScenes(NamedTuple):
    """The test scenes of one subset with what a model's encoders make of them."""

    held_out: HeldOutScenes
    encoded: Encoded


@torch.no_grad()
def encode(run: Path) -> tuple[Localizer, list[TestScenes]]:
    """Opens the model of a run and encodes its test scenes, subset by subset."""
    model, data = open_model(run, torch.device("cpu")), recorded_data(run)
    assert data is not None
    folder, tests = FOLDERS[model.config.dataset](data), []
    for subset in model.config.subsets:
        held_out, parts = load_held_out(folder, subset, model.config.image_size), []
        for first in range(0, len(held_out.test.scenes), 50):
            examples = [held_out.scenes[scene] for scene in held_out.test.scenes[first : first + 50]]
            inputs = (torch.stack([getattr(e, name) for e in examples]) for name in ("frame", "waveform"))
            parts.append(model.encode(*inputs))
        tests.append(TestScenes(held_out, Encoded(*(torch.cat(values) for values in zip(*parts, strict=True)))))
    return model, tests


def variants(model: Localizer, sources: int) -> Iterator[tuple[str, Maps]]:
    """Names and functions from encoded scenes to maps and their validity."""

    def sound(encoded: Encoded) -> tuple[Tensor, Tensor]:
        maps = model.sound_map(encoded)[:, None].expand(-1, sources, -1, -1)
        return maps, torch.ones(maps.shape[:2], dtype=torch.bool)

    def clustered(encoded: Encoded, **options: Any) -> tuple[Tensor, Tensor]:
        objects = cluster_objects(*model.method.features(encoded), num_sources=sources, **options)
        return objects.maps, objects.valid

    def identified(encoded: Encoded) -> tuple[Tensor, Tensor]:
        return model.source_maps(encoded, sources, "iterative")[:2]

    yield "the map of the sound for every source", sound
    yield "`identify_objects`", identified
    yield "`cluster_objects`", clustered
    options = {"sound_weight": SOUND_WEIGHTS} if sources == 1 else OPTIONS
    for option, values in options.items():
        for value in values:
            yield f"`{option}={value:g}`", partial(clustered, **{option: value})


def table(scenes: Sequence[tuple[Localizer, TestScenes]]) -> str:
    """The metrics of every variant, as mean and standard deviation over the runs."""
    sources, columns = scenes[0][1].held_out.num_sources, {}
    for model, (held_out, encoded) in scenes:
        for name, maps in variants(model, sources):
            found, valid = maps(encoded)
            sound = found[:, 0] if sources == 1 else model.sound_map(encoded)
            metrics = run_metrics(held_out, Prediction(sound, found, valid))
            columns.setdefault(name, []).append(metrics)
    subset = scenes[0][1].held_out.subset
    left_out = ("without map", "share") if sources == 1 else ("without map", "share", ">")  # > is of the sound's map
    shown = [name for name in next(iter(columns.values()))[0] if not any(text in name for text in left_out)]
    rows = [(name, *(spread([run[metric] for run in runs]) for metric in shown)) for name, runs in columns.items()]
    return markdown((f"{subset}, %", *(name.removeprefix(f"{subset} ") for name in shown)), rows)


def counts(models: Sequence[Localizer], scenes: Sequence[Sequence[TestScenes]]) -> str:
    """The share of scenes in which clustering finds the right number of sources, by threshold."""
    rows = []
    for threshold in THRESHOLDS:
        cells = []
        for subset in zip(*scenes, strict=True):
            right = []
            for model, (held_out, encoded) in zip(models, subset, strict=True):
                objects = cluster_objects(*model.method.features(encoded), separation_threshold=threshold)
                right.append(100 * float((objects.valid.sum(1) == held_out.num_sources).double().mean()))
            cells.append(spread(right))
        rows.append((f"{threshold:g}", *cells))
    return markdown(("`separation_threshold`", *(f"{s.held_out.subset}: right, %" for s in scenes[0])), rows)


def spread(values: Sequence[float]) -> str:
    """The mean, with the standard deviation if there are several values."""
    mean = f"{statistics.mean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def main() -> None:
    parser = study_parser(__doc__)
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="folders of complete runs")
    parser.add_argument("--name", default="clustering", help="name of the file of results")
    options = parser.parse_args()
    models, scenes = zip(*map(encode, options.runs), strict=True)
    parts = [table(list(zip(models, subset, strict=True))) for subset in zip(*scenes, strict=True)]
    if max(s.held_out.num_sources for s in scenes[0]) <= 2 and len(scenes[0]) > 1:
        parts.append(counts(models, scenes))
    text = "\n".join(parts)
    write_text(options.output / f"{options.name}.md", text)
    print(text)


if __name__ == "__main__":
    main()
