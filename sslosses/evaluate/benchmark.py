"""A benchmark: annotations, and what a protocol has to know of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import overload

import torch
from torch import Tensor

from sslosses.annotations import (
    Annotations,
    Record,
    rasterize,
    rasterize_annotators,
    rasterize_sum,
    read_flickr,
    read_music_duet,
    read_music_solo,
    read_vggsound_mixtures,
    read_vggss,
)
from sslosses.evaluate.errors import CommandError, some
from sslosses.metrics import Protocol

FORMATS = ("vggss", "music-solo", "music-duet", "flickr", "vggsound-duet")
LAYOUTS = ("stacked", "side-by-side")


@dataclass(frozen=True)
class Benchmark:
    """Annotations with the task and the place of the sources.

    Args:
        annotations: of all clips.
        records: of the clips to score.
        task: as for :class:`~sslosses.metrics.SoundLocalization`.
        layout: as for :class:`~sslosses.metrics.SoundLocalization`.
        annotators: whether the boxes of a source are several annotators' of the same object.
    """

    annotations: Annotations
    records: tuple[Record, ...]
    task: str
    layout: str
    annotators: bool = False

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """The classes of all annotated clips, sorted; a class's id is its place."""
        return tuple(sorted({name for record in self.annotations for name in record.classes}))

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.class_names)}

    def class_ids(self, record: Record) -> list[int]:
        """The class of each source; none for a format without classes."""
        return [self._ids[name] for name in record.classes]

    def truth(self, record: Record, protocol: Protocol) -> Tensor:
        """One truth a source, (S, T, T), as the protocol rasterizes them."""
        add = self.task == "mixtures" and getattr(protocol, "add_boxes", False)
        function = rasterize_annotators if self.annotators else rasterize_sum if add else rasterize
        return torch.stack([function(boxes, protocol.size) for boxes in record.boxes])

    def layout_error(self, record: Record, maps: Tensor) -> str | None:
        """What is wrong with the shape of a clip's maps, if anything.

        Frames side by side have to be square: (2, 14, 14) for two frames is far more likely a map for each than two
        maps of two frames of 7 × 14.
        """
        sources = len(record.boxes)
        height, width = maps.shape[-2:]
        if self.layout == "one":
            return None
        fits = height == sources * width if self.layout == "stacked" else width == sources * height
        form = f"(M, {sources}·h, h)" if self.layout == "stacked" else f"(M, h, {sources}·h)"
        return None if fits else f"expected maps of {sources} {self.layout} frames, {form}, but got {tuple(maps.shape)}"


class Truths(Sequence[Tensor]):
    """Truths of records, rasterized when they are asked for: those of a whole benchmark take much memory."""

    def __init__(self, benchmark: Benchmark, protocol: Protocol, tick: Callable[[int], None]) -> None:
        """``tick`` is told how many truths were taken."""
        self._benchmark, self._protocol, self._tick = benchmark, protocol, tick

    def __len__(self) -> int:
        """Number of records."""
        return len(self._benchmark.records)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        """The truths of one record, (S, T, T), or of several."""
        records = self._benchmark.records
        if isinstance(index, int):
            return self._benchmark.truth(records[index], self._protocol)
        chosen = [self._benchmark.truth(record, self._protocol) for record in records[index]]
        self._tick(len(chosen))
        return chosen


def read_benchmark(
    path: Path, form: str, *, boxes: Path | None, layout: str, on_invalid: str, clips: Path | None
) -> Benchmark:
    """Read the annotations of one of :data:`FORMATS`, restricted to the clips of a list if there is one."""
    if form == "vggsound-duet":
        annotations = read_vggsound_mixtures(path, boxes or path.with_name("vggss.json"), on_invalid)
    else:
        readers: dict[str, Callable[[Path, str], Annotations]] = {
            "vggss": read_vggss,
            "music-solo": read_music_solo,
            "music-duet": read_music_duet,
            "flickr": read_flickr,
        }
        annotations = readers[form](path, on_invalid)
    records = tuple(annotations)
    if clips is not None:
        listed = _first_column(clips)
        unknown = [clip for clip in listed if clip not in annotations and clip not in annotations.report.dropped]
        if unknown:
            raise CommandError(f"{clips}: expected clips of {path}, but these are not there: {some(unknown)}")
        records = tuple(annotations[clip] for clip in listed if clip in annotations)
    if not records:
        raise CommandError(f"Expected annotations of at least one clip to score, but {clips or path} leaves none")
    return Benchmark(
        annotations,
        records,
        task="mixtures" if form.endswith("duet") else "single",
        layout=layout if form == "vggsound-duet" else "one",
        annotators=form == "flickr",
    )


def _first_column(path: Path) -> list[str]:
    """Distinct ids, one a line, before the first comma if there is one."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise CommandError(f"{path}: expected text in UTF-8, but byte {error.start} is not UTF-8") from error
    return list(dict.fromkeys(line.partition(",")[0].strip() for line in lines if line.strip()))
