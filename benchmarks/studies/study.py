"""Shared by the studies: their options, and an import path to the benchmarks' files of results."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from result_files import (
    FIGURES,
    RESULTS,
    ROOT,
    Results,
    Row,
    environment,
    markdown,
    write_figure,
    write_json,
    write_text,
)

__all__ = [
    "ROOT",
    "Results",
    "Row",
    "environment",
    "markdown",
    "metadata_folder",
    "study_parser",
    "write_figure",
    "write_json",
    "write_text",
]


def study_parser(description: str | None, *, figures: bool = False, metadata: bool = False) -> argparse.ArgumentParser:
    """A parser with ``--output``, and on request with ``--figures`` and ``--metadata``."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    if figures:
        parser.add_argument("--figures", type=Path, default=FIGURES, help="folder of the plots")
    if metadata:
        default = os.environ.get("SSLOSSES_METADATA")
        parser.add_argument("--metadata", type=Path, default=default, help="folder of the annotation files")
    return parser


def metadata_folder(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Path:
    """The folder of the annotation files; without one the program ends with an error."""
    if options.metadata is None:
        parser.error("name the folder of the annotation files: --metadata DIR, or SSLOSSES_METADATA")
    return Path(options.metadata)
