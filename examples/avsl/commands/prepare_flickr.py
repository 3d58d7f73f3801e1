"""The command ``prepare_flickr.py``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from .exit_status import exit_status
from .prepare import add_common, check_common


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of the command."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description="Prepare Flickr-SoundNet for training and evaluation: take the picture and the sound of every "
        "listed clip out of unpacked archives, and write lists of the prepared clips and the boxes of test clips. Run "
        "the same command again to resume.",
    )
    add = parser.add_argument
    add(
        "--archive",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR",
        help="folders of unpacked archives, whose layouts are detected; a clip comes from the first that has it",
    )
    add("--train-list", type=Path, metavar="FILE", help="ids of the training clips (default: prepare test clips only)")
    add(
        "--test-list",
        default="flickr-250",
        metavar="NAME_OR_FILE",
        help="ids of the test clips: flickr-249, flickr-250, flickr-178, flickr-1666, or a file (default: %(default)s)",
    )
    add(
        "--annotations",
        type=Path,
        metavar="DIR",
        help="folder of <id>.xml, the boxes of the test clips (default: Annotations in an archive)",
    )
    add_common(parser)
    return parser


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the options of the command."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    check_common(parser, options)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns 0 if any clip can be used, 2 if none can or on an error, 130 if interrupted."""
    options = parse_arguments(arguments)

    def job() -> int:
        from ..preparation.flickr import FlickrPreparation, prepare_flickr

        return 0 if prepare_flickr(FlickrPreparation(**vars(options)), Console()) else 2

    return exit_status(job)
