"""What both commands share: arguments, and lines for people."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console


def add_model(parser: argparse.ArgumentParser) -> None:
    """Arguments that name a trained model and a device."""
    parser.add_argument("model", type=Path, metavar="RUN_OR_CKPT", help="folder of a run, or a checkpoint")
    parser.add_argument("--device", default="auto", help="auto (the GPU if there is one), cpu, cuda, cuda:1, …")


def say(console: Console, text: str) -> None:
    """Print a line as it is: paths are neither wrapped nor taken for markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def at_least_one(text: str) -> int:
    """A count from the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {text!r}")
    return int(text)
