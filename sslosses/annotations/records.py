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
        group: name of the group of records that belong together, such as the sounds of one picture; empty: it is a
            group of its own.
    """

    clip: str
    classes: tuple[str, ...]
    boxes: tuple[tuple[Box, ...], ...]
    group: str = field(default="", kw_only=True, repr=False)

    @property
    def clips(self) -> tuple[str, ...]:
        """Ids of the clips that it is made of, that of the first frame first."""
        return (self.clip,)


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

    @property
    def clips(self) -> tuple[str, ...]:
        """Ids of the clips that it is made of, that of the first frame first."""
        return self.frames


@dataclass(frozen=True)
class NegativeRecord(Record):
    """A frame with a sound whose source is not in it: a record without sources, so without classes and boxes.

    Args:
        clip: the ids of frame and sound, joined by "+".
        classes: empty.
        boxes: empty.
        frame: id of the clip of the frame.
        sound: id of the clip of the sound.
    """

    frame: str
    sound: str

    @property
    def clips(self) -> tuple[str, ...]:
        """Ids of the clips that it is made of, that of the first frame first."""
        return tuple(dict.fromkeys((self.frame, self.sound)))


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
        dropped: ids of the clips left out: those without a usable box if read with ``on_invalid="drop"``, and those
            that a format lists without any box, or that the reader was told to leave out.
        unreadable_as_corners: for a format of [x, y, width, height]: number of boxes that are empty or inverted when
            read as [xmin, ymin, xmax, ymax], as some public evaluation code does; 0 for a format of corners.
        negatives: number of entries without a source.
        own_sound: ids of the negatives whose sound is that of their frame.
        same_class: ids of the other negatives whose frame and sound are of one class, so that the sound may well have
            its source in the frame.
    """

    file: Path
    entries: int
    boxes: int
    invalid: tuple[InvalidBox, ...] = ()
    without_box: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    unreadable_as_corners: int = 0
    negatives: int = 0
    own_sound: tuple[str, ...] = ()
    same_class: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line of counts, then one line per invalid box and per clip without a usable box."""
        lines = [
            f"{self.file}: {self.entries} entries, {self.boxes} boxes, {len(self.invalid)} without area in the frame"
        ]
        if self.without_box:
            lines[0] += f", {len(self.without_box)} clips with a source without usable box"
        if self.dropped:
            lines[0] += f", {len(self.dropped)} clips dropped"
        if self.negatives:
            lines[0] += f", {self.negatives} entries without a source"
        if self.same_class:
            lines[0] += f", {len(self.same_class)} of them with frame and sound of one class"
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
