"""MUSIC: boxes of solo and duet frames, and the split lists."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from sslosses.annotations._boxes import Collector, has_area
from sslosses.annotations._json import clip_id, four_numbers, read_entries, text
from sslosses.annotations._text import check_clip, check_name, shown
from sslosses.annotations.records import AnnotationError, Annotations, InvalidBox, Record
from sslosses.annotations.text_files import lines_of

_SOLO_KEYS = (("class", "bbox"),)
_DUET_KEYS = (("class_src1", "bbox_src1"), ("class_src2", "bbox_src2"))


def read_music_solo(path: str | PathLike[str], on_invalid: str = "report") -> Annotations:
    """Reads the boxes of MUSIC-Solo frames.

    The file is a JSON list of ``{"file": id, "class": name, "bbox": [x, y, width, height]}``, in fractions of the
    frame. (Some public evaluation code reads the box as corners, see ``report.unreadable_as_corners``.)

    Args:
        path: the file, usually ``music_solo.json``.
        on_invalid: what to do with boxes without area in the frame. ``"report"``: keep them; they rasterize to empty
            masks, as in the published code. ``"error"``: refuse the file. ``"drop"``: leave out their clips. The report
            names these boxes in any case.

    Returns:
        One record per frame with one source and one box, and the report.

    Raises:
        FileNotFoundError: if the file does not exist.
        AnnotationError: if the file does not have this format, holds a clip twice, or, with ``on_invalid="error"``, an
            invalid box; the message names the file, the entry and what was expected.
        ValueError: if ``on_invalid`` is not one of the three.

    Example:
        >>> import json, pathlib, tempfile
        >>> from sslosses.annotations import read_music_solo
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "music_solo.json"
        >>> _ = path.write_text(json.dumps([{"file": "a_000", "class": "cello", "bbox": [0.25, 0.5, 0.5, 0.25]}]))
        >>> read_music_solo(path)["a_000"]
        Record(clip='a_000', classes=('cello',), boxes=(((0.25, 0.5, 0.75, 0.75),),))
    """
    return _read_boxes(Path(path), _SOLO_KEYS, on_invalid)


def read_music_duet(path: str | PathLike[str], on_invalid: str = "report") -> Annotations:
    """Reads the boxes of MUSIC-Duet frames.

    The file is a JSON list of ``{"file": id, "class_src1": name, "bbox_src1": [x, y, width, height], "class_src2":
    name, "bbox_src2": [x, y, width, height]}``, in fractions of the frame.

    Args:
        path: the file, usually ``music_duet.json``.
        on_invalid: as for :func:`read_music_solo`; ``"drop"`` leaves out the clip if either box is invalid.

    Returns:
        One record per frame with two sources of one box each, and the report.

    Raises:
        FileNotFoundError: if the file does not exist.
        AnnotationError: as for :func:`read_music_solo`.
        ValueError: if ``on_invalid`` is not one of the three.
    """
    return _read_boxes(Path(path), _DUET_KEYS, on_invalid)


def _read_boxes(path: Path, sources: tuple[tuple[str, str], ...], on_invalid: str) -> Annotations:
    collector = Collector(path, on_invalid)
    as_corners = 0
    for index, entry in enumerate(read_entries(path, ("file", *(key for pair in sources for key in pair)))):
        clip = clip_id(path, index, entry, "file")
        classes, boxes, invalid = [], [], []
        for class_key, box_key in sources:
            classes.append(text(path, index, entry, class_key))
            x, y, width, height = values = four_numbers(path, index, entry, box_key)
            box = (x, y, x + width, y + height)
            boxes.append((box,))
            as_corners += width <= x or height <= y
            if not has_area(box):
                invalid.append(InvalidBox(index, clip, box_key, values))
        collector.add(Record(clip, tuple(classes), tuple(boxes)), invalid, where=f"entry {index}")
    return collector.finish(as_corners)


@dataclass(frozen=True)
class SplitEntry:
    """One line of a split list: a clip id and its classes. ``music_duet_test.csv`` gives no classes."""

    clip: str
    classes: tuple[str, ...]


def read_music_split(path: str | PathLike[str]) -> tuple[SplitEntry, ...]:
    """Reads a MUSIC split list.

    All lines of a file have the same form: ``id``, ``id,class`` or ``id,class1,class2``. ``music_solo_train.txt`` and
    ``music_solo_test.csv`` give one class per line, ``music_duet_train.txt`` two, ``music_duet_test.csv`` none. Empty
    lines are skipped.

    Args:
        path: the file.

    Returns:
        Entries in the order of the file.

    Raises:
        FileNotFoundError: if the file does not exist.
        AnnotationError: if a line does not have the form of the first one, repeats a clip, has an id that is not a
            file name, or if the file is empty; the message names the file and the line.

    Example:
        >>> import pathlib, tempfile
        >>> from sslosses.annotations import read_music_split
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "music_duet_train.txt"
        >>> _ = path.write_text("a_000,cello,flute\\nb_000,flute,trumpet\\n")
        >>> read_music_split(path)[0]
        SplitEntry(clip='a_000', classes=('cello', 'flute'))
    """
    path = Path(path)
    entries: list[SplitEntry] = []
    first: dict[str, int] = {}
    for number, line in enumerate(lines_of(path), 1):
        if not line.strip():
            continue
        clip, *classes = (part.strip() for part in line.split(","))
        wanted = len(entries[0].classes) if entries else min(len(classes), 2)
        if not clip or not all(classes) or len(classes) != wanted:
            form = ",".join(["id", "class1", "class2"][: wanted + 1])
            raise AnnotationError(f"{path}: line {number}: expected {form!r}, but got {shown(line)}")
        check_clip(f"{path}: line {number}: expected the id", clip)
        for name in classes:
            check_name(f"{path}: line {number}: expected a class", name)
        if first.setdefault(clip, number) != number:
            raise AnnotationError(
                f"{path}: line {number}: expected each clip once, but {clip!r} is in line {first[clip]} too"
            )
        entries.append(SplitEntry(clip, tuple(classes)))
    if not entries:
        raise AnnotationError(
            f"{path}: expected lines of 'id', 'id,class' or 'id,class1,class2', but the file is empty"
        )
    return tuple(entries)
