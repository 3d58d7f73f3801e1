"""A benchmark: annotations with the task, the layout of the maps and the ground truth for a protocol."""

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
from sslosses.annotations.text_files import lines_of
from sslosses.evaluate.errors import CommandError, some
from sslosses.metrics import Protocol
from sslosses.metrics.layout import FrameLayout

FORMATS = ("vggss", "music-solo", "music-duet", "flickr", "vggsound-duet")
LAYOUTS = ("stacked", "side-by-side")  # of mixtures; other formats have one frame


@dataclass(frozen=True)
class Benchmark:
    """Annotations with the task and the layout of the maps.

    Args:
        annotations: annotations of all clips.
        records: annotations of the clips to score.
        task: as for :class:`~sslosses.metrics.SoundLocalization`.
        layout: layout of the maps.
        annotators: whether the boxes of a source come from several annotators of the same object.
        listed: number of clips in the list of clips to score; None: no list was given.
    """

    annotations: Annotations
    records: tuple[Record, ...]
    task: str
    layout: FrameLayout
    annotators: bool = False
    listed: int | None = None

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Sorted classes of all annotated clips. A class's id is its index."""
        return tuple(sorted({name for record in self.annotations for name in record.classes}))

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.class_names)}

    def class_ids(self, record: Record) -> list[int]:
        """Class id of each source; empty for a format without classes."""
        return [self._ids[name] for name in record.classes]

    def truth(self, record: Record, protocol: Protocol) -> Tensor:
        """Rasterizes the ground truth of each source as the protocol does, (S, T, T); S = 0 for a negative."""
        add = self.task == "mixtures" and protocol.add_boxes
        function = rasterize_annotators if self.annotators else rasterize_sum if add else rasterize
        if not record.boxes:
            return torch.zeros(0, protocol.size, protocol.size)
        return torch.stack([function(boxes, protocol.size) for boxes in record.boxes])

    def share(self, missing: int) -> str:
        """Returns a sentence on how many of the annotated clips are scored, given the number without a map file."""
        clips, report = len(self.records), self.annotations.report
        text = f"Scored {clips:,} of {report.entries:,} annotated clips ({percent_of(clips, report.entries)})"
        wanted = report.entries if self.listed is None else self.listed
        if self.listed is not None:
            text += f", {clips:,} of the {self.listed:,} listed ones"
        if wanted > clips:
            text += f"; {wanted - clips:,} without a usable box left out"
        if missing:
            text += f"; {missing:,} of them without a map file"
        return text

    def layout_error(self, record: Record, maps: Tensor) -> str | None:
        """Returns an error message if the shape of a clip's maps is wrong, else None.

        Frames of mixtures have to be square: maps (2, 14, 14) of a duet are far more likely one map per frame than two
        maps of two frames of 7 × 14.
        """
        sources = len(record.boxes)
        if self.layout.channels_last(maps.shape, sources):
            return (
                f"expected maps {self.layout.shape(sources)}, but got {tuple(maps.shape)}, which looks like one map "
                "with its channels last. Move the last dimension to the front"
            )
        down, across = self.layout.grid(sources)
        height, width = maps.shape[-2:]
        if self.layout.axis is None or height * across == width * down:
            return None
        shape = self.layout.shape(sources, width="h")
        return f"expected maps of {sources} {self.layout.name} frames, {shape}, but got {tuple(maps.shape)}"


class LazyTruths(Sequence[Tensor]):
    """Ground truth of a benchmark's records, rasterized on access: all of it at once would take much memory.

    Args:
        benchmark: the annotations.
        protocol: the protocol that the ground truth is for.
        tick: called with the number of records of each slice.
    """

    def __init__(self, benchmark: Benchmark, protocol: Protocol, tick: Callable[[int], None]) -> None:
        self._benchmark, self._protocol, self._tick = benchmark, protocol, tick

    def __len__(self) -> int:
        return len(self._benchmark.records)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        records = self._benchmark.records
        if isinstance(index, int):
            return self._benchmark.truth(records[index], self._protocol)
        chosen = [self._benchmark.truth(record, self._protocol) for record in records[index]]
        self._tick(len(chosen))
        return chosen


def read_benchmark(
    path: Path, form: str, *, boxes: Path | None, layout: str, on_invalid: str, clips: Path | None
) -> Benchmark:
    """Reads annotations.

    Args:
        path: the annotation file or folder.
        form: one of :data:`FORMATS`.
        boxes: boxes of the single clips of mixtures; None: ``vggss.json`` beside ``path``.
        layout: layout of the maps of mixtures.
        on_invalid: what to do with boxes without area, see :func:`~sslosses.annotations.read_vggss`.
        clips: file that lists the clips to score; None: all.

    Raises:
        AnnotationError: if the annotations cannot be read.
        CommandError: if the list names unknown clips, no clip is left, or there are no boxes of single clips.
    """
    if form == "vggsound-duet":
        boxes = boxes or path.with_name("vggss.json")
        if not boxes.exists():
            raise CommandError(f"Expected --boxes, the boxes of the single clips, as there is no {boxes}")
        annotations = read_vggsound_mixtures(path, boxes, on_invalid)
    else:
        readers: dict[str, Callable[[Path, str], Annotations]] = {
            "vggss": read_vggss,
            "music-solo": read_music_solo,
            "music-duet": read_music_duet,
            "flickr": read_flickr,
        }
        annotations = readers[form](path, on_invalid)
    records = tuple(annotations)
    listed = None
    if clips is not None:
        listed = _first_column(clips)
        unknown = [clip for clip in listed if clip not in annotations and clip not in annotations.report.dropped]
        if unknown:
            raise CommandError(f"{clips}: expected clips of {path}, but it lacks {some(unknown)}")
        records = tuple(annotations[clip] for clip in listed if clip in annotations)
    if not records:
        raise CommandError(f"Expected annotations of at least one clip to score, but {clips or path} leaves none")
    return Benchmark(
        annotations,
        records,
        task="mixtures" if form.endswith("duet") else "single",
        layout=FrameLayout(layout if form == "vggsound-duet" else "one"),
        annotators=form == "flickr",
        listed=None if listed is None else len(listed),
    )


def _first_column(path: Path) -> list[str]:
    """Distinct ids, one per line: the text before the first comma."""
    return list(dict.fromkeys(line.partition(",")[0].strip() for line in lines_of(path) if line.strip()))


def percent_of(part: int, whole: int) -> str:
    """Returns a share in percent; a part that is not the whole is never shown as 100 %, nor one above 0 as 0 %."""
    share = 100 * part / whole if whole else 100.0
    if part not in (0, whole):
        share = min(max(share, 0.1), 99.9)
    return f"{share:.1f} %" if share not in (0, 100) else f"{share:.0f} %"
