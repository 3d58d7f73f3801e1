"""The command ``make_audioclip_stand_in.py``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from .arguments import print_plain
from .exit_status import exit_status


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of the command."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description="Write a file of the form of AudioCLIP's checkpoint with random weights. Training accepts it with "
        "--smoke-test true only, which marks all results.",
    )
    parser.add_argument("file", type=Path, help="path of the new file, with the suffix .pt")
    parser.add_argument("--small", action="store_true", help="small networks in place of those as published")
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="FOLDER",
        help="new folder for a stand-in of CLIP's tokenizer (default: none)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights (default: %(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes a stand-in; returns 0 on success, 2 on an error, 130 if interrupted."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.file.suffix != ".pt":
        parser.error(f"Expected `file` to end in .pt, but got {str(options.file)!r}")
    if options.file.exists():  # it may be the real checkpoint
        parser.error(f"Expected `file` to be a new file, but there is {str(options.file)!r} already. Delete it first")
    if options.tokenizer and options.tokenizer.exists():
        parser.error(f"Expected `--tokenizer` to be a new folder, but there is {str(options.tokenizer)!r} already")
    return exit_status(lambda: _write(options), resumes=False)


def _write(options: argparse.Namespace) -> None:
    from ..model.encoders.audioclip.sizes import FULL, SMALL
    from ..model.encoders.audioclip.stand_in import write_stand_in, write_tokenizer

    write_stand_in(options.file, options.seed, SMALL if options.small else FULL)
    size = options.file.stat().st_size
    print_plain(Console(), f"{options.file} holds random weights ({size / 1e6:.0f} MB)")
    if options.tokenizer:
        write_tokenizer(options.tokenizer)
        print_plain(Console(), f"{options.tokenizer} holds a tokenizer with made-up words")
