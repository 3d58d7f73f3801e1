"""Results of the annotation readers: records by clip id, and a report of unusable boxes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

#: Corners xmin, ymin, xmax, ymax as fractions of the frame, as annotated: not clipped.
Box = tuple[float, float, float, float]


class AnnotationError(ValueError):
    """An annotation file violates its format. The message names the file, the entry and what was expected."""


@dataclass(frozen=True)
class Record:
    """The annotation of one clip.

    Args:
        clip: id of the clip. It is never a path: readers refuse ids that could point outside a folder.
        classes: one class name per source; empty for a format without classes.
        boxes: one tuple of boxes per source, as fractional corners (xmin, ymin, xmax, ymax).
    """

    clip: str
    classes: tuple[str, ...]
    boxes: tuple[tuple[Box, ...], ...]


@dataclass(frozen=True)
class MixtureRecord(Record):
    """The annotation of a mixture of several clips, each source on its own frame.

    Args:
        clip: the ids of the clips, joined by "+".
        classes: one class name per source.
        boxes: one tuple of boxes per source, as fractions of that source's frame.
        frames: one clip id per source: frame j is from that clip.
    """

    frames: tuple[str, ...]


@dataclass(frozen=True)
class InvalidBox:
    """A box without area in the frame."""

    entry: int  #: index of the entry in the file, from 0
    clip: str
    key: str  #: position of the box in the entry
    values: tuple[float, ...]  #: values in the file

    def __str__(self) -> str:
        return f"entry {self.entry} ({self.clip}), {self.key}: {list(self.values)}"


@dataclass(frozen=True)
class Report:
    """A reader's report about a file.

    Args:
        file: the file.
        entries: number of entries in the file.
        boxes: number of boxes in the file.
        invalid: boxes without area in the frame.
        without_box: ids of clips with a source that has no usable box.
        dropped: ids of the clips left out for that reason; empty unless read with ``on_invalid="drop"``.
        unreadable_as_corners: for a format of [x, y, width, height]: number of boxes that are empty or inverted when
            read as [xmin, ymin, xmax, ymax], as some public evaluation code does; 0 for a format of corners.
    """

    file: Path
    entries: int
    boxes: int
    invalid: tuple[InvalidBox, ...] = ()
    without_box: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    unreadable_as_corners: int = 0

    def __str__(self) -> str:
        """One line of counts, then one line per invalid box and per clip without a usable box."""
        lines = [
            f"{self.file}: {self.entries} entries, {self.boxes} boxes, {len(self.invalid)} without area in the frame"
        ]
        if self.without_box:
            lines[0] += f", {len(self.without_box)} clips with a source without usable box"
        if self.dropped:
            lines[0] += f", {len(self.dropped)} clips dropped"
        lines += [f"  {box}" for box in self.invalid]
        return "\n".join([*lines, *(f"  no usable box: {clip}" for clip in self.without_box)])


@dataclass(frozen=True)
class Annotations:
    """Records in the order of the file, indexed by clip id, with the reader's report.

    An unknown clip id raises a KeyError that names the file.

    Example:
        >>> from pathlib import Path
        >>> from sslosses.annotations import Annotations, Record, Report
        >>> record = Record("clip_0", ("cello",), (((0.1, 0.2, 0.5, 0.9),),))
        >>> annotations = Annotations((record,), Report(Path("music_solo.json"), entries=1, boxes=1))
        >>> len(annotations), "clip_0" in annotations, annotations["clip_0"].classes
        (1, True, ('cello',))
    """

    records: tuple[Record, ...]
    report: Report
    _by_clip: dict[str, Record] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_clip", {record.clip: record for record in self.records})

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __contains__(self, clip: object) -> bool:
        return clip in self._by_clip

    def __getitem__(self, clip: str) -> Record:
        try:
            return self._by_clip[clip]
        except KeyError:
            raise KeyError(f"No clip {clip!r} among the {len(self)} of {self.report.file}") from None
