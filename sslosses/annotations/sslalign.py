"""The boxes of SSLalignment: IS3, VPO and AVSBench, with several sounds of one picture."""

from __future__ import annotations

import math
from collections import Counter
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any

from sslosses._checks import check_count, check_number
from sslosses.annotations._boxes import Collector, has_area
from sslosses.annotations._json import check_four_numbers, read_entries, text
from sslosses.annotations._text import check_clip, shown
from sslosses.annotations.records import AnnotationError, Annotations, Box, InvalidBox, Record

_MOST_PIXELS = 1 << 16


def read_sslalign(path: str | PathLike[str], on_invalid: str = "report", *, side: int = 224) -> Annotations:
    """Reads boxes in the form of SSLalignment, as of IS3, VPO and AVSBench.

    The file is a JSON list of ``{"image": path, "audio": path, "gt_box": [xmin, ymin, xmax, ymax]}``, in pixels of a
    frame of ``side`` × ``side``. Corners are truncated to whole pixels, and ``xmax`` and ``ymax`` lie beyond the box.
    An entry is a picture with one of its sounds. The paths are those of the authors' disks, so the id of an entry is
    the file name of its picture without the suffix. Where entries share a picture, it is ``<picture>+<sound>``.

    The sounds of one picture are a group: its name is the file name of the picture without its last ``_part``. In IS3,
    ``bird_accordion_4975_bird.jpg`` and ``bird_accordion_4975_accordion.jpg`` are the group ``bird_accordion_4975``.

    Args:
        path: the file.
        on_invalid: as for :func:`read_vggss`. An empty ``gt_box`` is a source without a usable box.
        side: side of the annotated frames in pixels.

    Returns:
        One record per entry with one source, no class and a ``group``, and the report.

    Raises:
        FileNotFoundError: if the file does not exist.
        AnnotationError: if the file does not have this format, holds paths of masks for boxes, or, with
            ``on_invalid="error"``, an invalid box; the message names the file, the entry and what was expected.
        TypeError: if ``side`` is not an integer.
        ValueError: if ``on_invalid`` is not one of the three, or ``side`` is outside [1, 65536].

    Reference:
        Senocak et al., Sound Source Localization is All about Cross-Modal Alignment, ICCV 2023.

    Example:
        >>> import json, pathlib, tempfile
        >>> from sslosses.annotations import read_sslalign
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "IS3.json"
        >>> entry = {"image": "/x/dog_cat_7_dog.jpg", "audio": "/x/dog_cat_7_dog.wav", "gt_box": [56, 0, 112.9, 224]}
        >>> _ = path.write_text(json.dumps([entry]))
        >>> record = read_sslalign(path)["dog_cat_7_dog"]
        >>> record.boxes, record.group
        ((((0.25, 0.0, 0.5, 1.0),),), 'dog_cat_7')
    """
    path = Path(path)
    side = check_count("side", side)
    check_number("side", side, most=_MOST_PIXELS)
    collector = Collector(path, on_invalid)
    entries = read_entries(path, ("image", "audio", "gt_box"))
    names = [_names(path, index, entry) for index, entry in enumerate(entries)]
    entries_of = Counter(picture for picture, _ in names)
    for index, (entry, (picture, sound)) in enumerate(zip(entries, names, strict=True)):
        clip = f"{picture}+{sound}" if entries_of[picture] > 1 else picture
        boxes = _boxes(path, index, entry["gt_box"], side)
        values = tuple(entry["gt_box"])
        invalid = [InvalidBox(index, clip, "gt_box", values) for box in boxes if not has_area(box)]
        group = picture.rpartition("_")[0] or picture
        collector.add(Record(clip, (), (boxes,), group=group), invalid, where=f"entry {index}")
    return collector.finish()


def _names(path: Path, index: int, entry: dict[str, Any]) -> tuple[str, str]:
    """The names of picture and sound."""
    names = []
    for key in ("image", "audio"):
        name = PurePosixPath(text(path, index, entry, key).replace("\\", "/")).stem
        check_clip(f"{path}: entry {index}: expected the file name of {key!r}", name)
        names.append(name)
    return names[0], names[1]


def _boxes(path: Path, index: int, value: Any, side: int) -> tuple[Box, ...]:
    where = f"{path}: entry {index}: expected 'gt_box'"
    if isinstance(value, str):
        raise AnnotationError(f"{where} to be a box, but got the path {shown(value)}: this is a file of masks")
    if value == []:
        return ()
    xmin, ymin, xmax, ymax = (int(corner) for corner in check_four_numbers(where, value))
    return ((_fraction(xmin, side), _fraction(ymin, side), _fraction(xmax, side), _fraction(ymax, side)),)


def _fraction(pixel: int, side: int) -> float:
    """A pixel as a fraction that :func:`rasterize` of the same side truncates to the same pixel."""
    fraction = pixel / side
    return fraction if int(side * fraction) == pixel else math.nextafter(fraction, math.inf)
