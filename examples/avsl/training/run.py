"""A run: data, model, training, evaluation and report. After an interruption, the same call resumes it."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from ..config import Config
from ..evaluation.held_out import HeldOutScenes, load_held_out
from ..evaluation.predict import frame_resolution, predict
from ..evaluation.report import SMOKE_TEST, draw_sheet, metric_notes, rich_table, write_report
from ..evaluation.score import Metrics, chance_metrics, mean_reference_deviation, run_metrics
from ..files import read_json, write_json
from ..model.localizer import Localizer
from .data_location import DataLocation, open_data
from .fit import fit
from .model_setup import set_up_training
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
            console.print(rich_table(rows, f"{directory} ({note})"))
            _warn(run_notes(directory / "metrics.json"))
            return rows
        model, training = set_up_training(location, config, folder)
        clock.lap("pretraining")
        tests = [load_held_out(folder, subset, config.image_size) for subset in config.subsets]
        notes = metric_notes(config, training.names, tests)
        if rank_zero_only.rank == 0:
            _warn(notes)
            model.to("cuda" if torch.cuda.is_available() and config.accelerator != "cpu" else "cpu")
            untrained = _untrained_metrics(directory / "untrained.json", model, tests, config)
        fit(model, training, directory, config)
        clock.lap("training")
        if rank_zero_only.rank != 0:
            return {}
        predictions = [predict(model, test, workers=config.workers) for test in tests]
        trained = _merged([run_metrics(test, maps) for test, maps in zip(tests, predictions, strict=True)])
        trained |= mean_reference_deviation(model, training)
        resolution = frame_resolution(tests[0], predictions[0])
        chance = [chance_metrics(test, resolution) for test in tests]
        rows = {"trained": trained, "untrained": untrained}
        rows |= {baseline: _merged([levels[baseline] for levels in chance]) for baseline in chance[0]}
        clock.lap("evaluation")
        shown = list(zip(tests, predictions, strict=True))
        draw_sheet(directory / "sheet.png", shown, title=SMOKE_TEST if config.smoke_test else "")
        write_report(directory, rows, clock.laps, notes)
    console.print(rich_table(rows, str(directory)))
    _warn(notes)
    console.print(
        f"{directory}/ holds the table, pictures, configuration and checkpoint ({sum(clock.laps.values()):.0f} s)",
        markup=False,
    )
    return rows


def run_notes(metrics: Path) -> list[str]:
    """Returns what a finished run says about its metrics; ``metrics`` is its ``metrics.json``."""
    notes = read_json(metrics).get("notes", [])  # runs of earlier versions have none
    return [str(note) for note in notes]


def _warn(notes: Sequence[str]) -> None:
    for note in notes:
        log.warning("%s", note)


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


def _untrained_metrics(path: Path, model: Localizer, tests: Sequence[HeldOutScenes], config: Config) -> Metrics:
    """Metrics before training, written to a file so that a resumed run does not compute them again."""
    if not path.is_file():
        write_json(path, _merged([run_metrics(test, predict(model, test, workers=config.workers)) for test in tests]))
    metrics: Metrics = read_json(path)
    return metrics
