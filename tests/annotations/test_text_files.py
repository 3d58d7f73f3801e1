"""Byte-order marks and encodings: one reader for every list and JSON file."""

import json

import pytest

from sslosses.annotations import (
    AnnotationError,
    read_flickr,
    read_music_duet,
    read_music_solo,
    read_music_split,
    read_vggsound_mixtures,
    read_vggss,
)

BOX, CLIP = [0.1, 0.1, 0.5, 0.5], "a_000030"
VGGSS = json.dumps([{"file": f, "class": c, "bbox": [BOX]} for f, c in ((CLIP, "bird"), ("b_000030", "cat"))])
SOLO = json.dumps([{"file": CLIP, "class": "cello", "bbox": BOX}])
DUET = json.dumps([{"file": CLIP, "class_src1": "cello", "bbox_src1": BOX, "class_src2": "flute", "bbox_src2": BOX}])
XML = "<a><bbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bbox></a>"


def read_mixtures(path):
    (path.parent / "vggss.json").write_text(VGGSS, encoding="utf-8-sig")
    return read_vggsound_mixtures(path, path.parent / "vggss.json")


READERS = {
    "vggss": (read_vggss, VGGSS),
    "music_solo": (read_music_solo, SOLO),
    "music_duet": (read_music_duet, DUET),
    "music_split": (read_music_split, f"{CLIP},cello\n"),
    "mixtures": (read_mixtures, f"{CLIP},bird,b_000030,cat\n"),
    "flickr": (lambda path: read_flickr(path.parent), XML),
}


@pytest.mark.parametrize("name", READERS)
def test_a_byte_order_mark_changes_nothing(tmp_path, name):
    reader, text = READERS[name]
    path = tmp_path / "list.xml"
    path.write_text(text, encoding="utf-8")
    plain = list(reader(path))
    assert len(plain) == (2 if name == "vggss" else 1)
    path.write_text(text, encoding="utf-8-sig")
    assert list(reader(path)) == plain
    path.write_text(text.replace("\n", "\r\n"), encoding="utf-8-sig", newline="")
    assert list(reader(path)) == plain


@pytest.mark.parametrize("name", [name for name in READERS if name != "flickr"])  # XML may be UTF-16
def test_utf_16_is_named(tmp_path, name):
    reader, text = READERS[name]
    path = tmp_path / "list"
    path.write_text(text, encoding="utf-16")
    with pytest.raises(AnnotationError, match="in UTF-8, but byte 0 is not UTF-8, and it begins like UTF-16"):
        reader(path)


def test_hidden_xml_files_are_no_annotations(tmp_path):
    (tmp_path / "10.XML").write_text(XML)
    (tmp_path / "._10.xml").write_bytes(b"\0\5\x16\7 of macOS")
    assert [record.clip for record in read_flickr(tmp_path)] == ["10"]
