"""What both commands share: arguments, and lines for people."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from rich.console import Console

from ..model.checkpoints import open_model, pick_device
from ..model.localizer import Localizer

THRESHOLDS = ("peak_threshold", "background_threshold", "merge_threshold")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Arguments that name a trained model and a device."""
    parser.add_argument("model", type=Path, metavar="RUN_OR_CKPT", help="folder of a run, or a checkpoint")
    parser.add_argument("--device", default="auto", help="auto (the GPU if there is one), cpu, cuda, cuda:1, …")
    for name in THRESHOLDS:
        text = "of the identification of a mixture's sources (default: that of the training)"
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, metavar="COSINE", help=text)


def chosen_model(options: argparse.Namespace) -> Localizer:
    """The model that these arguments name, with the thresholds that they give."""
    model = open_model(options.model, pick_device(options.device))
    given = {name: getattr(options, name) for name in THRESHOLDS if getattr(options, name) is not None}
    model.config = dataclasses.replace(model.config, **given)
    return model


def say(console: Console, text: str) -> None:
    """Print a line as it is: paths are neither wrapped nor taken for markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def at_least_one(text: str) -> int:
    """A count from the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {text!r}")
    return int(text)
