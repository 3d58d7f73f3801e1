"""The extended test sets of SLAVC: an ordinary test set, and frames with a sound whose source is not in them."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from pathlib import Path

from sslosses._checks import check_option
from sslosses.annotations._boxes import Collector
from sslosses.annotations._text import check_clip, shown
from sslosses.annotations.records import AnnotationError, Annotations, NegativeRecord
from sslosses.annotations.text_files import lines_of

ON_SAME_CLASS = ("report", "drop")
_HEADER = "video,audio,label"
_LABEL = "non-sounding"


def read_extended(
    path: str | PathLike[str], positives: Annotations, on_same_class: str = "report", *, listed_only: bool = False
) -> Annotations:
    """Reads an extended test set: the records of an ordinary one, and pairs of a frame and a sound without a source.

    The file has the header ``video,audio,label`` and lines ``frame id,sound id,non-sounding``. It does not name the
    ordinary records. Many pairs are no negatives: in Extended VGG-SS, frame and sound of 1,185 of the 5,158 pairs are
    of one class, and 379 more are a clip with its own sound, which ``vggss.json`` does not annotate. The report counts
    both. Classes are those of ``positives``, so the report of Extended Flickr counts none.

    Args:
        path: the file, such as ``vggss_test_plus_silent.csv``.
        positives: the ordinary records, as read by :func:`read_vggss` or :func:`read_flickr`.
        on_same_class: ``"report"``: keep all pairs, as in the published code. ``"drop"``: leave out the pairs whose
            frame and sound are of one class, and clips with their own sound.
        listed_only: take only the ordinary records whose frame is in the file, as in Extended Flickr. The folder of
            Flickr-SoundNet's annotations holds more frames than its test set.

    Returns:
        The ordinary records, then one :class:`NegativeRecord` per pair with the id ``<frame>+<sound>``, without classes
        and boxes, and the report of both.

    Raises:
        FileNotFoundError: if the file does not exist.
        AnnotationError: if the file does not have this format, or a pair is repeated; the message names the file and
            the line.
        ValueError: if ``on_same_class`` is not one of the two.

    Reference:
        Mo and Morgado, A Closer Look at Weakly-Supervised Audio-Visual Source Localization, NeurIPS 2022.

    Example:
        >>> import json, pathlib, tempfile
        >>> from sslosses.annotations import read_extended, read_vggss
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> entries = [{"file": clip, "class": "elk bugling", "bbox": [[0, 0, 0.5, 1]]} for clip in ("a", "b")]
        >>> _ = (folder / "vggss.json").write_text(json.dumps(entries))
        >>> _ = (folder / "extended.csv").write_text("video,audio,label\\na,c,non-sounding\\na,b,non-sounding\\n")
        >>> extended = read_extended(folder / "extended.csv", read_vggss(folder / "vggss.json"))
        >>> [record.clip for record in extended], extended["a+c"].boxes
        (['a', 'b', 'a+c', 'a+b'], ())
        >>> extended.report.negatives, extended.report.same_class
        (2, ('a+b',))
    """
    path = Path(path)
    check_option("on_same_class", on_same_class, ON_SAME_CLASS)
    pairs = _pairs(path)
    ordinary = positives.records
    if listed_only:
        frames = {frame for frame, _ in pairs}
        ordinary = tuple(record for record in ordinary if record.clip in frames)
    collector = Collector(path, "report")
    for record in ordinary:
        collector.add(record, [], where=f"of {positives.report.file}")
    own_sound: list[str] = []
    same_class: list[str] = []
    for number, (frame, sound) in enumerate(pairs, 2):
        negative = NegativeRecord(f"{frame}+{sound}", (), (), frame, sound)
        doubtful = frame == sound or _share_class(positives, frame, sound)
        if doubtful:
            (own_sound if frame == sound else same_class).append(negative.clip)
        if doubtful and on_same_class == "drop":
            collector.leave_out(negative.clip, where=f"line {number}")
        else:
            collector.add(negative, [], where=f"line {number}")
    found = collector.finish()
    chosen = {record.clip for record in ordinary}
    invalid = tuple(box for box in positives.report.invalid if box.clip in chosen)
    report = replace(
        found.report,
        invalid=invalid,
        dropped=(*found.report.dropped, *positives.report.dropped),
        negatives=len(pairs),
        own_sound=tuple(own_sound),
        same_class=tuple(same_class),
    )
    return Annotations(found.records, report)


def _pairs(path: Path) -> list[tuple[str, str]]:
    """Frame and sound of each line after the header."""
    header, *lines = lines_of(path) or [""]
    if header.strip() != _HEADER:
        raise AnnotationError(f"{path}: line 1: expected the header {_HEADER!r}, but got {shown(header)}")
    pairs = []
    for number, line in enumerate(lines, 2):
        columns = [column.strip() for column in line.split(",")]
        if len(columns) != 3 or columns[2] != _LABEL:
            raise AnnotationError(f"{path}: line {number}: expected 'frame,sound,{_LABEL}', but got {shown(line)}")
        for clip in columns[:2]:
            check_clip(f"{path}: line {number}: expected the id", clip)
        pairs.append((columns[0], columns[1]))
    if not pairs:
        raise AnnotationError(f"{path}: expected lines of 'frame,sound,{_LABEL}', but there is none")
    return pairs


def _share_class(annotations: Annotations, frame: str, sound: str) -> bool:
    if frame not in annotations or sound not in annotations:
        return False
    return bool(set(annotations[frame].classes) & set(annotations[sound].classes))
