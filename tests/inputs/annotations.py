"""Annotation files: VGG-SS, MUSIC, Flickr-SoundNet, lists of mixtures and split lists, and boxes as masks."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from inputs.readers.outcomes import Attempt, InputClass, Reader, mutated, truncated, written
from sslosses.annotations import (
    rasterize,
    rasterize_annotators,
    rasterize_sum,
    read_flickr,
    read_music_duet,
    read_music_solo,
    read_music_split,
    read_vggsound_mixtures,
    read_vggss,
)

VGGSS = [
    {"file": "a_000030", "class": "elk bugling", "bbox": [[0.25, 0.5, 0.75, 1], [0, 0, 0.5, 0.5]]},
    {"file": "b_000030", "class": "female speech, woman speaking", "bbox": [[0.0, 0.125, 1, 1]]},
]
SOLO = [{"file": "a_000_00000", "class": "cello", "bbox": [0.25, 0.5, 0.5, 0.25]}]
DUET = [
    {"file": "b", "class_src1": "cello", "bbox_src1": [0, 0, 1, 1], "class_src2": "flute", "bbox_src2": [0, 0, 1, 1]}
]
LIST = "a_000030,elk_bugling,b_000030,female_speech_woman_speaking\n"
XML = "<annotation><bbox><xmin>0</xmin><ymin>0</ymin><xmax>256</xmax><ymax>128</ymax></bbox></annotation>"
#: Names that would lead out of a folder, or that a file can't have.
BAD_IDS = (
    "../a",
    "..",
    ".",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "C:a",
    "a\x00b",
    "a\nb",
    "a\x1b[2J",
    "a" * 300,
    "\ud800",
    "",
)


def _mixtures(path: Path) -> Any:
    boxes = path.with_name("vggss.json")
    boxes.write_text(json.dumps(VGGSS))
    return read_vggsound_mixtures(path, boxes)


def _flickr(path: Path) -> Any:
    return read_flickr(path.parent)


#: The reader, a file's name, and a small valid one.
FILES: dict[str, tuple[Reader, str, bytes]] = {
    "read_vggss": (read_vggss, "boxes.json", json.dumps(VGGSS).encode()),
    "read_music_solo": (read_music_solo, "solo.json", json.dumps(SOLO).encode()),
    "read_music_duet": (read_music_duet, "duet.json", json.dumps(DUET).encode()),
    "read_vggsound_mixtures": (_mixtures, "duet.csv", LIST.encode()),
    "read_music_split": (read_music_split, "split.txt", b"a_000_00000,cello\nb_000_00000,flute\n"),
    "read_flickr": (_flickr, "7.xml", XML.encode()),
}


def _written(name: str, contents: Callable[[], Iterator[bytes]], error: str | None, cls: str) -> InputClass:
    reader, file, _ = FILES[name]
    named = None if error is None else f"(?s){file}.*{error}"
    return InputClass(name, cls, written(reader, file, contents, file, named))


def _json(name: str, cls: str, error: str, *values: Any) -> InputClass:
    dumped = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return _written(name, lambda: iter(text.encode("utf-8", "surrogatepass") for text in dumped), error, cls)


def _files() -> Iterator[InputClass]:
    for name, (_, _, valid) in FILES.items():
        yield _written(name, lambda valid=valid: truncated(valid), None, "truncated at every byte")
        yield _written(name, lambda valid=valid: mutated(valid, 300), None, "random bytes changed, inserted, moved")
        yield _written(name, lambda: iter([b"", b"\xff\xfe", b"\x00" * 50, bytes(range(256))]), "", "no text at all")


def _boxes_json() -> Iterator[InputClass]:
    first = VGGSS[0]

    def changed(**changes: Any) -> list[Any]:
        return [{**first, **changes}]

    name = "read_vggss"
    yield _json(name, "nested 100,000 deep", "cannot be read", "[" * 100_000, '[{"file": ' + "[" * 100_000)
    wrong = [changed(bbox=[[0, 0, 1, value]]) for value in (True, None, "1", [1], {}, 10**400, float("nan"))]
    yield _json(
        name,
        "NaN, Infinity, 1e999, huge integers, true, null, text for a number",
        "4 finite numbers",
        *wrong,
        json.dumps(changed(bbox=[[0, 0, 1, 9]])).replace("9", "1e999"),
        json.dumps(changed(bbox=[[0, 0, 1, float("inf")]])),
    )
    yield _json(name, "an integer of 5,000 digits", "cannot be read", '[{"file": ' + "1" * 5000 + "}]")
    kinds: tuple[Any, ...] = ({"a": 1}, '"text"', 3, None, True)
    yield _json(name, "another value for the list", "a JSON list of entries, but got", *kinds)
    yield _json(
        name, "another value for an entry", "entry 0: expected an object", *([kind] for kind in ([], "text", 3, None))
    )
    yield _json(
        name,
        "another value for a name",
        "'class' to be a non-empty string",
        *(changed(**{"class": v}) for v in ([], 3, "")),
    )
    yield _json(
        name,
        "a class with a line break or half a surrogate pair",
        "printable",
        changed(**{"class": "a\nb"}),
        changed(**{"class": "\ud800"}),
    )
    yield _json(name, "a key twice in an object", "twice", '[{"file": "a", "file": "b", "class": "c", "bbox": []}]')
    yield _json(name, "a clip twice", "each clip once", [first, first])
    for reader, entry in (("read_vggss", first), ("read_music_solo", SOLO[0]), ("read_music_duet", DUET[0])):
        yield _json(
            reader,
            "ids that lead out of a folder or name no file",
            "clip id|non-empty",
            *([{**entry, "file": i}] for i in BAD_IDS),
        )

    def huge(folder: Path) -> Iterator[Attempt]:
        path = folder / "boxes.json"
        path.write_text(json.dumps([{**first, "bbox": [[-1e300, -2.9e16, 1e300, 1e300]]}]))
        yield Attempt(lambda: rasterize(read_vggss(path)["a_000030"].boxes[0], 8), check=lambda mask: bool(mask.all()))

    yield InputClass("read_vggss", "boxes of ±1e300", huge)


def _lists() -> Iterator[InputClass]:
    for name, text in (("read_music_split", "{},cello\n"), ("read_vggsound_mixtures", "{},elk_bugling,b_000030,x\n")):
        bad = [text.format(i).encode("utf-8", "surrogatepass") for i in BAD_IDS if i not in ("", "a\nb")]
        yield _written(name, lambda bad=bad: iter(bad), "", "ids that lead out of a folder or name no file")
        long = [b"a," + b"x" * 10**6, b"," * 10**5, b'"' * 10**5]
        yield (
            _written(name, lambda long=long: iter(long), "", "lines of up to a million characters")
            if name != "read_music_split"
            else _written(name, lambda: iter([b"," * 10**5, b"a,b,c,d,e"]), "", "lines of 100,000 fields")
        )
    yield _written("read_music_split", lambda: iter([b"a,x\na,y\n"]), "each clip once", "a clip twice")
    yield _written("read_vggsound_mixtures", lambda: iter([LIST.encode() * 2]), "each clip once", "a mixture twice")


def _xml() -> Iterator[InputClass]:
    laughs = '<!DOCTYPE a [<!ENTITY a "ha">' + "".join(
        f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9)
    )
    refused = (
        f"{laughs}]><a>&j;</a>",
        '<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
        '<!DOCTYPE a [<!ENTITY % p SYSTEM "http://127.0.0.1/"> %p;]><a/>',
        '<!DOCTYPE a PUBLIC "-//X//Y" "http://127.0.0.1/x.dtd"><a/>',
        "<!DOCTYPE a><a/>",
        '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE a><a/>',
    )
    yield _written(
        "read_flickr",
        lambda: iter([*(text.encode() for text in refused[:-1]), "\ufeff<!DOCTYPE a><a/>".encode("utf-16-le")]),
        "without a document type or entities",
        "document types: billion laughs, external and parameter entities, DTDs",
    )
    yield _written("read_flickr", lambda: iter([b"<a>&x;</a>"]), "well-formed", "entities that are not declared")
    codecs = (b"bogus", b"utf-7", b"idna", b"rot13", b"hex", b"shift_jis", b"utf-32")
    yield _written(
        "read_flickr",
        lambda: iter(b'<?xml version="1.0" encoding="' + codec + b'"?><a>\xff</a>' for codec in codecs),
        "well-formed",
        "unknown encodings",
    )
    yield _written(
        "read_flickr", lambda: iter([b"<a>" * 1000, b"<a>" * 300_000]), "nested at most 100", "300,000 open elements"
    )
    yield _written(
        "read_flickr",
        lambda: iter([b"<a>" + b" " * (1 << 20) + b"</a>"]),
        "at most 1,048,576 bytes",
        "larger than a megabyte",
    )
    numbers = ("nan", "inf", "1e999", "-Infinity", "0x10", "", "1,5", "9" * 5000)
    yield _written(
        "read_flickr",
        lambda: iter(XML.replace(">256<", f">{n}<").encode() for n in numbers),
        "finite numbers",
        "corners that are no finite number",
    )

    def names(folder: Path) -> Iterator[Attempt]:
        for name in ("a\nb.xml", "a\\b.xml", "C:a.xml", "\udcff.xml"):
            path = folder / name
            path.write_text(XML)
            yield Attempt(lambda: read_flickr(folder), "clip id")
            path.unlink()
        (folder / "a.xml").mkdir()
        yield Attempt(lambda: read_flickr(folder), "a file of XML")

    yield InputClass("read_flickr", "names of files that are no clip ids, and a folder", names)
    sides = (0, -1, 1.5, True, None, "256", 10**400)
    yield InputClass(
        "read_flickr",
        "wrong sides",
        lambda folder: [Attempt(lambda side=side: read_flickr(folder, side=side), "`side`") for side in sides],
    )


def _records() -> Iterator[InputClass]:
    def attempts(folder: Path) -> Iterator[Attempt]:
        path = folder / "boxes.json"
        path.write_text(json.dumps(VGGSS))
        read = read_vggss(path)
        for copied in (copy.deepcopy(read), pickle.loads(pickle.dumps(read)), copy.copy(read)):
            yield Attempt(lambda copied=copied: copied, check=lambda c: c == read and c["b_000030"] == read["b_000030"])

    yield InputClass("Annotations", "pickled, copied deeply", attempts)


def _rasterize() -> Iterator[InputClass]:
    whole = [(0, 0, 1, 1)]
    for function in (rasterize, rasterize_sum, rasterize_annotators):
        name = function.__name__
        right: list[Any] = [
            whole,
            [(-1e300, -5, 1e300, 10**300)],
            torch.tensor(whole),
            torch.tensor(whole, dtype=torch.float16),
            torch.tensor([[0.0, 0, 1, 1]]).expand(2, 4),
        ]
        yield InputClass(
            name,
            "boxes beyond the frame, tensors of any dtype, expanded",
            lambda _, f=function, r=right: [
                Attempt(lambda b=b: f(b, 4), check=lambda m: bool((m > 0).all())) for b in r
            ],
        )
        yield InputClass(
            name,
            "no box, inverted boxes, a frame of one pixel and of 2,000²",
            lambda _, f=function: [
                Attempt(lambda: f([], 4), check=lambda m: not m.any()),
                Attempt(lambda: f(torch.zeros(0, 4), 4), check=lambda m: not m.any()),
                Attempt(lambda: f([(1, 1, 0, 0)], 4), check=lambda m: not m.any()),
                Attempt(lambda: f(whole, 1), check=lambda m: m.shape == (1, 1) and bool(m.all())),
                Attempt(lambda: f(whole, 2000), check=lambda m: bool(m.all())),
            ],
        )
        wrong: list[Any] = [
            [(0, 0, 1)],
            ["abcd"],
            [(0, 0, 1, float("nan"))],
            [(0, 0, 1, 10**400)],
            [(0, 0, 1, "1")],
            [None],
        ]
        yield InputClass(
            name,
            "boxes of other lengths, NaN, infinite, huge, text",
            lambda _, f=function, w=wrong: [Attempt(lambda b=b: f(b, 4), "a box to hold 4 finite numbers") for b in w],
        )
        yield InputClass(
            name,
            "None, a number, a meta tensor for the boxes",
            lambda _, f=function: [
                Attempt(lambda b=b: f(b, 4), "`boxes`") for b in (None, 3, torch.zeros(1, 4, device="meta"))
            ],
        )
        yield InputClass(
            name,
            "wrong sizes",
            lambda _, f=function: [
                Attempt(lambda s=s: f(whole, s), "`size`") for s in (0, -1, 2.5, True, None, 10**30)
            ],
        )


CLASSES = [*_files(), *_boxes_json(), *_lists(), *_xml(), *_records(), *_rasterize()]
