"""Arguments and output that several commands share."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ..config import IDENTIFICATIONS

if TYPE_CHECKING:
    from ..model.localizer import Localizer

THRESHOLDS = {
    "peak_threshold": "lowest peak of the sound's map that counts as another source; the first counts anyway",
    "background_threshold": "similarity to the background above which a peak is not a source",
    "merge_threshold": "similarity above which two peaks are one source",
}


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that select a trained model, its identification with thresholds, and a device."""
    parser.add_argument(
        "model",
        type=_model,
        metavar="MODEL",
        help="folder of a run, checkpoint file, folder of a shared model, or its name on the Hugging Face hub",
    )
    parser.add_argument(
        "--device", default="auto", help="auto (a GPU if available), cpu, cuda, cuda:1, … (default: auto)"
    )
    parser.add_argument(
        "--identification",
        choices=IDENTIFICATIONS,
        help="how the sources of a mixture are told apart (default: as in training)",
    )
    for name, text in THRESHOLDS.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=float,
            metavar="COSINE",
            help=f"iterative: {text} (default: as in training)",
        )


def selected_model(options: argparse.Namespace) -> Localizer:
    """Opens the selected model and overrides its identification and thresholds with those of the command line.

    Raises:
        ValueError: as ``open_model`` and ``pick_device``, or if a threshold has no effect.
    """
    from ..model.checkpoints import open_model, pick_device

    model = open_model(options.model, pick_device(options.device))
    changes = {name: getattr(options, name) for name in given(options, ("identification", *THRESHOLDS))}
    model.config = dataclasses.replace(model.config, **changes)
    if (thresholds := given(options, THRESHOLDS)) and model.config.identification != "iterative":
        raise ValueError(
            f"Expected no `{thresholds[0]}` with the identification {model.config.identification}, which has no "
            "thresholds. Add --identification iterative."
        )
    return model


def _model(text: str) -> Path:
    # A path would lose the ./ and could then have the form of a name on the hub.
    return Path(text).absolute() if text.startswith(".") and not Path(text).exists() else Path(text)


def given(options: argparse.Namespace, names: Iterable[str]) -> list[str]:
    """Returns those of the options ``names`` that the command line sets."""
    return [name for name in names if getattr(options, name) is not None]


def print_plain(console: Console, text: str) -> None:
    """Prints a line as it is, without wrapping or markup, so that paths stay intact."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def at_least_one(text: str) -> int:
    """Parses a count of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {text!r}")
    return int(text)
