"""A run: data, model, training, evaluation and report. After an interruption, the same call resumes it.

Imports no torch, so that a finished run is shown, and a wrong argument or a missing file is named, at once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ..config import CAPTIONED_METHODS, Config
from ..data.folders import ClipFolder
from ..evaluation.report import ROW_SUFFIX, Metrics, rich_table
from ..files import read_json
from ..model_names import check_name
from .clock import Clock
from .data_location import DataLocation, data_root, open_data
from .run_folder import claimed

log = logging.getLogger(__name__)


def run(config: Config, location: DataLocation, directory: Path, console: Console) -> dict[str, Metrics]:
    """Runs all steps in ``directory``.

    Returns:
        The rows of the printed table; an empty dict in processes that only take part in training.
    """
    if (directory / "metrics.json").is_file():
        with claimed(directory, config, data_root(location, config)):
            return _show(directory, config, console)
    clock = Clock()
    folder = open_data(location, config)
    folder.check_files(config.subsets, captions=config.method in CAPTIONED_METHODS)
    _check_weights(config)
    clock.lap("data")
    with claimed(directory, config, folder.root):
        if (directory / "metrics.json").is_file():  # another process finished the run while this one waited for data
            return _show(directory, config, console)
        rows, notes = _complete(config, location, folder, directory, clock)
    if not rows:
        return {}
    console.print(rich_table(_printed(rows, config.identification), str(directory)))
    _warn(notes)
    console.print(
        f"{directory}/ holds the table, pictures, configuration and checkpoint ({sum(clock.laps.values()):.0f} s)",
        markup=False,
    )
    return rows


def _check_weights(config: Config) -> None:
    """Checks that the models that the configuration names by a path exist."""
    for argument in ("visual_weights", "audio_weights", "text_encoder"):
        if source := getattr(config, argument):
            check_name(argument, source)


def _complete(
    config: Config, location: DataLocation, folder: ClipFolder, directory: Path, clock: Clock
) -> tuple[dict[str, Metrics], list[str]]:
    from .steps import complete_run  # imports torch and more, which takes seconds

    return complete_run(config, location, folder, directory, clock)


def _show(directory: Path, config: Config, console: Console) -> dict[str, Metrics]:
    """Prints the table of a finished run."""
    rows: dict[str, Metrics] = read_json(directory / "metrics.json", "percent")
    note = "complete; delete it or choose another --name to run again"
    console.print(rich_table(_printed(rows, config.identification), f"{directory} ({note})"))
    _warn(run_notes(directory / "metrics.json"))
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
