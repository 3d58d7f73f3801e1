"""What both commands share: where the model is, on what it runs, and how errors end."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

log = logging.getLogger(__name__)


def add_model(parser: argparse.ArgumentParser) -> None:
    """Arguments that name a trained model and a device."""
    parser.add_argument("model", type=Path, metavar="RUN_OR_CKPT", help="folder of a run, or a checkpoint")
    parser.add_argument("--device", default="auto", help="auto (the GPU if there is one), cpu, cuda, cuda:1, …")


def exit_status(job: Callable[[], None]) -> int:
    """Do the job; 0 on success, 2 if it can't be done, 130 if it was interrupted."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        job()
    except KeyboardInterrupt:
        log.info("Stopped.")
        return 130
    except (OSError, ModuleNotFoundError, ValueError) as error:
        log.error("%s: %s", type(error).__name__, error)
        return 2
    return 0


def say(console: Console, text: str) -> None:
    """Print a line as it is: paths are neither wrapped nor taken for markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def at_least_one(text: str) -> int:
    """A count from the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {text!r}")
    return int(text)
