"""The command ``python -m sslosses.evaluate.masks``: scores saved maps against a folder of masks."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sslosses import metrics
from sslosses.annotations import AnnotationError, MaskFolder, read_masks
from sslosses.annotations.text_files import lines_of
from sslosses.evaluate.errors import CommandError, named, some
from sslosses.evaluate.exit_status import exit_status
from sslosses.evaluate.progress import progress
from sslosses.evaluate.results_folder import atomic_write
from sslosses.evaluate.saved_maps import SavedMaps
from sslosses.metrics.functional import resize_bilinear

if TYPE_CHECKING:
    _Metric = metrics.AVSBenchSegmentation | metrics.SemanticSegmentation

_FILES = ("metrics.json", "table.md")


def main(argv: Sequence[str] | None = None) -> int:
    """Scores saved maps against masks and writes the results. ``--help`` lists the arguments.

    Args:
        argv: the arguments; None: those of the process.

    Returns:
        The exit code, as of ``python -m sslosses.evaluate``: 0; 2 after an error, when nothing is written; 130 if
        interrupted; 1 if all is written, but the table cannot be printed.

    Raises:
        SystemExit: from argparse, with code 2 for wrong arguments and 0 after ``--help``.

    Example:
        >>> import pathlib, tempfile
        >>> import numpy as np
        >>> from PIL import Image
        >>> from sslosses.evaluate.masks import main
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> (folder / "masks" / "clip").mkdir(parents=True)
        >>> mask = np.array([[255, 255], [0, 0]], np.uint8)
        >>> Image.fromarray(mask).save(folder / "masks" / "clip" / "clip_1.png")
        >>> np.savez(folder / "maps.npz", clip=np.array([[[0.9, 0.4], [0.3, 0.1]]]))
        >>> main(["--maps", str(folder / "maps.npz"), "--masks", str(folder / "masks"), "--scale", "probabilities",
        ...       "--out", str(folder / "scores")])
        | masks, %            |  maps |
        | ------------------- | ----: |
        | M_J                 |  50.0 |
        | M_F (oracle)        | 100.0 |
        | M_J pooled          |  50.0 |
        | M_F pooled (oracle) | 100.0 |
        | F@0.5 pooled        |  81.2 |
        <BLANKLINE>
        1 frames, 0 frames without object, 1 videos, 1 batches
        <BLANKLINE>
        Scored 1 of 1 clips with masks; 1 videos per batch
        0
    """
    options = build_parser().parse_args(argv)
    return exit_status(lambda: _run(options), options.out)


def _run(options: argparse.Namespace) -> str:
    if (options.classes is None) == (options.scale is None):
        raise CommandError("Expected either --scale, for binary masks, or --classes, for masks of class ids")
    if options.out.exists() and not options.out.is_dir():
        raise CommandError(f"Expected --out to be a folder, but {options.out} is a file")
    if options.videos_per_batch < 1:
        raise CommandError(f"Expected `videos_per_batch` to be at least 1, but got {options.videos_per_batch}")
    try:
        masks = read_masks(
            options.masks,
            num_classes=options.classes,
            ignore_index=options.ignore_index,
            other_values=options.other_values,
            subfolder=options.subfolder,
        )
        metric = _metric(options)  # imports torchmetrics, which takes seconds
    except AnnotationError:
        raise
    except ValueError as error:
        raise CommandError(str(error)) from error
    with SavedMaps(options.maps) as saved:
        clips = _chosen(saved, masks, options.clips)
        with progress(len(clips)) as tick:
            for clip in clips:
                try:
                    _add(metric, saved.load(clip), masks.read(clip).masks, options.resize)
                except AnnotationError:
                    raise
                except ValueError as error:
                    raise CommandError(f"{named(clip)}: {error}") from error
                tick(1)
    values = {name: value.item() for name, value in metric.compute().items()}
    share = f"Scored {len(clips):,} of {len(masks):,} clips with masks"
    if options.classes is None:
        share += f"; {options.videos_per_batch:,} videos per batch"
    table = _table(values, share)
    content = {
        "maps": str(options.maps),
        "masks": str(options.masks),
        "settings": {
            name: getattr(options, name)
            for name in ("scale", "videos_per_batch", "classes", "ignore_index", "without", "other_values", "resize")
        },
        "share": share,
        "clips": clips,
        "metrics": {name: None if value != value else value for name, value in values.items()},
    }
    with atomic_write(options.out, _FILES) as temporary:
        (temporary / "table.md").write_text(table, encoding="utf-8")
        (temporary / "metrics.json").write_text(
            json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
            encoding="utf-8",
            errors="backslashreplace",  # paths that are not UTF-8 become JSON escapes
        )
    return table


def _metric(options: argparse.Namespace) -> _Metric:
    if options.classes is None:
        return metrics.AVSBenchSegmentation(scale=options.scale, videos_per_batch=options.videos_per_batch)
    return metrics.SemanticSegmentation(options.classes, ignore_index=options.ignore_index, without=options.without)


def _chosen(saved: SavedMaps, masks: MaskFolder, listed: Path | None) -> list[str]:
    """The clips to score, in the order of the list if there is one."""
    clips = list(masks.clips)
    if listed is not None:
        clips = [line.partition(",")[0].strip() for line in lines_of(listed) if line.strip()]
        repeated = [clip for clip, times in Counter(clips).items() if times > 1]
        if repeated:
            raise CommandError(f"{listed}: expected each clip once, but it repeats {some(repeated)}")
        unknown = [clip for clip in clips if clip not in masks]
        if unknown or not clips:
            lacks = f"{masks.folder} lacks {some(unknown)}" if unknown else "it is empty"
            raise CommandError(f"{listed}: expected clips with masks, but {lacks}")
    present = set(saved.clips)
    extra = [clip for clip in saved.clips if clip not in masks]
    if extra:
        raise CommandError(
            f"Expected maps of clips with masks only, but {saved.path} holds {len(extra)} of others: {some(extra)}"
        )
    missing = [clip for clip in clips if clip not in present]
    if missing:
        raise CommandError(
            f"Expected maps of all {len(clips)} clips, but {saved.path} has none of {len(missing)}: {some(missing)}. "
            "To score a part, name its clips in a file for --clips"
        )
    return clips


def _add(metric: _Metric, maps: Tensor, masks: Tensor, resize: bool) -> None:
    """Adds the frames of one clip."""
    frames, height, width = masks.shape
    if len(maps) != frames:
        raise ValueError(f"expected {frames} maps, one per mask, but got {len(maps)}")
    if isinstance(metric, metrics.SemanticSegmentation):
        if not torch.equal(maps, maps.round()):
            raise ValueError("expected maps of class ids, which are integers, but got other numbers")
        maps = maps.long()
    elif resize:
        maps = resize_bilinear(maps, (height, width))
    if maps.shape != masks.shape:
        hint = "" if isinstance(metric, metrics.SemanticSegmentation) else ". Pass --resize to resize maps bilinearly"
        raise ValueError(
            f"expected maps of {height} × {width} like the masks, but got {maps.shape[1]} × {maps.shape[2]}{hint}"
        )
    if isinstance(metric, metrics.SemanticSegmentation):
        metric.update(maps, masks)
    else:
        metric.update(maps[None], masks[None])


def _table(values: dict[str, float], share: str) -> str:
    scores = {name: value for name, value in values.items() if isinstance(value, float)}
    width = max(map(len, scores))
    rows = [f"| {'masks, %'.ljust(width)} |  maps |", f"| {'-' * width} | ----: |"]
    for name, value in scores.items():
        shown = "–" if value != value else f"{100 * value:.1f}"
        rows.append(f"| {name.ljust(width)} | {shown:>5} |")
    counts = [f"{value:,} {name.replace('_', ' ')}" for name, value in values.items() if name not in scores]
    return "\n".join([*rows, "", ", ".join(counts), "", share, ""])


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of the command."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="python -m sslosses.evaluate.masks",
        description="Scores saved maps against a folder of PNG masks: AVSBench's M_J and M_F, or metrics of classes.",
    )
    add = parser.add_argument
    helps = {
        "maps": "folder of <clip>.npy or <clip>.npz, or one NPZ keyed by clip id; arrays of shape (frames, h, w), with "
        "--classes of class ids",
        "masks": "folder with a folder of PNG masks per clip, at any depth",
        "videos": "videos per batch of M_J and M_F as published (default: 1, as in the published code)",
        "clips": "score only these clips, in this order: a text file with one id per line, or a CSV file, id first",
        "other": "values of binary masks besides 0 and 1, or 0 and 255: an error, or foreground (default: error)",
        "without": "classes to leave out of all means, separated by commas",
        "subfolder": "name of the folder in each clip's folder that holds its masks, such as labels_semantic",
    }
    add("--maps", type=Path, required=True, help=helps["maps"])
    add("--masks", type=Path, required=True, help=helps["masks"])
    add("--out", type=Path, required=True, help="folder for metrics.json and table.md")
    add("--scale", choices=("logits", "probabilities"), help="binary masks: what maps hold")
    add("--videos-per-batch", type=int, default=1, metavar="N", help=helps["videos"])
    add("--classes", type=int, metavar="N", help="masks of class ids: number of classes, with the background")
    add("--ignore-index", type=int, metavar="ID", help="class id in masks of pixels to leave out, such as 255")
    add("--without", type=_ids, default=(), metavar="IDS", help=helps["without"])
    add("--subfolder", metavar="NAME", help=helps["subfolder"])
    add("--other-values", choices=("error", "foreground"), default="error", help=helps["other"])
    add("--clips", type=Path, metavar="LIST", help=helps["clips"])
    add("--resize", action="store_true", help="resize maps to the masks, bilinearly with half-pixel centers")
    return parser


def _ids(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected class ids, separated by commas, got {text[:80]!r}") from None


if __name__ == "__main__":
    sys.exit(main())
