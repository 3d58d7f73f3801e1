"""The steps of a run after its arguments and files are checked."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_only

from ..config import Config
from ..data.folders import ClipFolder
from ..evaluation.held_out import HeldOutScenes, load_held_out
from ..evaluation.predict import Prediction, frame_resolution, predictions, usable_identifications
from ..evaluation.report import ROW_SUFFIX, SMOKE_TEST, Metrics, metric_notes, write_report
from ..evaluation.score import chance_metrics, mean_reference_deviation, run_metrics
from ..evaluation.sheet import draw_sheet
from ..files import read_json, write_json
from ..model.localizer import Localizer
from .clock import Clock
from .data_location import DataLocation
from .fit import fit
from .model_setup import set_up_training, standardize_features, use_cached_features

log = logging.getLogger(__name__)


def complete_run(
    config: Config, location: DataLocation, folder: ClipFolder, directory: Path, clock: Clock
) -> tuple[dict[str, Metrics], list[str]]:
    """Trains, scores and writes the report.

    Returns:
        The rows of the table, none in processes that only take part in training, and what to know about them.
    """
    model, training = set_up_training(location, config, folder)
    clock.lap("setup")
    tests = [load_held_out(folder, subset, config.image_size) for subset in config.subsets]
    model.to(_device(config))
    clips = [(training.scenes, training.largest_scene), *((test.scenes, test.num_frames) for test in tests)]
    use_cached_features(model, location, config, clips)
    standardize_features(model, training.scenes)
    clock.lap("features")
    names = usable_identifications(model, tests)
    notes = metric_notes(config, training.names, tests)
    if rank_zero_only.rank == 0:
        for note in notes:
            log.warning("%s", note)
        untrained = _untrained_metrics(directory / "untrained.json", model, tests, names, config)
    fit(model, training, directory, config)
    clock.lap("training")
    if rank_zero_only.rank != 0:
        return {}, notes
    maps = [predictions(model, test, names, workers=config.workers) for test in tests]
    trained = _metrics(tests, maps)
    trained[names[0]] |= mean_reference_deviation(model, training)
    shown = [prediction[config.identification] for prediction in maps]
    resolution = frame_resolution(tests[0], shown[0])
    chance = [chance_metrics(test, resolution) for test in tests]
    rows = {f"trained{ROW_SUFFIX[name]}": trained[name] for name in names}
    rows |= {f"untrained{ROW_SUFFIX[name]}": untrained[name] for name in names}
    rows |= {baseline: _merged([levels[baseline] for levels in chance]) for baseline in chance[0]}
    clock.lap("evaluation")
    draw_sheet(
        directory / "sheet.png", list(zip(tests, shown, strict=True)), title=SMOKE_TEST if config.smoke_test else ""
    )
    clock.lap("drawing")
    write_report(directory, rows, clock.laps, notes)
    return rows, notes


def _device(config: Config) -> torch.device:
    if config.accelerator == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def _merged(parts: Sequence[Metrics]) -> Metrics:
    return {name: value for part in parts for name, value in part.items()}


def _metrics(tests: Sequence[HeldOutScenes], maps: Sequence[dict[str, Prediction]]) -> dict[str, Metrics]:
    """The metrics of all test sets, by identification."""
    return {
        name: _merged([run_metrics(test, by_name[name]) for test, by_name in zip(tests, maps, strict=True)])
        for name in maps[0]
    }


def _untrained_metrics(
    path: Path, model: Localizer, tests: Sequence[HeldOutScenes], names: Sequence[str], config: Config
) -> dict[str, Metrics]:
    """Metrics before training, written to a file so that a resumed run does not compute them again."""
    metrics: dict[str, Metrics] = read_json(path) if path.is_file() else {}
    if not set(names) <= metrics.keys():  # the file of an earlier version has no identifications
        maps = [predictions(model, test, names, workers=config.workers) for test in tests]
        metrics = _metrics(tests, maps)
        write_json(path, metrics)
    return metrics
