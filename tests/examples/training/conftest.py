"""Runs of the training command in processes of their own, and what they leave."""

from __future__ import annotations

import csv
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from ... import processes

processes.preload("avsl.commands.train")
SCRIPT = Path(__file__).parents[3] / "examples" / "train_music.py"
EPOCHS = 5
SIZES = ("--train-scenes", "16", "--test-scenes", "6", "--batch-size", "4", "--epochs", str(EPOCHS))
#: By the name of a recipe: the options of a small run.
RECIPES = {
    "quick": ("--quick", *SIZES),
    "crops": (
        *("--config", "crops", "--smoke-test", "true", "--data-seed", "0", *SIZES, "--visual-widths", "8", "16"),
        *("--crops", "64", "--pretraining-steps", "3", "--audio-widths", "8", "16", "--audio-depths", "1", "1"),
    ),
}
DATA = "drawn-seed0-16-6"


def arguments(place: Path, name: str, *more: str, recipe: str = "quick") -> list[str]:
    """The command line of a run; runs of one place share their data."""
    return [
        *(*RECIPES[recipe], "--runs", str(place / "runs"), "--data", str(place / "data"), "--name", name),
        *more,
    ]


def checkpoint(run: Path) -> dict:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def losses(run: Path) -> dict[int, dict[str, float]]:
    """The logged terms by step."""
    rows = []
    for part in sorted((run / "csv").glob("*/metrics.csv")):
        with part.open() as lines:
            rows += list(csv.DictReader(lines))
    return {int(row["step"]): {k: float(row[k]) for k in ("total", "trimap", "oca", "ori")} for row in rows}


def start(line: list[str], log: Path, script: Path = SCRIPT) -> BaseProcess:
    """Starts the command in a new process, since losses are compared closely and this one has run other tests."""
    return processes.start(processes.run_script, script, line, log)


def complete(line: list[str], log: Path) -> None:
    process = start(line, log)
    process.join(300)
    assert process.exitcode == 0, log.read_text()


def start_and_stop(
    line: list[str], log: Path, ready: Callable[[], bool], how: signal.Signals, script: Path = SCRIPT
) -> int:
    """Runs the command until ``ready``, sends it a signal, and returns its exit status."""
    process = start(line, log, script)
    deadline = time.monotonic() + 300
    try:
        while not ready():
            assert process.is_alive(), f"ended too early:\n{log.read_text()}"
            assert time.monotonic() < deadline, f"took too long:\n{log.read_text()}"
            time.sleep(0.01)
        os.kill(process.pid, how)
        process.join(120)
        return process.exitcode
    finally:
        process.kill()
        process.join()
