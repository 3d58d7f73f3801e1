"""The command ``evaluate.py``: scores a trained model on test sets."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ..config import SUBSETS
from ..model.locations import check_model, recorded
from ..training.data_location import FOLDERS
from .arguments import add_model, at_least_one
from .exit_status import exit_status

#: Names of the protocols, for the help: ``sslosses.metrics.protocols`` imports torch.
PROTOCOLS = (
    *("lvs", "ez-vsl", "avgn", "noprior", "tvsl", "paper", "clean", "slavc", "slavc-fixed", "sslalign"),
    *("sslalign-adaptive", "fnac", "fnac-bicubic", "htf", "ssl-tie", "rcgrad", "acl", "dsol", "avgn-test"),
    "noprior-union",
)


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of the command."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description="Evaluate a trained model on test sets of MUSIC, VGGSound or Flickr-SoundNet, by any protocols, "
        "with chance levels.",
    )
    add_model(parser)
    add = parser.add_argument
    add("--data-root", type=Path, help="folder with frames/, audio/ and metadata/ (default: as in training)")
    add("--dataset", choices=SUBSETS, help="which data set's folder layout to read (default: as in training)")
    add("--subsets", nargs="+", help="test sets (default: as in training; all of them for another data set)")
    add(
        "--protocol",
        default="paper",
        metavar="NAMES",
        help=f"one or more protocols, separated by commas: {', '.join(PROTOCOLS)} (default: paper)",
    )
    add(
        "--sources",
        choices=("known", "found"),
        default="known",
        help="whether the model is given the number of sources of a mixture, or has to find it (default: known)",
    )
    add("--time", action="store_true", help="also measure time and memory of inference")
    add(
        "--negative-sounds",
        nargs="?",
        choices=("held-out", "oracle"),
        const="held-out",
        help="also score maps of silence, noise and sounds from out of sight; the threshold comes from every fifth "
        "scene, which is not scored (held-out, the default), or from all of them (oracle)",
    )
    add("--no-chance", action="store_true", help="leave out the chance levels")
    add(
        "--saliency",
        action="store_true",
        help="also score the saliency of the frame, a prediction that does not hear the sound; with composed scenes it "
        "is one of the chance levels",
    )
    add(
        "--seed",
        type=int,
        default=0,
        help="seed of the random maps among the chance levels, and of negative sounds (default: 0)",
    )
    add("--batch-size", type=at_least_one, default=50, help="scenes per batch (default: 50)")
    add("--workers", type=int, help="processes that decode; 0 decodes in the main process (default: as in training)")
    add("--out", type=Path, help="folder of the results (default: evaluation/<name of the run>-<data set>)")
    add("--data", type=Path, default=Path("data"), help="folder of composed scenes (default: data)")
    return parser


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    return build_parser().parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluates; returns 0 on success, 2 on an error, 130 if interrupted."""
    options = parse_arguments(arguments)
    return exit_status(lambda: _evaluate(options), resumes=False)


def _evaluate(options: argparse.Namespace) -> None:
    check_model(options.model)
    if options.data_root:
        dataset = options.dataset or recorded(options.model, "dataset") or "music"
        FOLDERS[dataset](options.data_root)
    from ..evaluation.job import evaluate  # imports torch and more, which takes seconds

    evaluate(options, Console())
