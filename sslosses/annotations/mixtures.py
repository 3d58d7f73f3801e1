"""VGGSound-Duet and -Trio: mixtures of the sounds of several clips, each source on its own clip's frame."""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path

from sslosses.annotations._boxes import Collector
from sslosses.annotations._text import check_clip, shown
from sslosses.annotations.records import AnnotationError, Annotations, InvalidBox, MixtureRecord
from sslosses.annotations.text_files import lines_of
from sslosses.annotations.vggss import read_vggss


def read_vggsound_mixtures(
    path: str | PathLike[str], vggss: str | PathLike[str], on_invalid: str = "report"
) -> Annotations:
    """Reads a list of mixtures of VGGSound clips, with boxes from VGG-SS.

    A line of the list is ``id1,class1,id2,class2``, with one more pair per further source. All lines have the same
    length. Source j is on frame j, the frame of clip ``id_j``.

    Args:
        path: the list, usually ``vggsound_duet_test.csv``.
        vggss: the boxes of the single clips, usually ``vggss.json``.
        on_invalid: as for :func:`read_vggss`; ``"drop"`` leaves out a mixture if one of its sources has no usable box.

    Returns:
        One :class:`MixtureRecord` per line, indexed by the clip ids joined with "+", and the report of the list, whose
        entries are the lines and whose boxes are those of the mixtures' sources. Class names are those of ``vggss``.

    Raises:
        FileNotFoundError: if a file does not exist.
        AnnotationError: if a file does not have its format, a mixture is repeated, a clip has no annotation or another
            class in ``vggss``, or, with ``on_invalid="error"``, a box is invalid; the message names the file and the
            line.
        ValueError: if ``on_invalid`` is not one of the three.

    Reference:
        Mo and Tian, Audio-Visual Grouping Network for Sound Localization from Mixtures, CVPR 2023.

    Example:
        >>> import json, pathlib, tempfile
        >>> from sslosses.annotations import read_vggsound_mixtures
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> clips = [("a_000030", "elk bugling", [[0, 0, 0.5, 1]]), ("b_000030", "people coughing", [[0.5, 0, 1, 1]])]
        >>> entries = [{"file": file, "class": name, "bbox": boxes} for file, name, boxes in clips]
        >>> _ = (folder / "vggss.json").write_text(json.dumps(entries))
        >>> _ = (folder / "duet.csv").write_text("a_000030,elk_bugling,b_000030,people_coughing\\n")
        >>> record = read_vggsound_mixtures(folder / "duet.csv", folder / "vggss.json")["a_000030+b_000030"]
        >>> record.frames, record.classes, record.boxes[1]
        (('a_000030', 'b_000030'), ('elk bugling', 'people coughing'), ((0.5, 0.0, 1.0, 1.0),))
    """
    path = Path(path)
    collector = Collector(path, on_invalid)
    single = read_vggss(vggss)
    invalid_boxes: dict[str, list[InvalidBox]] = {}
    for box in single.report.invalid:
        invalid_boxes.setdefault(box.clip, []).append(box)
    length = 0
    for number, line in enumerate(lines_of(path), 1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        parts = [part.strip() for part in line.split(",")]
        length = length or len(parts)
        if not all(parts) or len(parts) % 2 or len(parts) < 4 or len(parts) != length:
            form = ",".join(f"id{j},class{j}" for j in range(1, min(max(length // 2, 2), 3) + 1))
            raise AnnotationError(f"{where}: expected {form!r}, but got {shown(line)}")
        frames, names = parts[::2], parts[1::2]
        for clip, name in zip(frames, names, strict=True):
            check_clip(f"{where}: expected the id", clip)
            if clip not in single:
                raise AnnotationError(f"{where}: expected clips of {single.report.file}, but {clip!r} is not there")
            if _plain(single[clip].classes[0]) != _plain(name):
                raise AnnotationError(
                    f"{where}: expected {clip!r} to be {single[clip].classes[0]!r} as in {single.report.file}, "
                    f"but got {shown(name)}"
                )
        record = MixtureRecord(
            "+".join(frames),
            tuple(single[clip].classes[0] for clip in frames),
            tuple(single[clip].boxes[0] for clip in frames),
            tuple(frames),
        )
        invalid = [
            InvalidBox(collector.entries, record.clip, f"source {j} ({clip}), {box.key}", box.values)
            for j, clip in enumerate(frames)
            for box in invalid_boxes.get(clip, ())
        ]
        collector.add(record, invalid, where=f"line {number}")
    if not collector.entries:
        raise AnnotationError(f"{path}: expected lines of 'id1,class1,id2,class2', but the file is empty")
    return collector.finish()


def _plain(name: str) -> str:
    """Converts a class name to the lists' spelling: "female speech, woman speaking" → female_speech_woman_speaking."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
