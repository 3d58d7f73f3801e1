"""The formats of annotations that the command reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sslosses.annotations import (
    Annotations,
    read_dsol_audioset,
    read_dsol_music,
    read_extended,
    read_flickr,
    read_music_duet,
    read_music_solo,
    read_sslalign,
    read_vggsound_mixtures,
    read_vggss,
)
from sslosses.evaluate.errors import CommandError

_READERS: dict[str, Callable[[Path, str], Annotations]] = {
    "vggss": read_vggss,
    "music-solo": read_music_solo,
    "music-duet": read_music_duet,
    "flickr": read_flickr,
    "dsol-solo": read_dsol_music,
    "dsol-duet": read_dsol_music,
    "dsol-audioset": read_dsol_audioset,
    "sslalign": read_sslalign,
}
_EXTENDED = ("vggss-extended", "flickr-extended")
_LISTS = ("vggsound-duet", *_EXTENDED)  # of clips whose boxes are in another file
FORMATS = (*_READERS, *_LISTS)
#: Formats with frames of several sources.
MIXTURES = ("music-duet", "vggsound-duet", "dsol-duet", "dsol-audioset")
#: How the ids of videos are part of those of clips, see :func:`~sslosses.annotations.video_of`.
DATA_SETS = {
    "vggss": "vggsound",
    "music-solo": "music",
    "music-duet": "music",
    "flickr": "flickr",
    "dsol-solo": "music",
    "dsol-duet": "music",
    "dsol-audioset": "vggsound",
    "sslalign": "flickr",
    "vggsound-duet": "vggsound",
    "vggss-extended": "vggsound",
    "flickr-extended": "flickr",
}
#: Formats whose boxes come from several annotators.
ANNOTATORS = ("flickr", "flickr-extended")


def read_annotations(path: Path, form: str, *, boxes: Path | None, on_invalid: str, same_class: str) -> Annotations:
    """Reads annotations.

    Args:
        path: the annotation file or folder.
        form: one of :data:`FORMATS`.
        boxes: for a list, the boxes of its clips; None: ``vggss.json`` beside ``path``.
        on_invalid: what to do with boxes without area, see :func:`~sslosses.annotations.read_vggss`.
        same_class: what to do with doubtful negatives, see :func:`~sslosses.annotations.read_extended`.

    Raises:
        AnnotationError: if the annotations cannot be read.
        CommandError: if there are no boxes for a list, or an option is of other formats.
    """
    if boxes is not None and form not in _LISTS:
        raise CommandError(f"Expected --boxes with {', '.join(_LISTS)} only, but got --format {form}")
    if same_class != "report" and form not in _EXTENDED:
        raise CommandError(f"Expected --same-class {same_class} with {', '.join(_EXTENDED)} only, but got {form}")
    if form in _READERS:
        return _READERS[form](path, on_invalid)
    if form == "flickr-extended":
        if boxes is None:
            raise CommandError(f"Expected --boxes, the folder of XML files with the boxes of the clips in {path}")
        return read_extended(path, read_flickr(boxes, on_invalid), same_class, listed_only=True)
    boxes = boxes or path.with_name("vggss.json")
    if not boxes.exists():
        raise CommandError(f"Expected --boxes, the boxes of the single clips, as there is no {boxes}")
    if form == "vggss-extended":
        return read_extended(path, read_vggss(boxes, on_invalid), same_class)
    return read_vggsound_mixtures(path, boxes, on_invalid)
