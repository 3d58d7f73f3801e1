"""Runs of the training command in processes of their own, and what they leave."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import torch

import sslosses

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


def start(line: list[str], out: IO[str] | int, script: Path = SCRIPT) -> subprocess.Popen:
    """Starts the command in a new process, since losses are compared closely and this one has run other tests."""
    root = Path(sslosses.__file__).parents[1]
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, str(script), *line], stdout=out, stderr=subprocess.STDOUT, env=environment)


def complete(line: list[str]) -> None:
    process = start(line, subprocess.PIPE)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said.decode()


def start_and_stop(
    line: list[str], log: Path, ready: Callable[[], bool], how: signal.Signals, script: Path = SCRIPT
) -> int:
    """Runs the command until ``ready``, sends it a signal, and returns its exit status."""
    with log.open("w") as out:
        process = start(line, out, script)
    deadline = time.monotonic() + 300
    try:
        while not ready():
            assert process.poll() is None, f"ended too early:\n{log.read_text()}"
            assert time.monotonic() < deadline, f"took too long:\n{log.read_text()}"
            time.sleep(0.01)
        process.send_signal(how)
        return process.wait(120)
    finally:
        process.kill()
        process.wait()
