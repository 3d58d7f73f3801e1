"""The commands ``train_music.py``, ``train_vggsound.py`` and ``train_flickr.py``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ..config import Config, add_options, chosen_options
from ..parent_process import end_with_starter
from ..training.data_location import DataLocation
from ..training.run import run
from .exit_status import exit_status

TITLES = {"music": "MUSIC", "vggsound": "VGGSound", "flickr": "Flickr-SoundNet"}


def build_parser(dataset: str = "music") -> argparse.ArgumentParser:
    """Builds the parser of the command for ``dataset``."""
    composed = " or, without --data-root, on composed scenes, which are made if they do not exist"
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description=f"Train and evaluate on {TITLES[dataset]}{'' if dataset == 'flickr' else composed}. If the command "
        "is interrupted, run it again to resume.",
    )
    add = parser.add_argument
    add("--data-root", type=Path, help="folder with frames/, audio/ and metadata/ (default: composed scenes)")
    add("--media", type=Path, help="compose scenes from this folder of photographs and recordings")
    add("--soundfont", type=Path, metavar="FILE.sf2", help="take the sounds of drawn instruments from this SoundFont 2")
    add(
        "--config",
        nargs="+",
        help="YAML files, or names in examples/configs; later files override earlier ones (default: composed, media "
        f"with --media, {dataset} with --data-root)",
    )
    add("--quick", action="store_true", help="use the quick configuration: takes a minute, checks that all steps work")
    add("--name", help="name of the run's folder in --runs (default: made from data, configuration and seed)")
    add("--runs", type=Path, default=Path("runs"), help="folder of all runs (default: runs)")
    add("--data", type=Path, default=Path("data"), help="folder of composed scenes and of features (default: data)")
    add_options(parser)
    return parser


def parse_arguments(arguments: Sequence[str] | None = None, *, dataset: str = "music") -> argparse.Namespace:
    """Reads the command line; ``config`` is set to the default configuration of ``dataset`` if none is named."""
    parser = build_parser(dataset)
    options = parser.parse_args(arguments)
    given = [name for name in ("data_root", "media", "soundfont") if getattr(options, name)]
    if len(given) > 1:
        parser.error(f"{' and '.join('--' + name.replace('_', '-') for name in given)} exclude each other")
    if dataset == "flickr" and not options.data_root:
        parser.error("Expected `--data-root`, as no scenes are composed for Flickr-SoundNet")
    if options.quick and options.config:
        parser.error("--quick and --config exclude each other")
    if options.media:
        options.media = options.media.resolve()
    if options.soundfont:
        options.soundfont = options.soundfont.resolve()
    options.config = options.config or _default_config(options, dataset)
    return options


def _default_config(options: argparse.Namespace, dataset: str) -> list[str]:
    if options.data_root and not options.quick:
        return [dataset]
    base = "quick" if options.quick else "media" if options.media else "composed"
    return [base] if dataset == "music" else [base, dataset]


def main(arguments: Sequence[str] | None = None, *, dataset: str = "music") -> int:
    """Trains and evaluates; returns 0 on success, 2 on an error, 130 if interrupted."""
    options = parse_arguments(arguments, dataset=dataset)
    end_with_starter()

    def job() -> None:
        config = Config.load(options.config, chosen_options(options))
        location = DataLocation(options.data, options.data_root, options.media, options.soundfont)
        run(config, location, options.runs / (options.name or _default_name(options, config)), Console())

    return exit_status(job)


def _default_name(options: argparse.Namespace, config: Config) -> str:
    kind = "media" if options.media else "soundfont" if options.soundfont else "composed"
    data = options.data_root.resolve().name if options.data_root else kind
    configs = [Path(name).stem for name in options.config]
    if options.soundfont and "composed" in configs:  # it has no configuration of its own, other than media
        configs.remove("composed")
    return "-".join(dict.fromkeys((data, *configs, f"seed{config.seed}")))
