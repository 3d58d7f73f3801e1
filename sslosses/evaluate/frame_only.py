"""Predictions that look at the frame and do not hear the sound: the saliency of the frame, and maps of objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from sslosses.annotations import MixtureRecord, Record
from sslosses.evaluate.benchmark import Benchmark
from sslosses.evaluate.errors import CommandError, some
from sslosses.evaluate.pictures import SUFFIXES, read_frame
from sslosses.evaluate.saved_maps import SavedMaps
from sslosses.metrics import center_surround_saliency

SALIENCY, OBJECT_MAPS = "saliency (frame only)", "object maps (frame only)"
_SIZE = 224
#: Gives the maps of a clip, (M, h, w). One map is used for every source.
FrameMaps = Callable[[Record], Tensor]


@contextmanager
def frame_only_maps(
    benchmark: Benchmark, *, frames: Path | None, objects: Path | None
) -> Iterator[dict[str, FrameMaps]]:
    """Gives the maps of each prediction by its name, and closes their files.

    Args:
        benchmark: the annotations of the clips.
        frames: folder of frames whose saliency is computed; None: it is not.
        objects: folder or NPZ file of object maps; None: there are none.

    Raises:
        CommandError: if a clip has no frame or no object map.
    """
    maps: dict[str, FrameMaps] = {}
    if frames is not None:
        _check_frames(benchmark, frames)
        maps[SALIENCY] = lambda record: _saliency(benchmark, frames, record)
    if objects is None:
        yield maps
        return
    with SavedMaps(objects) as saved:
        present = set(saved.clips)
        _check_complete("an object map", objects, [r.clip for r in benchmark.records if r.clip not in present])
        yield maps | {OBJECT_MAPS: lambda record: _objects(benchmark, saved, record)}


def _check_frames(benchmark: Benchmark, folder: Path) -> None:
    present = {path.stem for path in folder.iterdir() if path.suffix in SUFFIXES}
    ids = dict.fromkeys(clip for record in benchmark.records for clip in _frames_of(record))
    _check_complete("a frame (.jpg or .png)", folder, [clip for clip in ids if clip not in present])


def _check_complete(what: str, path: Path, missing: Sequence[str]) -> None:
    if missing:
        raise CommandError(f"Expected {what} of every clip, but {path} has none of {len(missing)}: {some(missing)}")


def _frames_of(record: Record) -> tuple[str, ...]:
    """The clips whose frames the maps of a record cover. A pair without a source has the frame of its first clip."""
    return record.clips if isinstance(record, MixtureRecord) else record.clips[:1]


def _saliency(benchmark: Benchmark, folder: Path, record: Record) -> Tensor:
    pictures = []
    for clip in _frames_of(record):
        picture = read_frame(folder, clip, _SIZE, "RGB", "The saliency of frames (leave it out without --saliency)")
        if picture is None:
            raise CommandError(f"{clip}: expected a frame in {folder} that can be read")
        pictures.append(torch.tensor(picture).permute(2, 0, 1) / 255)
    saliency = center_surround_saliency(torch.stack(pictures))
    axis = benchmark.layout.axis
    return saliency if axis is None else torch.cat(list(saliency), axis)[None]


def _objects(benchmark: Benchmark, saved: SavedMaps, record: Record) -> Tensor:
    maps = saved.load(record.clip)
    wrong = benchmark.layout_error(record, maps)
    if wrong or not len(maps):
        raise CommandError(f"{record.clip}: {wrong or 'expected at least one object map, but got none'}")
    return maps
