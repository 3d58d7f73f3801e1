"""Flickr-SoundNet: boxes of several annotators, one XML file per frame."""

from __future__ import annotations

import math
from os import PathLike
from pathlib import Path
from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from sslosses._checks import check_count, check_number
from sslosses.annotations._boxes import Collector, has_area
from sslosses.annotations._text import check_clip, enumerated, shown
from sslosses.annotations.records import AnnotationError, Annotations, Box, InvalidBox, Record

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_MOST_PIXELS = 1 << 16
_DEEPEST = 100
_MOST_BYTES = 1 << 20  # a real file has about a thousand bytes


def read_flickr(folder: str | PathLike[str], on_invalid: str = "report", *, side: int = 256) -> Annotations:
    """Reads the boxes of the annotated frames of Flickr-SoundNet.

    The folder holds one file ``<id>.xml`` per frame with one ``<bbox>`` per annotator, at any depth. A ``<bbox>`` holds
    ``<xmin>``, ``<ymin>``, ``<xmax>`` and ``<ymax>``, or five children of other names, the last four of which are these
    corners, as the published code reads them. Corners are pixels of a frame of ``side`` × ``side``.

    The boxes of all annotators of a frame are the boxes of its one source. :func:`rasterize_annotators` computes the
    fractional ground truth from them. Document types and entities are refused, as they can make a small file take all
    memory or read other files.

    Args:
        folder: the folder; only files ``*.xml`` that are not hidden are read.
        on_invalid: as for :func:`read_vggss`; a frame without any box counts as one without a usable box.
        side: side of the annotated frames in pixels.

    Returns:
        One record per file, in the order of the ids, with one source and no class, and the report, whose entries are
        the files in that order.

    Raises:
        FileNotFoundError: if the folder does not exist or holds no XML file.
        AnnotationError: if a file does not have this format, declares a document type, or, with
            ``on_invalid="error"``, has no usable box or an invalid one; the message names the file.
        TypeError: if ``side`` is not an integer.
        ValueError: if ``on_invalid`` is not one of the three, or ``side`` is outside [1, 65536].

    Reference:
        Senocak et al., Learning to Localize Sound Source in Visual Scenes, CVPR 2018.

    Example:
        >>> import pathlib, tempfile
        >>> from sslosses.annotations import rasterize_annotators, read_flickr
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> box = "<bbox><xmin>{}</xmin><ymin>0</ymin><xmax>256</xmax><ymax>128</ymax></bbox>"
        >>> _ = (folder / "7.xml").write_text(f"<annotation>{box.format(0)}{box.format(128)}</annotation>")
        >>> boxes = read_flickr(folder)["7"].boxes[0]
        >>> boxes
        ((0.0, 0.0, 1.0, 0.5), (0.5, 0.0, 1.0, 0.5))
        >>> rasterize_annotators(boxes, size=2)
        tensor([[0.5000, 1.0000],
                [0.0000, 0.0000]])
    """
    folder = Path(folder)
    side = check_count("side", side)
    check_number("side", side, most=_MOST_PIXELS)
    collector = Collector(folder, on_invalid)
    if not folder.is_dir():
        raise FileNotFoundError(f"Expected a folder of XML files, but there is no folder {folder}")
    # Hidden files such as ._10.xml are no annotations: macOS writes them beside others.
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() == ".xml" and not p.name.startswith("."))
    if not paths:
        raise FileNotFoundError(f"Expected a folder of XML files, but {folder} holds none")
    for index, path in enumerate(paths):
        check_clip(f"{path}: expected the name", path.stem)
        boxes = [_corners(path, box, side) for box in _parse(path).iter("bbox")]
        invalid = [
            InvalidBox(index, path.stem, f"bbox[{i}]", tuple(v * side for v in box))
            for i, box in enumerate(boxes)
            if not has_area(box)
        ]
        collector.add(Record(path.stem, (), (tuple(boxes),)), invalid, where=path.name)
    return collector.finish()


def _parse(path: Path) -> Element:
    if not path.is_file():
        raise AnnotationError(f"{path}: expected an XML file, but it is not a file")
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise AnnotationError(f"{path}: expected at most {_MOST_BYTES:,} bytes, but got {size:,}")
    builder = TreeBuilder()
    parser = expat.ParserCreate()

    def refuse(*_: object) -> NoReturn:
        raise AnnotationError(f"{path}: expected XML without a document type or entities, but it declares some")

    open_elements: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        open_elements.append(name)
        if len(open_elements) > _DEEPEST:
            raise AnnotationError(f"{path}: expected elements nested at most {_DEEPEST} deep, but got more")
        builder.start(name, attributes)

    def end(name: str) -> None:
        open_elements.pop()
        builder.end(name)

    # Entities can only be declared in a document type. The other handlers guard against a parser that skips the first.
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.ExternalEntityRefHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(path.read_bytes(), True)
    except (expat.ExpatError, LookupError, ValueError) as error:  # expat asks Python for unknown encodings
        if isinstance(error, AnnotationError):
            raise
        raise AnnotationError(f"{path}: expected well-formed XML, but it cannot be read ({error})") from error
    return builder.close()


def _corners(path: Path, box: Element, side: int) -> Box:
    by_name = {child.tag: child.text for child in box}
    if all(name in by_name for name in _CORNERS):
        texts = [by_name[name] for name in _CORNERS]
    elif len(box) == 5:
        texts = [child.text for child in box][1:]
    else:
        raise AnnotationError(
            f"{path}: expected a bbox to hold {', '.join(_CORNERS)}, or five elements that end with these, but "
            f"it holds {enumerated(child.tag for child in box)}"
        )
    try:
        xmin, ymin, xmax, ymax = values = [float(text or "") for text in texts]
    except ValueError:
        values = [math.nan]
    if not all(math.isfinite(v) for v in values):
        raise AnnotationError(f"{path}: expected the corners of a bbox to be finite numbers, but got {shown(texts)}")
    return xmin / side, ymin / side, xmax / side, ymax / side
