"""The command ``export_model.py``: writes a trained model as a folder that can be shared."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from ..evaluation.run_results import results_section
from ..model.checkpoints import open_model, recorded_data, run_folder, run_name
from .arguments import print_plain
from .exit_status import exit_status


def main(arguments: Sequence[str] | None = None) -> int:
    """Exports; returns 0 on success, 2 on an error, 130 if interrupted."""
    parser = argparse.ArgumentParser(
        description="Write a trained model as a folder that can be shared: weights (safetensors), configuration, card."
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, or a checkpoint file")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="new folder")
    options = parser.parse_args(arguments)
    return exit_status(lambda: export(options.run, options.folder, Console()), resumes=False)


def export(path: Path, folder: Path, console: Console) -> None:
    """Writes the model of a run, or of a checkpoint, to ``folder``, which appears when it is complete.

    Raises:
        FileExistsError: if ``folder`` exists.
        FileNotFoundError: if there is no such run.
        ValueError: if the run's files are damaged.
    """
    if folder.exists():
        raise FileExistsError(f"Expected `folder` to be new, but there is {folder} already. Delete it first.")
    if not path.exists():  # and so it is not looked for on the hub
        raise FileNotFoundError(
            f"Expected `run` to be the folder of a run or a checkpoint, but there is no folder {path}"
        )
    model = open_model(path, torch.device("cpu"))
    run, data = run_folder(path.resolve()), recorded_data(path)
    model.data_name = data.name if data else model.data_name
    card = {"title": run_name(path), "results": results_section(run) if run else ""}
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        model.save_pretrained(aside, model_card_kwargs=card)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    print_plain(console, f"{folder}/ holds the model. Before you share it, add a license to its README.md")
