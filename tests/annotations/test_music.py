import json
import os
from pathlib import Path

import pytest

from sslosses.annotations import (
    AnnotationError,
    SplitEntry,
    rasterize,
    read_music_duet,
    read_music_solo,
    read_music_split,
)

METADATA = os.environ.get("SSLOSSES_METADATA")
needs_metadata = pytest.mark.skipif(METADATA is None, reason="SSLOSSES_METADATA is not set")

SOLO = {"file": "a_000_00000", "class": "cello", "bbox": [0.25, 0.5, 0.5, 0.25]}
DUET = {
    "file": "b_000_00000",
    "class_src1": "cello",
    "bbox_src1": [0.1, 0.2, 0.3, 0.4],
    "class_src2": "flute",
    "bbox_src2": [0.5, 0.2, 0.5, 0.8],
}


def written(tmp_path, content):
    path = tmp_path / "music.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_solo(tmp_path):
    annotations = read_music_solo(written(tmp_path, [SOLO, {**SOLO, "file": "c"}]))
    assert [record.clip for record in annotations] == ["a_000_00000", "c"]
    record = annotations["a_000_00000"]
    assert record.classes == ("cello",)
    assert record.boxes == (((0.25, 0.5, 0.75, 0.75),),)
    mask = rasterize(record.boxes[0], 8)
    assert mask.sum() == 4 * 2
    assert mask[4:6, 2:6].all()
    assert "c" in annotations
    assert "d" not in annotations
    with pytest.raises(KeyError, match=r"No clip 'd' among the 2 of .*music\.json"):
        annotations["d"]


def test_duet(tmp_path):
    annotations = read_music_duet(written(tmp_path, [DUET]))
    record = annotations["b_000_00000"]
    assert record.classes == ("cello", "flute")
    assert record.boxes[1] == ((0.5, 0.2, 1.0, 1.0),)
    # as corners, the first box is upright, the second has its right edge on its left
    assert annotations.report.boxes == 2
    assert annotations.report.unreadable_as_corners == 1


@pytest.mark.parametrize("box", [[0.2, 0.2, 0.0, 0.5], [0.2, 0.2, -0.1, 0.5], [1.0, 0.0, 0.5, 1.0], [-0.5, 0, 0.4, 1]])
def test_invalid_boxes(tmp_path, box):
    path = written(tmp_path, [DUET, {**DUET, "file": "broken", "bbox_src2": box}])
    kept = read_music_duet(path)
    assert len(kept) == 2
    (invalid,) = kept.report.invalid
    assert (invalid.entry, invalid.clip, invalid.key, invalid.values) == (1, "broken", "bbox_src2", tuple(box))
    assert "music.json" in str(kept.report)
    assert "entry 1 (broken), bbox_src2" in str(kept.report)
    dropped = read_music_duet(path, on_invalid="drop")
    assert [record.clip for record in dropped] == ["b_000_00000"]
    assert dropped.report.dropped == ("broken",)
    assert dropped.report.invalid == (invalid,)
    with pytest.raises(AnnotationError, match=r"(?s)music\.json.*entry 1 \(broken\), bbox_src2"):
        read_music_duet(path, on_invalid="error")
    with pytest.raises(ValueError, match="'report', 'error', 'drop'"):
        read_music_duet(path, on_invalid="ignore")


def without(entry, key):
    return {k: v for k, v in entry.items() if k != key}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps([SOLO, SOLO])[:-30], "complete JSON list, but line 1, column .*truncated"),
        ("", "truncated"),
        ({"a": SOLO}, "a JSON list of entries, but got an object"),
        ([SOLO, 3], "entry 1: expected an object, but got 3"),
        (
            [SOLO, without(SOLO, "bbox")],
            "entry 1: expected the keys file, class, bbox, but bbox is missing; .* file, class",
        ),
        ([DUET], "entry 0: expected the keys file, class, bbox, but class, bbox is missing"),
        ([{**SOLO, "bbox": [0, 0, 1]}], "entry 0: expected 'bbox' to be a list of 4 finite numbers, but got .0, 0, 1."),
        ([{**SOLO, "bbox": "0 0 1 1"}], "4 finite numbers, but got '0 0 1 1'"),
        ([{**SOLO, "bbox": [0, 0, True, 1]}], "4 finite numbers"),
        ([{**SOLO, "bbox": [0, 0, float("nan"), 1]}], "4 finite numbers"),
        ([{**SOLO, "class": 3}], "entry 0: expected 'class' to be a non-empty string, but got 3"),
        (
            [{**SOLO, "file": "../a"}],
            "entry 0: expected .file. to be a clip id without path separators",
        ),
        ([{**SOLO, "file": ""}], "entry 0: expected 'file' to be a non-empty string"),
        ([SOLO, SOLO], "entry 1: expected each clip once, but 'a_000_00000' is entry 0 too"),
    ],
)
def test_malformed_files(tmp_path, content, message):
    with pytest.raises(AnnotationError, match=message) as error:
        read_music_solo(written(tmp_path, content))
    assert "music.json" in str(error.value)


def test_not_text_and_no_file(tmp_path):
    path = tmp_path / "music.json"
    path.write_bytes(b"\xff\xfe[]")
    for read in (read_music_solo, read_music_split):
        with pytest.raises(AnnotationError, match="UTF-8"):
            read(path)
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "none.json")


def test_splits(tmp_path):
    path = tmp_path / "split.txt"
    path.write_bytes(b"a_000\r\nb_000\r\n")
    assert read_music_split(path) == (SplitEntry("a_000", ()), SplitEntry("b_000", ()))
    path.write_text("a,cello\n\nb,acoustic_guitar")
    assert read_music_split(path)[1] == SplitEntry("b", ("acoustic_guitar",))
    for content, message in [
        ("a,cello\nb\n", "line 2: expected 'id,class1', but got 'b'"),
        ("a,\n", "line 1"),
        ("a,b,c,d\n", "line 1: expected 'id,class1,class2'"),
        ("\n", "the file is empty"),
        ("../a,cello\n", "line 1: expected the id to be a clip id without path separators"),
    ]:
        path.write_text(content)
        with pytest.raises(AnnotationError, match=message):
            read_music_split(path)


@needs_metadata
def test_real_boxes():
    folder = Path(METADATA)
    solo = read_music_solo(folder / "music_solo.json", on_invalid="error")
    duet = read_music_duet(folder / "music_duet.json", on_invalid="error")
    assert (solo.report.boxes, solo.report.unreadable_as_corners) == (2124, 1647)
    assert (duet.report.boxes, duet.report.unreadable_as_corners) == (2040, 1027)
    assert all(rasterize(boxes).any() for record in (*solo, *duet) for boxes in record.boxes)


@needs_metadata
def test_real_splits():
    folder = Path(METADATA)
    solo, duet = read_music_solo(folder / "music_solo.json"), read_music_duet(folder / "music_duet.json")
    sizes = {}
    for name in ("music_solo_train.txt", "music_solo_test.csv", "music_duet_train.txt", "music_duet_test.csv"):
        entries = read_music_split(folder / name)
        sizes[name] = (len(entries), len(entries[0].classes))
        if "test" in name:
            annotations = solo if "solo" in name else duet
            assert all(entry.clip in annotations for entry in entries)
            assert all(entry.classes in ((), annotations[entry.clip].classes) for entry in entries)
    assert list(sizes.values()) == [(44532, 1), (2124, 1), (48348, 2), (1020, 0)]
