"""The boxes of DSOL: frames of MUSIC's solos and duets, and of AudioSet's instruments."""

from __future__ import annotations

import re
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

from sslosses.annotations._boxes import Collector, has_area
from sslosses.annotations._json import check_four_numbers, check_keys, read_object
from sslosses.annotations._text import check_clip, shown
from sslosses.annotations.records import AnnotationError, Annotations, Box, InvalidBox, Record

#: Classes of MUSIC's frames. The file has numbers only; these are the classes of the same boxes in AVGN's files.
MUSIC_CLASSES = {
    1: "cello",
    3: "acoustic_guitar",
    8: "saxophone",
    10: "trumpet",
    11: "violin",
    12: "flute",
    13: "accordion",
}
_MUSIC_FRAME = re.compile(r"([^/]+)_0_1000/frame_(\d+)/(\d+)\.jpg")
_AUDIOSET_FRAME = re.compile(r"([^/]+)/(\d+)")


def read_dsol_music(path: str | PathLike[str], on_invalid: str = "report") -> Annotations:
    """Reads DSOL's boxes of MUSIC: ``solotest.json`` (12,356 frames of 27 videos) or ``duettest.json`` (10,284 of 16).

    ``music_solo.json`` and ``music_duet.json`` are 2,124 and 1,020 of these frames, with the same ids and boxes.

    The file is a JSON object of ``"<video>_0_1000/frame_<second>/<frame>.jpg": {"bbox": [{"normbox": [x, y, width,
    height], "category_id": number}, ...]}``, in fractions of the frame. The boxes of one category are one source. A
    detector of 15 classes made the boxes, and frames that show other instruments have none: these frames (1,116 and
    1,228) are left out, as in DSOL's evaluation. A frame of a duet has one source or two.

    Args:
        path: the file.
        on_invalid: as for :func:`read_vggss`.

    Returns:
        One record per frame with a box, with the id ``<video>_<second>_<frame>``, and the report, whose ``dropped`` are
        the frames without one.

    Raises:
        FileNotFoundError: if the file does not exist.
        AnnotationError: if the file does not have this format, or, with ``on_invalid="error"``, holds an invalid box;
            the message names the file, the frame and what was expected.
        ValueError: if ``on_invalid`` is not one of the three.

    Reference:
        Hu et al., Discriminative Sounding Objects Localization via Self-supervised Audiovisual Matching, NeurIPS 2020.

    Example:
        >>> import json, pathlib, tempfile
        >>> from sslosses.annotations import read_dsol_music
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "solotest.json"
        >>> box = {"normbox": [0.25, 0.5, 0.5, 0.25], "category_id": 1}
        >>> frames = {"a_0_1000/frame_013/00411.jpg": {"bbox": [box]}, "a_0_1000/frame_013/00418.jpg": {"bbox": []}}
        >>> _ = path.write_text(json.dumps(frames))
        >>> annotations = read_dsol_music(path)
        >>> annotations["a_013_00411"]
        Record(clip='a_013_00411', classes=('cello',), boxes=(((0.25, 0.5, 0.75, 0.75),),))
        >>> annotations.report.dropped
        ('a_013_00418',)
    """
    form = "<video>_0_1000/frame_<second>/<frame>.jpg"
    return _read(Path(path), on_invalid, _MUSIC_FRAME, form, "category_id", lambda n: MUSIC_CLASSES.get(n))


def read_dsol_audioset(path: str | PathLike[str], on_invalid: str = "report") -> Annotations:
    """Reads DSOL's boxes of AudioSet's instruments, ``audioset_box.json``: 4,473 frames with a box.

    The file is a JSON object of ``"<video>/<second>": {"bbox": [{"normbox": [x, y, width, height], "category":
    number}, ...]}``, in fractions of the frame. The boxes of one category are one source. No published file says which
    instruments the numbers mean, so the classes are named ``category 2``. 30 frames without a box are left out.

    Args:
        path: the file.
        on_invalid: as for :func:`read_vggss`.

    Returns:
        One record per frame with a box, with the id ``<video>_<second>``, and the report.

    Raises:
        FileNotFoundError: if the file does not exist.
        AnnotationError: as for :func:`read_dsol_music`.
        ValueError: if ``on_invalid`` is not one of the three.

    Reference:
        Hu et al., Discriminative Sounding Objects Localization via Self-supervised Audiovisual Matching, NeurIPS 2020.
    """
    return _read(Path(path), on_invalid, _AUDIOSET_FRAME, "<video>/<second>", "category", lambda _: None)


def _read(
    path: Path,
    on_invalid: str,
    pattern: re.Pattern[str],
    form: str,
    category_key: str,
    name: Callable[[int], str | None],
) -> Annotations:
    collector = Collector(path, on_invalid)
    as_corners = 0
    for index, (frame, content) in enumerate(read_object(path).items()):
        where = f"frame {frame[:100]!r}"
        match = pattern.fullmatch(frame)
        if not match:
            raise AnnotationError(f"{path}: expected a frame {form!r}, but got {shown(frame)}")
        clip = "_".join(match.groups())
        check_clip(f"{path}: {where}: expected the video", clip)
        sources: dict[str, list[Box]] = {}
        invalid = []
        for key, entry in _entries(f"{path}: {where}", content, category_key):
            values = check_four_numbers(f"{path}: {where}: expected 'normbox' of {key}", entry["normbox"])
            x, y, width, height = values
            box = (x, y, x + width, y + height)
            as_corners += width <= x or height <= y
            number = _category(f"{path}: {where}: expected {category_key!r} of {key}", entry[category_key])
            sources.setdefault(name(number) or f"category {number}", []).append(box)
            if not has_area(box):
                invalid.append(InvalidBox(index, clip, key, values))
        if sources:
            record = Record(clip, tuple(sources), tuple(tuple(boxes) for boxes in sources.values()))
            collector.add(record, invalid, where=where)
        else:
            collector.leave_out(clip, where=where)
    return collector.finish(as_corners)


def _entries(where: str, content: Any, category_key: str) -> list[tuple[str, dict[str, Any]]]:
    """The boxes of a frame with their names for messages."""
    if not isinstance(content, dict) or not isinstance(content.get("bbox"), list):
        raise AnnotationError(f"{where}: expected an object with a list 'bbox', but got {shown(content)}")
    named = [(f"bbox[{i}]", entry) for i, entry in enumerate(content["bbox"])]
    for key, entry in named:
        if not isinstance(entry, dict):
            raise AnnotationError(f"{where}: expected {key} to be an object, but got {shown(entry)}")
        check_keys(f"{where}: {key}", entry, ("normbox", category_key))
    return named


def _category(where: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1000:
        raise AnnotationError(f"{where} to be a number of a category, but got {shown(value)}")
    return value
