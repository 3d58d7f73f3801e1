"""The command ``localize.py``: shows where the sound comes from in a user's own picture or video."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ..model.locations import check_model
from .arguments import THRESHOLDS, add_model, at_least_one, given
from .exit_status import exit_status


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of the command."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description="Show where a sound comes from, in a picture with its sound or in a video.",
        usage="%(prog)s [options] MODEL (IMAGE SOUND | VIDEO)",
    )
    add_model(parser)
    add = parser.add_argument
    add("media", nargs="+", type=Path, metavar="IMAGE SOUND | VIDEO", help="a picture and its sound, or a video")
    add("--sources", type=at_least_one, help="pictures only: number of sounding objects (default: found by the model)")
    add("--every", type=at_least_one, default=5, help="videos only: compute a map for every n-th frame (default: 5)")
    add("--out", type=Path, default=Path("localized"), help="folder of the results (default: localized)")
    return parser


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if len(options.media) > 2:
        parser.error(f"expected IMAGE SOUND or VIDEO, but got {len(options.media)} files")
    if len(options.media) == 1 and (names := given(options, ("sources", "identification", *THRESHOLDS))):
        option = names[0].replace("_", "-")
        parser.error(f"--{option} applies to IMAGE SOUND; a video shows where its whole sound comes from")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Localizes; returns 0 on success, 2 on an error, 130 if interrupted."""
    options = parse_arguments(arguments)
    return exit_status(lambda: _localize(options), resumes=False)


def _localize(options: argparse.Namespace) -> None:
    check_model(options.model)
    for path in options.media:
        if not path.exists():
            raise FileNotFoundError(f"Expected a picture and its sound, or a video, but there is no file {path}")
    from ..localization.job import localize  # imports torch and more, which takes seconds

    localize(options, Console())
