"""The command ``export_model.py``: writes a trained model as a folder that can be shared."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ..model.locations import check_model
from .exit_status import exit_status


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of the command."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description="Write a trained model as a folder that can be shared: weights (safetensors), configuration, card.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, or a checkpoint file")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="new folder")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exports; returns 0 on success, 2 on an error, 130 if interrupted."""
    options = build_parser().parse_args(arguments)
    return exit_status(lambda: _export(options.run, options.folder), resumes=False)


def _export(path: Path, folder: Path) -> None:
    if folder.exists():
        raise FileExistsError(f"Expected `folder` to be new, but there is {folder} already. Delete it first.")
    if not path.exists():  # and so it is not looked for on the hub
        raise FileNotFoundError(
            f"Expected `run` to be the folder of a run or a checkpoint, but there is no folder {path}"
        )
    check_model(path)
    from ..model.export import export  # imports torch and more, which takes seconds

    export(path, folder, Console())
