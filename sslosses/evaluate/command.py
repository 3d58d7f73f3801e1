"""Arguments, steps and exit codes of ``python -m sslosses.evaluate``."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sslosses.evaluate import sheet
from sslosses.evaluate.benchmark import FORMATS, LAYOUTS, read_benchmark
from sslosses.evaluate.errors import CommandError
from sslosses.evaluate.exit_status import exit_status
from sslosses.evaluate.frame_only import frame_only_maps
from sslosses.evaluate.leaks import find_leak
from sslosses.evaluate.maps_to_score import MapsToScore, OtherMaps, check_clips
from sslosses.evaluate.saved_maps import SavedMaps
from sslosses.evaluate.standard_output import write_out
from sslosses.metrics import Protocol, protocols

_SELF_TEST = "--self-test"
_MOST_RESAMPLES = 100_000


def main(argv: Sequence[str] | None = None) -> int:
    """Scores saved heatmaps and writes the results. ``--help`` lists the arguments.

    Args:
        argv: the arguments; None: those of the process.

    Returns:
        The exit code: 0, or 2 after an error, which is printed to stderr. After an error nothing is written. 1: all is
        written, but the tables cannot be printed, or ``--self-test`` found a difference. A reader that closes the pipe
        early, such as ``head``, is no error.

    Raises:
        SystemExit: from argparse, with code 2 for wrong arguments and 0 after ``--help``.

    Example:
        >>> import json, pathlib, tempfile
        >>> import numpy as np
        >>> from sslosses.evaluate import main
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> entry = {"file": "a_000030", "class": "elk bugling", "bbox": [[0, 0, 0.5, 1]]}
        >>> _ = (folder / "vggss.json").write_text(json.dumps([entry]))
        >>> np.savez(folder / "maps.npz", a_000030=np.array([[0.9, 0.1], [0.9, 0.1]]))
        >>> main(["--maps", str(folder / "maps.npz"), "--annotations", str(folder / "vggss.json"), "--format", "vggss",
        ...       "--protocol", "paper", "--out", str(folder / "scores"), "--no-chance", "--no-sheet"])
        | paper, % |  maps | 95 % interval | mean over videos | its 95 % interval |
        | -------- | ----: | ------------: | ---------------: | ----------------: |
        | AP       | 100.0 |             – |            100.0 |                 – |
        | IoU@0.5  | 100.0 |             – |            100.0 |                 – |
        | AUC      |  97.5 |             – |             97.5 |                 – |
        <BLANKLINE>
        1 entries of 1 video (effectively 1.0), 1 samples, 0 samples without map, 0 empty truths
        <BLANKLINE>
        Note: All entries are of one video, so there is no interval over videos.
        <BLANKLINE>
        Scored 1 of 1 annotated clips (100 %)
        Clips: a list of your own (1 clips, SHA-256 of the ids 85112422042a…)
        0
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments == [_SELF_TEST]:
        from sslosses.evaluate.self_test import self_test

        text, passed = self_test()
        write_out(text)
        return 0 if passed else 1
    options = build_parser().parse_args(arguments)
    return exit_status(lambda: _run(options), options.out)


def _run(options: argparse.Namespace) -> str:
    chosen = _protocols(options.protocol)
    if options.out.exists() and not options.out.is_dir():
        raise CommandError(f"Expected --out to be a folder, but {options.out} is a file")
    if options.frames_dir is not None and not options.frames_dir.is_dir():
        raise CommandError(f"Expected --frames-dir to be a folder, but there is no folder {options.frames_dir}")
    if options.saliency and options.frames_dir is None:
        raise CommandError("Expected --frames-dir with --saliency, but got no folder of frames")
    benchmark = read_benchmark(
        options.annotations,
        options.format,
        boxes=options.boxes,
        layout=options.layout,
        on_invalid=options.on_invalid,
        clips=options.clips,
        list_name=options.list,
        same_class=options.same_class,
        videos=options.videos,
    )
    chosen = benchmark.with_groups(chosen)
    leak = None if options.train_list is None else find_leak(options.train_list, benchmark.records)
    frames = options.frames_dir if options.saliency else None
    with contextlib.ExitStack() as opened:
        saved = opened.enter_context(SavedMaps(options.maps))
        frame_only = opened.enter_context(frame_only_maps(benchmark, frames=frames, objects=options.object_maps))
        missing = check_clips(saved, benchmark, options.allow_missing)
        against = None
        if options.against is not None:
            others = opened.enter_context(SavedMaps(options.against))
            against = OtherMaps(others, check_clips(others, benchmark, options.allow_missing))
        if not options.no_sheet:
            sheet.check_packages()  # before the scoring, which takes long, but after what needs no import
        from sslosses.evaluate.job import score_and_write  # imports torchmetrics, which takes seconds

        return score_and_write(options, benchmark, chosen, MapsToScore(saved, missing, against, frame_only), leak)


def _protocols(names: str) -> list[Protocol]:
    chosen = [name.strip() for name in names.split(",")]
    if len(set(chosen)) != len(chosen):
        raise CommandError(f"Expected each protocol once in --protocol, but got {names!r}")
    try:
        return [protocols.get(name) for name in chosen]
    except ValueError as error:
        raise CommandError(str(error)) from error


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of the command."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="python -m sslosses.evaluate",
        description="Scores saved heatmaps by one or more evaluation protocols, with chance levels and pictures.",
    )
    helps = {
        "maps": "folder of <clip>.npy or <clip>.npz, or one NPZ keyed by clip id; arrays of shape (h, w) or (M, h, w)",
        "annotations": "annotation file; for flickr the folder of XML files, for vggsound-duet and the extended sets "
        "the list of mixtures or pairs",
        "protocol": f"one or more protocols, separated by commas: {', '.join(protocols.available())} (default: paper)",
        "clips": "score only these clips: a text file with one id per line, or a CSV file with the id first",
        "list": "score only the clips of a public test list, such as vggss-4911; see sslosses.annotations.lists",
        "train_list": "ids that the model was trained on: count the scored clips among them, and score without them",
        "boxes": "for vggsound-duet and the extended sets: boxes of the clips (default: vggss.json beside the list)",
        "same_class": "for the extended sets: keep or drop pairs whose frame and sound are of one class or one clip "
        "(default: report, which keeps them)",
        "layout": "for vggsound-duet: layout of a mixture's frames in its maps (default: stacked)",
        "on_invalid": "boxes without area: keep them as empty, stop with an error, or drop them (default: report)",
        "pictures": "number of best, median and worst clips to draw (default: 4 each)",
        "seed": "seed of the random maps of the chance levels, and of the resamples (default: 0)",
        "against": "other maps of the same clips: print the differences to them with intervals",
        "videos": "CSV file of lines clip,video (default: the video is a part of a clip's id)",
        "resamples": "number of bootstrap resamples for the intervals; 0 leaves them out (default: 1000)",
        "saliency": "also score the saliency of the frames in --frames-dir, a prediction that does not hear the sound",
        "object_maps": "also score these maps of objects, which do not depend on the sound; in the forms of --maps",
        "self_test": "alone: score shipped maps by every protocol and compare with stored metrics; 1 on a difference",
    }
    add = parser.add_argument
    add("--maps", type=Path, required=True, help=helps["maps"])
    add("--annotations", type=Path, required=True, help=helps["annotations"])
    add("--format", choices=FORMATS, required=True, help="format of the annotations")
    add("--protocol", default="paper", metavar="NAMES", help=helps["protocol"])
    add("--out", type=Path, required=True, help="folder for metrics.json, table.md, table.tex and sheet.png")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--clips", type=Path, metavar="FILE", help=helps["clips"])
    chosen.add_argument("--list", metavar="NAME", help=helps["list"])
    add("--train-list", type=Path, metavar="FILE", help=helps["train_list"])
    add("--against", type=Path, metavar="MAPS", help=helps["against"])
    add("--videos", type=Path, metavar="FILE", help=helps["videos"])
    add("--resamples", type=_count, default=1000, metavar="N", help=helps["resamples"])
    add("--boxes", type=Path, help=helps["boxes"])
    add("--layout", choices=LAYOUTS, default="stacked", help=helps["layout"])
    add("--on-invalid", choices=("report", "error", "drop"), default="report", help=helps["on_invalid"])
    add("--same-class", choices=("report", "drop"), default="report", help=helps["same_class"])
    add("--allow-missing", action="store_true", help="score clips without a file as clips without a map")
    add("--breakdown", action="store_true", help="add tables by size and by class of the object")
    add("--no-chance", action="store_true", help="skip the chance levels, which take most of the time")
    add("--saliency", action="store_true", help=helps["saliency"])
    add("--object-maps", type=Path, metavar="MAPS", help=helps["object_maps"])
    add("--no-sheet", action="store_true", help="skip sheet.png")
    add("--frames-dir", type=Path, help="folder of <clip>.jpg or <clip>.png to draw behind the maps")
    add("--pictures", type=_positive, default=4, metavar="N", help=helps["pictures"])
    add("--seed", type=_seed, default=0, help=helps["seed"])
    add(_SELF_TEST, action=_Alone, nargs=0, help=helps["self_test"])
    return parser


class _Alone(argparse.Action):
    """An option that is handled before the parser, and is wrong beside others."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        parser.error(f"expected {self.option_strings[0]} without other arguments")


def _seed(text: str) -> int:
    value = _integer(text)
    if value is None or not -(2**63) <= value < 2**64:
        raise argparse.ArgumentTypeError(f"expected an integer from -2⁶³ to 2⁶⁴ - 1, got {text[:80]!r}")
    return value


def _positive(text: str) -> int:
    value = _integer(text)
    if value is None or value < 1:
        raise argparse.ArgumentTypeError(f"expected an integer from 1 on, got {text[:80]!r}")
    return value


def _count(text: str) -> int:
    value = _integer(text)
    if value is None or not 0 <= value <= _MOST_RESAMPLES:
        raise argparse.ArgumentTypeError(f"expected an integer from 0 to {_MOST_RESAMPLES:,}, got {text[:80]!r}")
    return value


def _integer(text: str) -> int | None:
    return int(text) if re.fullmatch("-?[0-9]{1,20}", text) else None
