"""The commands ``prepare_music.py`` and ``prepare_vggsound.py``."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ..constants import SILENCE
from ..parts import add_part_options
from ..preparation.job import MUSIC, VGGSOUND, Preparation, PublicDataset, prepare_dataset
from .exit_status import exit_status

__all__ = ["MUSIC", "VGGSOUND", "main", "parse_arguments"]


def build_parser(dataset: PublicDataset) -> argparse.ArgumentParser:
    """Builds the parser of the command for ``dataset``."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description=f"Prepare {dataset.name} for training: extract a frame and a sound for every listed clip from "
        "downloaded videos, and write lists of the prepared clips. Run the same command again to resume.",
    )
    add = parser.add_argument
    add("--videos", type=Path, required=True, metavar="DIR", help="folder of videos, searched at any depth")
    add("--lists", type=Path, required=True, metavar="DIR", help="folder of the public lists and boxes")
    add_common(parser)
    return parser


def parse_arguments(arguments: Sequence[str] | None = None, *, dataset: PublicDataset) -> argparse.Namespace:
    """Parses the options of the command for ``dataset``."""
    parser = build_parser(dataset)
    options = parser.parse_args(arguments)
    check_common(parser, options)
    return options


def add_common(parser: argparse.ArgumentParser) -> None:
    """Adds the options that all preparations share."""
    add_part_options(parser)
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write, the --data-root of training")
    add(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="number of processes; 0: no extra processes (default: one per core)",
    )
    add(
        "--frame-side",
        type=int,
        default=256,
        help="scale frames down so that the shorter side has at most this many pixels (default: %(default)s)",
    )
    add(
        "--silence",
        type=float,
        default=SILENCE,
        metavar="DBFS",
        help="leave out clips below this level; --silence=-inf keeps all (default: %(default)s)",
    )


def check_common(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Ends the program with a message if one of the shared options is out of range."""
    if options.workers < 0:
        parser.error(f"Expected `--workers` to be at least 0, but got {options.workers}")
    if options.frame_side < 1:
        parser.error(f"Expected `--frame-side` to be at least 1 pixel, but got {options.frame_side}")
    if math.isnan(options.silence):
        parser.error("Expected `--silence` to be a level in dBFS, but got nan")


def main(arguments: Sequence[str] | None = None, *, dataset: PublicDataset) -> int:
    """Runs the command. Returns 0 if any clip can be used, 2 if none can or on an error, 130 if interrupted."""
    options = parse_arguments(arguments, dataset=dataset)
    return exit_status(lambda: 0 if prepare_dataset(dataset, Preparation(**vars(options)), Console()) else 2)
