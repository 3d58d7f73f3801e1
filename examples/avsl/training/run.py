"""A run: data, model, training, evaluation and report. After an interruption, the same call resumes it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from ..config import Config
from ..evaluation.held_out import HeldOutScenes, load_held_out
from ..evaluation.predict import Prediction, frame_resolution, predictions, usable_identifications
from ..evaluation.report import ROW_SUFFIX, SMOKE_TEST, metric_notes, rich_table, write_report
from ..evaluation.score import Metrics, chance_metrics, mean_reference_deviation, run_metrics
from ..evaluation.sheet import draw_sheet
from ..files import read_json, write_json
from ..model.localizer import Localizer
from .data_location import DataLocation, open_data
from .fit import fit
from .model_setup import set_up_training, standardize_features, use_cached_features
from .run_folder import claimed

log = logging.getLogger(__name__)


def run(config: Config, location: DataLocation, directory: Path, console: Console) -> dict[str, Metrics]:
    """Runs all steps in ``directory``.

    Returns:
        The rows of the printed table; an empty dict in processes that only take part in training.
    """
    clock = _Clock()
    folder = open_data(location, config)
    clock.lap("data")
    with claimed(directory, config, folder.root):
        if (directory / "metrics.json").is_file():
            rows: dict[str, Metrics] = read_json(directory / "metrics.json", "percent")
            note = "complete; delete it or choose another --name to run again"
            console.print(rich_table(_printed(rows, config.identification), f"{directory} ({note})"))
            _warn(run_notes(directory / "metrics.json"))
            return rows
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
            _warn(notes)
            untrained = _untrained_metrics(directory / "untrained.json", model, tests, names, config)
        fit(model, training, directory, config)
        clock.lap("training")
        if rank_zero_only.rank != 0:
            return {}
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
    console.print(rich_table(_printed(rows, config.identification), str(directory)))
    _warn(notes)
    console.print(
        f"{directory}/ holds the table, pictures, configuration and checkpoint ({sum(clock.laps.values()):.0f} s)",
        markup=False,
    )
    return rows


def _printed(rows: dict[str, Metrics], identification: str) -> dict[str, Metrics]:
    """The rows that fit a terminal: of all identifications that of the configuration, and the first of the others."""
    order = sorted(ROW_SUFFIX, key=lambda name: name != identification)
    models = [name for name in order if f"trained{ROW_SUFFIX[name]}" in rows][:2]
    hidden = {f"{row}{ROW_SUFFIX[name]}" for row in ("trained", "untrained") for name in order if name not in models}
    return {row: metrics for row, metrics in rows.items() if row not in hidden}


def run_notes(metrics: Path) -> list[str]:
    """Returns what a finished run says about its metrics; ``metrics`` is its ``metrics.json``."""
    notes = read_json(metrics).get("notes", [])  # runs of earlier versions have none
    return [str(note) for note in notes]


def _warn(notes: Sequence[str]) -> None:
    for note in notes:
        log.warning("%s", note)


def _device(config: Config) -> torch.device:
    if config.accelerator == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


class _Clock:
    """Seconds per step."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name], self._last = round(now - self._last, 1), now


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
