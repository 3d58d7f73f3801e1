"""Annotation files: VGG-SS, MUSIC, Flickr-SoundNet, lists of mixtures, split lists, PNG masks, boxes as masks."""

from __future__ import annotations

import base64
import copy
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from inputs.cases import Case, FileRow, Format, InputClass, Row, changed_bytes, file_cases, input_classes
from sslosses.annotations import (
    lists,
    rasterize,
    rasterize_annotators,
    rasterize_sum,
    read_dsol_audioset,
    read_dsol_music,
    read_extended,
    read_flickr,
    read_masks,
    read_music_duet,
    read_music_solo,
    read_music_split,
    read_sslalign,
    read_vggsound_mixtures,
    read_vggss,
)

NAN = float("nan")
VGGSS = [
    {"file": "a_000030", "class": "elk bugling", "bbox": [[0.25, 0.5, 0.75, 1], [0, 0, 0.5, 0.5]]},
    {"file": "b_000030", "class": "female speech, woman speaking", "bbox": [[0.0, 0.125, 1, 1]]},
]
SOLO = [{"file": "a_000_00000", "class": "cello", "bbox": [0.25, 0.5, 0.5, 0.25]}]
DUET = [
    {"file": "b", "class_src1": "cello", "bbox_src1": [0, 0, 1, 1], "class_src2": "flute", "bbox_src2": [0, 0, 1, 1]}
]
LIST = "a_000030,elk_bugling,b_000030,female_speech_woman_speaking\n"
PAIRS = b"video,audio,label\na_000030,c_000030,non-sounding\n"
DSOL_BOX = {"normbox": [0.25, 0.5, 0.5, 0.25]}
DSOL = {"a_0_1000/frame_013/00411.jpg": {"bbox": [DSOL_BOX | {"category_id": 1}]}}
DSOL_AUDIOSET = {"a/3": {"bbox": [DSOL_BOX | {"category": 2}]}}
SSLALIGN = [{"image": "/x/dog_cat_7_dog.jpg", "audio": "/x/dog_cat_7_dog.wav", "gt_box": [0, 0, 112, 224]}]
XML = "<annotation><bbox><xmin>0</xmin><ymin>0</ymin><xmax>256</xmax><ymax>128</ymax></bbox></annotation>"
#: A gray mask of 2 × 2.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAAAAABX3VL4AAAADklEQVR42mNg+M/wnwEABgAB/5KZsuwAAAAASUVORK5CYII="
)
#: Names that would lead out of a folder, or that a file can't have.
BAD_IDS = (
    *("../a", "..", ".", "/etc/passwd", "a/b", "a\\b", "C:a", "a\x00b", "a\nb", "a\x1b[2J"),
    *("a" * 300, "\ud800", ""),
)
OUTSIDE = "ids that lead out of a folder or name no file"


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


#: Those that may stand in one line.
BAD_IDS_IN_LINES = [encoded(name) for name in BAD_IDS if name not in ("", "a\nb")]


def _mixtures(path: Path) -> Any:
    boxes = path.with_name("vggss.json")
    boxes.write_text(json.dumps(VGGSS))
    return read_vggsound_mixtures(path, boxes)


def _extended(path: Path) -> Any:
    boxes = path.with_name("vggss.json")
    boxes.write_text(json.dumps(VGGSS))
    return read_extended(path, read_vggss(boxes))


FILES = {
    "read_vggss": Format(read_vggss, "boxes.json", json.dumps(VGGSS).encode()),
    "read_music_solo": Format(read_music_solo, "solo.json", json.dumps(SOLO).encode()),
    "read_music_duet": Format(read_music_duet, "duet.json", json.dumps(DUET).encode()),
    "read_vggsound_mixtures": Format(_mixtures, "duet.csv", LIST.encode()),
    "read_music_split": Format(read_music_split, "split.txt", b"a_000_00000,cello\nb_000_00000,flute\n"),
    "read_extended": Format(_extended, "extended.csv", PAIRS),
    "read_dsol_music": Format(read_dsol_music, "solotest.json", json.dumps(DSOL).encode()),
    "read_dsol_audioset": Format(read_dsol_audioset, "audioset_box.json", json.dumps(DSOL_AUDIOSET).encode()),
    "read_sslalign": Format(read_sslalign, "IS3.json", json.dumps(SSLALIGN).encode()),
    "lists.read_ids": Format(lists.read_ids, "list.txt", b"a_000030.jpg,cello\nb_000030.jpg,flute\n"),
    "read_flickr": Format(lambda path: read_flickr(path.parent), "7.xml", XML.encode()),
    "read_masks": Format(lambda path: list(read_masks(path.parent)), "1.png", PNG),
}


def files(name: str, *rows: FileRow) -> Iterator[InputClass]:
    """Every error names the file first."""
    for row in rows:
        error = None if row.error is None else f"(?s){FILES[name].file}.*{row.error}"
        yield InputClass(name, row.name, file_cases(FILES[name], row._replace(error=error), FILES[name].file))


def json_row(name: str, error: str, *values: Any) -> FileRow:
    """Texts as they are, other values as JSON."""
    texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return FileRow(name, [encoded(text) for text in texts], error)


def changed(**changes: Any) -> list[Any]:
    return [VGGSS[0] | changes]


VGGSS_ROWS = (
    json_row("nested 100,000 deep", "cannot be read", "[" * 100_000, '[{"file": ' + "[" * 100_000),
    json_row(
        "NaN, Infinity, 1e999, huge integers, true, null, text for a number",
        "4 finite numbers",
        *(changed(bbox=[[0, 0, 1, value]]) for value in (True, None, "1", [1], {}, 10**400, NAN)),
        json.dumps(changed(bbox=[[0, 0, 1, 9]])).replace("9", "1e999"),
        json.dumps(changed(bbox=[[0, 0, 1, float("inf")]])),
    ),
    json_row("an integer of 5,000 digits", "cannot be read", '[{"file": ' + "1" * 5000 + "}]"),
    json_row("another value for the list", "a JSON list of entries, but got", {"a": 1}, '"text"', 3, None, True),
    json_row("another value for an entry", "entry 0: expected an object", [[]], ["text"], [3], [None]),
    json_row(
        "another value for a name",
        "'class' to be a non-empty string",
        *(changed(**{"class": value}) for value in ([], 3, "")),
    ),
    json_row(
        "a class with a line break or half a surrogate pair",
        "printable",
        changed(**{"class": "a\nb"}),
        changed(**{"class": "\ud800"}),
    ),
    json_row("a key twice in an object", "twice", '[{"file": "a", "file": "b", "class": "c", "bbox": []}]'),
    json_row("a clip twice", "each clip once", [VGGSS[0], VGGSS[0]]),
)

BILLION_LAUGHS = '<!DOCTYPE a [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9)
)
DOCUMENT_TYPES = (
    f"{BILLION_LAUGHS}]><a>&j;</a>",
    '<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
    '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
    '<!DOCTYPE a [<!ENTITY % p SYSTEM "http://127.0.0.1/"> %p;]><a/>',
    '<!DOCTYPE a PUBLIC "-//X//Y" "http://127.0.0.1/x.dtd"><a/>',
    "<!DOCTYPE a><a/>",
)
CODECS = (b"bogus", b"utf-7", b"idna", b"rot13", b"hex", b"shift_jis", b"utf-32")
NO_NUMBERS = ("nan", "inf", "1e999", "-Infinity", "0x10", "", "1,5", "9" * 5000)
XML_ROWS = (
    FileRow(
        "document types: billion laughs, external and parameter entities, DTDs",
        [*(text.encode() for text in DOCUMENT_TYPES), "\ufeff<!DOCTYPE a><a/>".encode("utf-16-le")],
        "without a document type or entities",
    ),
    FileRow("entities that are not declared", [b"<a>&x;</a>"], "well-formed"),
    FileRow(
        "unknown encodings",
        [b'<?xml version="1.0" encoding="' + codec + b'"?><a>\xff</a>' for codec in CODECS],
        "well-formed",
    ),
    FileRow("300,000 open elements", [b"<a>" * 1000, b"<a>" * 300_000], "nested at most 100"),
    FileRow("larger than a megabyte", [b"<a>" + b" " * (1 << 20) + b"</a>"], "at most 1,048,576 bytes"),
    FileRow(
        "corners that are no finite number",
        [XML.replace(">256<", f">{number}<").encode() for number in NO_NUMBERS],
        "finite numbers",
    ),
)

LIST_ROWS = {
    "read_music_split": (
        FileRow(OUTSIDE, [name + b",cello\n" for name in BAD_IDS_IN_LINES], ""),
        FileRow("lines of 100,000 fields", [b"," * 10**5, b"a,b,c,d,e"], ""),
        FileRow("a clip twice", [b"a,x\na,y\n"], "each clip once"),
    ),
    "read_extended": (
        FileRow(OUTSIDE, [b"video,audio,label\n" + name + b",b,non-sounding\n" for name in BAD_IDS_IN_LINES], ""),
        FileRow("a pair twice", [PAIRS + PAIRS.splitlines()[1]], "each clip once"),
    ),
    "lists.read_ids": (
        FileRow("ids that name no file", [b"..\n", b"a\\b\n", b"C:a\n", b"a" * 300, b",x\n"], "clip id"),
        FileRow("a clip twice", [b"a\na.jpg\n", b"a,30,x,train\na_000030\n"], "each clip once"),
    ),
    "read_vggsound_mixtures": (
        FileRow(OUTSIDE, [name + b",elk_bugling,b_000030,x\n" for name in BAD_IDS_IN_LINES], ""),
        FileRow("lines of up to a million characters", [b"a," + b"x" * 10**6, b"," * 10**5, b'"' * 10**5], ""),
        FileRow("a mixture twice", [LIST.encode() * 2], "each clip once"),
    ),
}
NO_TEXT = FileRow("no text at all", [b"", b"\xff\xfe", b"\x00" * 50, bytes(range(256))], "")


def _files() -> Iterator[InputClass]:
    for name, format_ in FILES.items():
        yield from files(name, *changed_bytes(format_.valid), NO_TEXT)
    yield from files("read_vggss", *VGGSS_ROWS)
    for name, entry in (("read_vggss", VGGSS[0]), ("read_music_solo", SOLO[0]), ("read_music_duet", DUET[0])):
        entries = [[entry | {"file": bad}] for bad in BAD_IDS]
        yield from files(name, json_row(OUTSIDE, "clip id|non-empty", *entries))
    yield InputClass("read_vggss", "boxes from -1e300", _huge_boxes)
    for name, value in (("read_dsol_music", 7), ("read_dsol_audioset", 7), ("read_sslalign", {"a": 7})):
        wrong = [[], {next(iter(DSOL)): value}, {"a/3": value}] if name != "read_sslalign" else [value, [value]]
        yield from files(name, json_row("another value for the entries", "expected", *wrong))
    for name, rows in LIST_ROWS.items():
        yield from files(name, *rows)
    yield from files("read_flickr", *XML_ROWS)
    yield InputClass("read_flickr", "names of files that are no clip ids, and a folder", _flickr_names)
    yield InputClass("read_flickr", "wrong sides", _flickr_sides)
    yield InputClass("Annotations", "pickled, copied deeply", _copies)


def _huge_boxes(folder: Path) -> Iterator[Case]:
    path = folder / "boxes.json"
    path.write_text(json.dumps(changed(bbox=[[-1e300, -2.9e16, 1.5, 2]])))
    yield Case(lambda: rasterize(read_vggss(path)["a_000030"].boxes[0], 8), check=lambda mask: bool(mask.all()))


def _flickr_names(folder: Path) -> Iterator[Case]:
    for name in ("a\nb.xml", "a\\b.xml", "C:a.xml", "\udcff.xml"):
        path = folder / name
        path.write_text(XML)
        yield Case(lambda: read_flickr(folder), "clip id")
        path.unlink()
    (folder / "a.xml").mkdir()
    yield Case(lambda: read_flickr(folder), "an XML file")


def _flickr_sides(folder: Path) -> Iterator[Case]:
    for side in (0, -1, 1.5, True, None, "256", 10**400):
        yield Case(lambda side=side: read_flickr(folder, side=side), "`side`")


def _copies(folder: Path) -> Iterator[Case]:
    path = folder / "boxes.json"
    path.write_text(json.dumps(VGGSS))
    read = read_vggss(path)
    for copied in (copy.deepcopy(read), pickle.loads(pickle.dumps(read)), copy.copy(read)):
        yield Case(lambda copied=copied: copied, check=lambda c: c == read and c["b_000030"] == read["b_000030"])


WHOLE = [(0, 0, 1, 1)]
#: Each argument is the boxes and the size of the mask.
MASK_ROWS = (
    Row(
        "boxes beyond the frame, tensors of any dtype, expanded",
        [
            (boxes, 4)
            for boxes in (
                WHOLE,
                [(-1e300, -5, 1.5, 2)],
                torch.tensor(WHOLE),
                torch.tensor(WHOLE, dtype=torch.float16),
                torch.tensor([[0.0, 0, 1, 1]]).expand(2, 4),
            )
        ],
        lambda mask: bool((mask > 0).all()),
    ),
    Row(
        "no box, inverted boxes",
        (([], 4), (torch.zeros(0, 4), 4), ([(1, 1, 0, 0)], 4)),
        lambda mask: not mask.any(),
    ),
    Row("a frame of one pixel", [(WHOLE, 1)], lambda mask: mask.shape == (1, 1) and bool(mask.all())),
    Row("a frame of 2,000²", [(WHOLE, 2000)], lambda mask: bool(mask.all())),
    Row(
        "boxes of other lengths, NaN, infinite, huge, text",
        [
            (boxes, 4)
            for boxes in ([(0, 0, 1)], ["abcd"], [(0, 0, 1, NAN)], [(0, 0, 1, 10**400)], [(0, 0, 1, "1")], [None])
        ],
        "a box to hold 4 finite numbers",
    ),
    Row(
        "None, a number, a meta tensor for the boxes",
        [(boxes, 4) for boxes in (None, 3, torch.zeros(1, 4, device="meta"))],
        "`boxes`",
    ),
    Row("wrong sizes", [(WHOLE, size) for size in (0, -1, 2.5, True, None, 10**30)], "`size`"),
)

CLASSES = [
    *_files(),
    *(
        inputs
        for function in (rasterize, rasterize_sum, rasterize_annotators)
        for inputs in input_classes(
            function.__name__, lambda arguments, function=function: function(*arguments), MASK_ROWS
        )
    ),
]
