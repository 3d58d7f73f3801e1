"""What every annotation reader returns: records by clip id, and a report of the boxes that cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

#: Corners xmin, ymin, xmax, ymax as fractions of the frame, as annotated: not clipped.
Box = tuple[float, float, float, float]


class AnnotationError(ValueError):
    """An annotation file does not hold what its format says. The message names the file, the entry and what was
    expected."""


@dataclass(frozen=True)
class Record:
    """The annotation of one clip.

    Args:
        clip: the clip's id. Never a path: readers refuse ids that could lead out of a folder.
        classes: one class name a source; empty for a format without classes.
        boxes: one tuple of boxes a source, as fractional corners (xmin, ymin, xmax, ymax).
    """

    clip: str
    classes: tuple[str, ...]
    boxes: tuple[tuple[Box, ...], ...]


@dataclass(frozen=True)
class MixtureRecord(Record):
    """The annotation of sounds mixed from several clips, each source on a frame of its own.

    Args:
        clip: the ids of the clips, joined by "+".
        classes: one class name a source.
        boxes: one tuple of boxes a source, as fractions of that source's frame.
        frames: the id of the clip that source j, on frame j, is from.
    """

    frames: tuple[str, ...]


@dataclass(frozen=True)
class InvalidBox:
    """A box that covers nothing of the frame."""

    entry: int  #: index of the entry in the file, from 0
    clip: str
    key: str  #: where in the entry the box is
    values: tuple[float, ...]  #: as the file holds them

    def __str__(self) -> str:
        """One line."""
        return f"entry {self.entry} ({self.clip}), {self.key}: {list(self.values)}"


@dataclass(frozen=True)
class Report:
    """What a reader found in a file.

    Args:
        file: the file read.
        entries: entries in the file.
        boxes: boxes in the file.
        invalid: the boxes with no area inside the frame.
        without_box: ids of the clips of which some source has no usable box.
        dropped: ids of the clips left out for that; empty unless read with ``on_invalid="drop"``.
        unreadable_as_corners: for a format of [x, y, width, height]: boxes that come out empty or inverted when taken
            for [xmin, ymin, xmax, ymax], as some public evaluation codes do; 0 for a format of corners.
    """

    file: Path
    entries: int
    boxes: int
    invalid: tuple[InvalidBox, ...] = ()
    without_box: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    unreadable_as_corners: int = 0

    def __str__(self) -> str:
        """A line of counts, one for every invalid box, and one for every clip without a usable box."""
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
    """Records in the order of the file, found by clip id, with the reader's report.

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
        """Index the records."""
        object.__setattr__(self, "_by_clip", {record.clip: record for record in self.records})

    def __len__(self) -> int:
        """Number of records."""
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        """Records in the order of the file."""
        return iter(self.records)

    def __contains__(self, clip: object) -> bool:
        """Whether there is a record of that clip id."""
        return clip in self._by_clip

    def __getitem__(self, clip: str) -> Record:
        """Return the record of that clip id.

        Raises:
            KeyError: naming the file, if there is none.
        """
        try:
            return self._by_clip[clip]
        except KeyError:
            raise KeyError(f"No clip {clip!r} among the {len(self)} of {self.report.file}") from None
