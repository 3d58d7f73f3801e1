"""Duets in VGGSound's form, by models that were trained on duets and by models that were trained on single sources.

The models are those of the tables:

    python examples/reproduce_tables.py --table 1 2 --only VGGSound-Duet VGGSound-Single --seeds 0 1 2 --jobs 2
    OMP_NUM_THREADS=2 python benchmarks/studies/trained_on_singles.py --seeds 0 1 2

Scores the models that were trained on single sources on the duets, which takes about ten seconds per model. Writes
benchmarks/results/NAME.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from study import ROOT, markdown, study_parser, write_text

sys.path.insert(0, str(ROOT / "examples"))
from avsl.evaluation.held_out import load_held_out
from avsl.evaluation.predict import predictions, usable_identifications
from avsl.evaluation.report import ROW_SUFFIX, Metrics
from avsl.evaluation.score import run_metrics
from avsl.files import read_json
from avsl.model.checkpoints import open_model
from avsl.model.locations import recorded_data
from avsl.tables.runs import Plan, Run
from avsl.tables.specification import Row, read_table
from avsl.tables.statistics import Estimate
from avsl.training.data_location import FOLDERS

#: The ways to tell sources apart that are compared: all methods have the first.
WAYS = ("clustering", "own")
METRIC = "duet CAP"
Scores = dict[str, Metrics]


def rows() -> list[Row]:
    """The methods of Table 1 that run on composed scenes."""
    return [row for row in read_table(1).rows if row.data != "real"]


def run(plan: Plan, row: Row, subset: str, seed: int) -> Run:
    """The run of a method that was trained on one subset."""
    return Run(plan, "vggsound", (subset,), row.config_on(composed=True), seed)


def scores_of_duets(trained_on_duets: Run) -> Scores:
    """The metrics that the run reports, by the way to tell the sources apart."""
    percent = read_json(trained_on_duets.metrics, "percent")
    return {way: percent[f"trained{ROW_SUFFIX[way]}"] for way in WAYS if f"trained{ROW_SUFFIX[way]}" in percent}


@torch.no_grad()
def scores_of_singles(trained_on_singles: Run, duets: Path) -> Scores:
    """The metrics of a model that was trained on single sources, on the duets in the folder ``duets``."""
    model = open_model(trained_on_singles.folder, torch.device("cpu"))
    held_out = load_held_out(FOLDERS["vggsound"](duets), "duet", model.config.image_size)
    ways = [way for way in usable_identifications(model, [held_out]) if way in WAYS]
    return {way: run_metrics(held_out, p) for way, p in predictions(model, held_out, ways).items()}


def line(name: str, pairs: Sequence[tuple[Scores, Scores]], way: str) -> tuple[str, ...]:
    """The row of a method: both means, and the mean of the differences seed by seed."""
    on_duets, on_singles = ([scores[way][METRIC] for scores in side] for side in zip(*pairs, strict=True))
    differences = [single - duet for duet, single in zip(on_duets, on_singles, strict=True)]
    return (name, way, *(str(Estimate.of(values)) for values in (on_duets, on_singles, differences)))


def main() -> None:
    parser = study_parser(__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of composed scenes and of features")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of the runs")
    parser.add_argument("--name", default="trained_on_singles", help="name of the file of results")
    options = parser.parse_args()
    plan = Plan("composed", {}, options.runs, options.data)
    lines = []
    for row in rows():
        pairs = []
        for seed in options.seeds:
            duet, single = (run(plan, row, subset, seed) for subset in ("duet", "single"))
            if duet.complete and single.complete:
                data = recorded_data(duet.folder)
                assert data is not None
                pairs.append((scores_of_duets(duet), scores_of_singles(single, data)))
        lines += [line(row.name, pairs, way) for way in WAYS if pairs and way in pairs[0][0]]
    header = ("method", "sources by", f"{METRIC}, trained on duets", "trained on single sources", "difference")
    text = markdown(header, lines)
    write_text(options.output / f"{options.name}.md", text)
    print(text)


if __name__ == "__main__":
    main()
