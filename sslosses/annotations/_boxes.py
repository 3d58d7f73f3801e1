"""Handling of boxes without area in the frame, for all readers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from sslosses._checks import FARTHEST_CORNER, IN_PIXELS, check_option
from sslosses.annotations._text import shown
from sslosses.annotations.records import AnnotationError, Annotations, Box, InvalidBox, Record, Report

ON_INVALID = ("report", "error", "drop")


def has_area(box: Box) -> bool:
    """Whether a box has an area in the frame."""
    xmin, ymin, xmax, ymax = (min(max(v, 0.0), 1.0) for v in box)
    return xmin < xmax and ymin < ymax


@dataclass
class Collector:
    """Collects records and the report about their boxes."""

    file: Path
    on_invalid: str
    entries: int = 0
    boxes: int = 0
    records: list[Record] = field(default_factory=list)
    invalid: list[InvalidBox] = field(default_factory=list)
    without_box: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    _first: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_option("on_invalid", self.on_invalid, ON_INVALID)

    def add(self, record: Record, invalid: list[InvalidBox], *, where: str) -> None:
        """Adds one entry with its ``invalid`` boxes; raises if its boxes are in pixels or the clip was added before."""
        for box in chain.from_iterable(record.boxes):
            if max(box) > FARTHEST_CORNER:
                raise AnnotationError(
                    f"{self.file}: {where}: expected boxes within the frame, as fractions of it, but got the corners "
                    f"{shown(list(box))}, {IN_PIXELS}"
                )
        self._count(record.clip, where)
        self.boxes += sum(len(boxes) for boxes in record.boxes)
        self.invalid += invalid
        usable = tuple(tuple(box for box in boxes if has_area(box)) for boxes in record.boxes)
        if not all(usable):
            self.without_box.append(record.clip)
        self.records.append(record)

    def leave_out(self, clip: str, *, where: str) -> None:
        """Counts an entry that has no record; raises if the clip was added before."""
        self._count(clip, where)
        self.left_out.append(clip)

    def _count(self, clip: str, where: str) -> None:
        if clip in self._first:
            raise AnnotationError(
                f"{self.file}: {where}: expected each clip once, but {clip!r} is {self._first[clip]} too"
            )
        self._first[clip] = where
        self.entries += 1

    def finish(self, unreadable_as_corners: int = 0) -> Annotations:
        """Returns the records with the report; raises if there are invalid boxes and ``on_invalid="error"``."""
        dropping = self.on_invalid == "drop"
        report = Report(
            self.file,
            self.entries,
            self.boxes,
            tuple(self.invalid),
            tuple(self.without_box),
            (*self.left_out, *(self.without_box if dropping else ())),
            unreadable_as_corners,
        )
        if self.on_invalid == "error" and (self.invalid or self.without_box):
            raise AnnotationError(f"Expected every source to have boxes with an area in the frame, but got\n{report}")
        records = self.records
        if dropping:
            left_out = set(self.without_box)
            records = [_without_invalid_boxes(record) for record in records if record.clip not in left_out]
        return Annotations(tuple(records), report)


def _without_invalid_boxes(record: Record) -> Record:
    return replace(record, boxes=tuple(tuple(box for box in boxes if has_area(box)) for boxes in record.boxes))
