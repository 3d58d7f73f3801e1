import csv
import json
import os
from pathlib import Path

import pytest

from sslosses.annotations import (
    AnnotationError,
    Annotations,
    NegativeRecord,
    Record,
    Report,
    lists,
    read_extended,
    read_flickr,
    read_vggss,
)

METADATA = os.environ.get("SSLOSSES_METADATA")
needs_metadata = pytest.mark.skipif(METADATA is None, reason="SSLOSSES_METADATA is not set")
BOX = [[0, 0, 0.5, 1]]
HEADER = "video,audio,label\n"


@pytest.fixture
def positives(tmp_path):
    path = tmp_path / "vggss.json"
    classes = {"a": "train", "b": "train", "c": "dog", "d": "cat"}
    path.write_text(json.dumps([{"file": clip, "class": name, "bbox": BOX} for clip, name in classes.items()]))
    return read_vggss(path)


def written(tmp_path, text):
    path = tmp_path / "extended.csv"
    path.write_text(text)
    return path


PAIRS = HEADER + "x,x,non-sounding\na,b,non-sounding\na,c,non-sounding\nx,a,non-sounding\n"


def test_negatives_follow_the_ordinary_records(tmp_path, positives):
    extended = read_extended(written(tmp_path, PAIRS), positives)
    assert [record.clip for record in extended] == ["a", "b", "c", "d", "x+x", "a+b", "a+c", "x+a"]
    assert extended.records[:4] == positives.records
    negative = extended["a+c"]
    assert negative == NegativeRecord("a+c", (), (), "a", "c")
    assert (negative.clips, extended["x+x"].clips, extended["a"].clips) == (("a", "c"), ("x",), ("a",))
    report = extended.report
    assert (report.entries, report.boxes, report.negatives) == (8, 4, 4)
    assert (report.own_sound, report.same_class) == (("x+x",), ("a+b",))
    assert report.without_box == report.dropped == ()
    assert "4 entries without a source, 1 of them with frame and sound of one class" in str(report)


def test_doubtful_negatives_can_be_dropped(tmp_path, positives):
    extended = read_extended(written(tmp_path, PAIRS), positives, "drop")
    assert [record.clip for record in extended][4:] == ["a+c", "x+a"]
    assert extended.report.dropped == ("x+x", "a+b")
    assert (extended.report.entries, extended.report.negatives) == (8, 4)
    assert (extended.report.own_sound, extended.report.same_class) == (("x+x",), ("a+b",))
    with pytest.raises(ValueError, match="`on_same_class` to be one of 'report', 'drop', but got 'error'"):
        read_extended(tmp_path / "extended.csv", positives, "error")


def test_only_listed_frames(tmp_path, positives):
    extended = read_extended(written(tmp_path, PAIRS), positives, listed_only=True)
    assert [record.clip for record in extended][:2] == ["a", "x+x"]


def test_reports_of_the_ordinary_set_are_kept(tmp_path):
    path = tmp_path / "vggss.json"
    boxes = {"a": BOX, "b": [[0.5, 0.5, 0.5, 1]]}
    path.write_text(json.dumps([{"file": clip, "class": "dog", "bbox": box} for clip, box in boxes.items()]))
    pairs = written(tmp_path, HEADER + "x,y,non-sounding\n")
    kept = read_extended(pairs, read_vggss(path)).report
    assert ([box.clip for box in kept.invalid], kept.without_box, kept.dropped) == (["b"], ("b",), ())
    dropped = read_extended(pairs, read_vggss(path, on_invalid="drop"))
    assert ([record.clip for record in dropped], dropped.report.dropped) == (["a", "x+y"], ("b",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected the header 'video,audio,label', but got ''"),
        ("a,b,non-sounding\n", "line 1: expected the header"),
        (HEADER, "lines of 'frame,sound,non-sounding', but there is none"),
        (HEADER + "a,b\n", "line 2: expected 'frame,sound,non-sounding', but got 'a,b'"),
        (HEADER + "a,b,sounding\n", "line 2: expected 'frame,sound,non-sounding'"),
        (HEADER + "a,c,non-sounding\na,../b,non-sounding\n", "line 3: expected the id to be a clip id"),
        (HEADER + "a,c,non-sounding\na,c,non-sounding\n", r"line 3: .* each clip once, but 'a\+c' is line 2 too"),
    ],
)
def test_malformed_files(tmp_path, positives, text, message):
    with pytest.raises(AnnotationError, match=message) as error:
        read_extended(written(tmp_path, text), positives)
    assert "extended.csv" in str(error.value)
    with pytest.raises(FileNotFoundError):
        read_extended(tmp_path / "none.csv", positives)


def reference_negatives(path, classes):
    """Pairs, clips with their own sound, and other pairs of one class, counted by the csv module."""
    own, same, rows = 0, 0, 0
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            rows += 1
            if row["video"] == row["audio"]:
                own += 1
            elif row["video"] in classes and classes[row["video"]] == classes.get(row["audio"]):
                same += 1
    return rows, own, same


@needs_metadata
def test_extended_vggss():
    boxes = read_vggss(Path(METADATA) / "vggss.json")
    path = Path(METADATA) / "lists" / "stoneMo+SLAVC" / "vggss_test_plus_silent.csv"
    extended = read_extended(path, boxes)
    report = extended.report
    counts = (report.negatives, len(report.own_sound), len(report.same_class))
    assert (
        counts == reference_negatives(path, {record.clip: record.classes[0] for record in boxes}) == (5158, 379, 1185)
    )
    assert len(extended) == report.entries == 10_316
    assert len(report.invalid) == 18
    assert not {clip.partition("+")[0] for clip in report.own_sound} & {record.clip for record in boxes}
    assert lists.recognize(record.clip for record in extended).name == "vggss-extended-10316"
    assert len(read_extended(path, boxes, "drop")) == 10_316 - 379 - 1185


@needs_metadata
def test_extended_flickr(tmp_path):
    """The boxes of Flickr-SoundNet are not here; records of its test ids and one more stand in for them."""
    ids = [*lists.get("flickr-250").ids, "1"]
    records = tuple(Record(clip, (), (((0.0, 0.0, 1.0, 1.0),),)) for clip in ids)
    folder = Path(METADATA) / "lists" / "stoneMo+SLAVC"
    extended = read_extended(
        folder / "flickr_test_plus_silent.csv",
        Annotations(records, Report(tmp_path, len(ids), len(ids))),
        listed_only=True,
    )
    assert len(extended) == 500
    assert "1" not in extended
    assert extended.report.same_class == extended.report.own_sound == ()
    assert lists.recognize(record.clip for record in extended).name == "flickr-extended-500"


def test_flickr_boxes_can_be_extended(tmp_path):
    folder = tmp_path / "Annotations"
    folder.mkdir()
    for clip in ("1", "2"):
        box = "<bbox><xmin>0</xmin><ymin>0</ymin><xmax>256</xmax><ymax>128</ymax></bbox>"
        (folder / f"{clip}.xml").write_text(f"<annotation>{box}</annotation>")
    extended = read_extended(written(tmp_path, HEADER + "1,2,non-sounding\n"), read_flickr(folder), listed_only=True)
    assert [record.clip for record in extended] == ["1", "1+2"]
