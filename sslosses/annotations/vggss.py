"""VGG-SS: boxes of VGGSound test clips."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from sslosses.annotations._boxes import Collector, has_area
from sslosses.annotations._json import boxes as read_boxes
from sslosses.annotations._json import clip_id, read_entries, text
from sslosses.annotations.records import Annotations, InvalidBox, Record


def read_vggss(path: str | PathLike[str], on_invalid: str = "report") -> Annotations:
    """Reads the boxes of VGG-SS.

    The file is a JSON list of ``{"file": id, "class": name, "bbox": [[xmin, ymin, xmax, ymax], ...]}``, in fractions of
    the frame. The boxes of a clip belong to one source, and their union is its ground truth. The public file holds 18
    invalid boxes (corners of −2.9e16, or no area), and two clips without any other box.

    Args:
        path: the file, usually ``vggss.json``.
        on_invalid: what to do with boxes without area in the frame. ``"report"``: keep them; they rasterize to empty
            masks, as in the published code. ``"error"``: refuse the file. ``"drop"``: leave out the box, and the clip
            if no other box is left. The report names these boxes and clips in any case.

    Returns:
        One record per clip with one source of one or more boxes, and the report.

    Raises:
        FileNotFoundError: if the file does not exist.
        AnnotationError: if the file does not have this format, holds a clip twice, an id that is not a file name, or,
            with ``on_invalid="error"``, an invalid box; the message names the file, the entry and what was expected.
        ValueError: if ``on_invalid`` is not one of the three.

    Reference:
        Chen et al., Localizing Visual Sounds the Hard Way, CVPR 2021.

    Example:
        >>> import json, pathlib, tempfile
        >>> from sslosses.annotations import read_vggss
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "vggss.json"
        >>> boxes = [[0.25, 0.5, 0.75, 1.0], [0.5, 0.5, 0.5, 0.75]]
        >>> _ = path.write_text(json.dumps([{"file": "a_000030", "class": "elk bugling", "bbox": boxes}]))
        >>> annotations = read_vggss(path, on_invalid="drop")
        >>> annotations["a_000030"].boxes
        (((0.25, 0.5, 0.75, 1.0),),)
        >>> print(annotations.report.invalid[0])
        entry 0 (a_000030), bbox[1]: [0.5, 0.5, 0.5, 0.75]
    """
    path = Path(path)
    collector = Collector(path, on_invalid)
    for index, entry in enumerate(read_entries(path, ("file", "class", "bbox"))):
        clip = clip_id(path, index, entry, "file")
        name = text(path, index, entry, "class")
        boxes = read_boxes(path, index, entry, "bbox")
        invalid = [InvalidBox(index, clip, f"bbox[{i}]", box) for i, box in enumerate(boxes) if not has_area(box)]
        collector.add(Record(clip, (name,), (tuple(boxes),)), invalid, where=f"entry {index}")
    return collector.finish()
