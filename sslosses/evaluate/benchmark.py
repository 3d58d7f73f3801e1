"""A benchmark: annotations with the task, the layout of the maps and the ground truth for a protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import overload

import torch
from torch import Tensor

from sslosses.annotations import (
    Annotations,
    NegativeRecord,
    Record,
    rasterize,
    rasterize_annotators,
    rasterize_sum,
    video_of,
)
from sslosses.evaluate.clip_lists import Identity, identify, listed_ids, named_ids
from sslosses.evaluate.errors import CommandError, some
from sslosses.evaluate.formats import ANNOTATORS, DATA_SETS, FORMATS, MIXTURES, read_annotations
from sslosses.evaluate.video_file import read_videos
from sslosses.metrics import Protocol
from sslosses.metrics.layout import FrameLayout

__all__ = ["FORMATS", "LAYOUTS", "Benchmark", "LazyTruths", "percent_of", "read_benchmark"]

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
        list_name: name of that list, if it is a public one that was asked for by name.
        data_set: how ids of videos are part of those of clips, see :func:`~sslosses.annotations.video_of`.
        videos: the video of each clip; None: by ``data_set``.
    """

    annotations: Annotations
    records: tuple[Record, ...]
    task: str
    layout: FrameLayout
    annotators: bool = False
    listed: int | None = None
    list_name: str | None = None
    data_set: str = "flickr"
    videos: Mapping[str, str] | None = None

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Sorted classes of all annotated clips. A class's id is its index."""
        return tuple(sorted({name for record in self.annotations for name in record.classes}))

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.class_names)}

    @cached_property
    def identity(self) -> Identity:
        """What identifies the clips to score."""
        return identify([record.clip for record in self.records], self.list_name)

    def class_ids(self, record: Record) -> list[int]:
        """Class id of each source; empty for a format without classes."""
        return [self._ids[name] for name in record.classes]

    def video(self, record: Record) -> str:
        """Id of the video that a clip is from; clips of one group, such as the sounds of one picture, are of one.

        A frame with the sound of another clip is of its own video, so that resamples draw it with its own sound.
        """
        if self.videos is not None:
            return self.videos[record.clip]
        clip = record.frame if isinstance(record, NegativeRecord) else record.clip
        return record.group or video_of(clip, self.data_set)

    def with_groups(self, protocols: Sequence[Protocol]) -> list[Protocol]:
        """Returns the protocols, with the metrics IIoU@0.5 and IAUC if the clips have groups."""
        if not any(record.group for record in self.records):
            return list(protocols)
        own = "single_metrics" if self.task == "single" else "mixture_metrics"
        return [p.replace(name=p.name, **{own: (*getattr(p, own), "IIoU@0.5", "IAUC")}) for p in protocols]

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
            which = "doubtful pairs or clips without a usable box" if report.negatives else "without a usable box"
            text += f"; {wanted - clips:,} {which} left out"
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
    path: Path,
    form: str,
    *,
    boxes: Path | None,
    layout: str,
    on_invalid: str,
    clips: Path | None,
    list_name: str | None = None,
    same_class: str = "report",
    videos: Path | None = None,
) -> Benchmark:
    """Reads annotations.

    Args:
        path: the annotation file or folder.
        form: one of :data:`FORMATS`.
        boxes: for a list of clips, their boxes; None: ``vggss.json`` beside ``path``.
        layout: layout of the maps of mixtures.
        on_invalid: what to do with boxes without area, see :func:`~sslosses.annotations.read_vggss`.
        clips: file that lists the clips to score; None: all.
        list_name: name of the public list of the clips to score; None: all.
        same_class: what to do with doubtful negatives, see :func:`~sslosses.annotations.read_extended`.
        videos: file of lines ``clip,video``; None: ids of videos are part of those of clips.

    Raises:
        AnnotationError: if the annotations cannot be read.
        CommandError: if the list names unknown clips, no clip is left, there are no boxes of single clips, or the file
            of videos lacks one.
    """
    annotations = read_annotations(path, form, boxes=boxes, on_invalid=on_invalid, same_class=same_class)
    records = tuple(annotations)
    listed = None
    known = {record.clip for record in records} | set(annotations.report.dropped)
    if list_name is not None:
        listed = list(named_ids(list_name))
    elif clips is not None:
        listed = listed_ids(clips, known)
    if listed is not None:
        unknown = [clip for clip in listed if clip not in known]
        if unknown:
            raise CommandError(f"{clips or list_name}: expected clips of {path}, but it lacks {some(unknown)}")
        records = tuple(annotations[clip] for clip in listed if clip in annotations)
    if not records:
        raise CommandError(
            f"Expected annotations of at least one clip to score, but {clips or list_name or path} leaves none"
        )
    return Benchmark(
        annotations,
        records,
        task="mixtures" if form in MIXTURES else "single",
        layout=FrameLayout(layout if form == "vggsound-duet" else "one"),
        annotators=form in ANNOTATORS,
        listed=None if listed is None else len(listed),
        list_name=list_name,
        data_set=DATA_SETS[form],
        videos=None if videos is None else read_videos(videos, records),
    )


def percent_of(part: int, whole: int) -> str:
    """Returns a share in percent; a part that is not the whole is never shown as 100 %, nor one above 0 as 0 %."""
    share = 100 * part / whole if whole else 100.0
    if part not in (0, whole):
        share = min(max(share, 0.1), 99.9)
    return f"{share:.1f} %" if share not in (0, 100) else f"{share:.0f} %"
