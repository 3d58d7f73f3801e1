"""The work of ``export_model.py``."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from rich.console import Console

from ..commands.arguments import print_plain
from ..evaluation.run_results import results_section
from .checkpoints import open_model
from .locations import recorded_data, run_folder, run_name


def export(path: Path, folder: Path, console: Console) -> None:
    """Writes the model of a run, or of a checkpoint, to ``folder``, which appears when it is complete.

    Raises:
        ValueError: if the run's files are damaged.
    """
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
