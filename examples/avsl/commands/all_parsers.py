"""The parsers of all commands, for the page of options and for tests."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

from ..preparation.job import MUSIC, VGGSOUND
from . import audioclip_stand_in, caption, demo, evaluate, export, localize, prepare, prepare_flickr, tables, train

_BUILD: Mapping[str, Callable[[], argparse.ArgumentParser]] = {
    "prepare_music.py": lambda: prepare.build_parser(MUSIC),
    "prepare_vggsound.py": lambda: prepare.build_parser(VGGSOUND),
    "prepare_flickr.py": prepare_flickr.build_parser,
    "generate_captions.py": caption.build_parser,
    "train_music.py": lambda: train.build_parser("music"),
    "train_vggsound.py": lambda: train.build_parser("vggsound"),
    "train_flickr.py": lambda: train.build_parser("flickr"),
    "evaluate.py": evaluate.build_parser,
    "localize.py": localize.build_parser,
    "demo.py": demo.build_parser,
    "export_model.py": export.build_parser,
    "reproduce_tables.py": tables.build_parser,
    "make_audioclip_stand_in.py": audioclip_stand_in.build_parser,
}


def all_parsers() -> dict[str, argparse.ArgumentParser]:
    """Builds the parser of each program in ``examples/``, by the name of its file."""
    parsers = {name: build() for name, build in _BUILD.items()}
    for name, parser in parsers.items():
        parser.prog = name
    return parsers
