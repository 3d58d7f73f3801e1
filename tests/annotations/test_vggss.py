import json
import os
from pathlib import Path

import pytest

from sslosses.annotations import AnnotationError, rasterize, read_vggss

METADATA = os.environ.get("SSLOSSES_METADATA")
needs_metadata = pytest.mark.skipif(METADATA is None, reason="SSLOSSES_METADATA is not set")

WHOLE = {"file": "a_000030", "class": "elk bugling", "bbox": [[0.25, 0.5, 0.75, 1], [0, 0, 0.5, 0.5]]}
BROKEN = [0.4, 0.3, -2.8823037615171176e16, 0.9]


def written(tmp_path, content):
    path = tmp_path / "vggss.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_boxes_are_corners_of_one_source(tmp_path):
    annotations = read_vggss(written(tmp_path, [WHOLE]))
    record = annotations["a_000030"]
    assert record.classes == ("elk bugling",)
    assert record.boxes == (((0.25, 0.5, 0.75, 1.0), (0.0, 0.0, 0.5, 0.5)),)
    assert rasterize(record.boxes[0], 4).int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0]]
    assert (annotations.report.entries, annotations.report.boxes) == (1, 2)
    assert annotations.report.invalid == annotations.report.without_box == ()


def test_invalid_boxes(tmp_path):
    one = {**WHOLE, "file": "one", "bbox": [[0, 0, 1, 1], BROKEN]}
    none = {**WHOLE, "file": "none", "bbox": [BROKEN]}
    empty = {**WHOLE, "file": "empty", "bbox": []}
    path = written(tmp_path, [WHOLE, one, none, empty])
    kept = read_vggss(path)
    assert [len(record.boxes[0]) for record in kept] == [2, 2, 1, 0]
    assert [(b.entry, b.clip, b.key) for b in kept.report.invalid] == [(1, "one", "bbox[1]"), (2, "none", "bbox[0]")]
    assert kept.report.without_box == ("none", "empty")
    for part in ("vggss.json: 4 entries, 5 boxes, 2 without area", "entry 1 (one), bbox[1]", "no usable box: none"):
        assert part in str(kept.report)
    dropped = read_vggss(path, on_invalid="drop")
    assert [record.clip for record in dropped] == ["a_000030", "one"]
    assert dropped["one"].boxes == (((0.0, 0.0, 1.0, 1.0),),)
    assert dropped.report.dropped == ("none", "empty")
    assert dropped.report.invalid == kept.report.invalid
    with pytest.raises(AnnotationError, match=r"(?s)vggss\.json.*entry 1 \(one\), bbox\[1\].*entry 2"):
        read_vggss(path, on_invalid="error")
    with pytest.raises(AnnotationError, match="no usable box: empty"):
        read_vggss(written(tmp_path, [empty]), on_invalid="error")
    with pytest.raises(ValueError, match="'report', 'error', 'drop'"):
        read_vggss(path, on_invalid="ignore")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps([WHOLE, WHOLE])[:-30], "complete JSON list, but line 1, column .*truncated"),
        ("[" * 100_000, "a JSON list of entries, but it cannot be read"),
        ('[{"file": ' + "1" * 5000 + "}]", "a JSON list of entries, but it cannot be read"),
        ({"a": WHOLE}, "a JSON list of entries, but got an object"),
        ([WHOLE, None], "entry 1: expected an object, but got null"),
        ([{"file": "a", "bbox": []}], "entry 0: expected the keys file, class, bbox, but class is missing"),
        ([{**WHOLE, "bbox": {"xmin": 0}}], "entry 0: expected 'bbox' to be a list of boxes"),
        ([{**WHOLE, "bbox": [0.1, 0.2, 0.3, 0.4]}], r"entry 0: expected bbox\[0\] to be a list of 4 finite numbers"),
        ([{**WHOLE, "bbox": [[0, 0, 1, 1], [0, 0, 1]]}], r"entry 0: expected bbox\[1\] to be a list of 4 finite"),
        ([{**WHOLE, "bbox": [[0, 0, 1, "1"]]}], "4 finite numbers"),
        ([{**WHOLE, "bbox": [[0, 0, 1, float("inf")]]}], "4 finite numbers"),
        ([{**WHOLE, "bbox": [[0, 0, 1, 10**400]]}], "4 finite numbers"),
        (
            [WHOLE, {**WHOLE, "file": "b", "bbox": [[0, 0, 130, 120]]}],
            r"entry 1: .*\[0.0, 0.0, 130.0, 120.0\], .* pixels",
        ),
        ([{**WHOLE, "class": ""}], "'class' to be a non-empty string"),
        ([WHOLE, {**WHOLE, "bbox": []}], "entry 1: expected each clip once, but 'a_000030' is entry 0 too"),
    ],
)
def test_malformed_files(tmp_path, content, message):
    with pytest.raises(AnnotationError, match=message) as error:
        read_vggss(written(tmp_path, content))
    assert "vggss.json" in str(error.value)


@pytest.mark.parametrize("clip", ["../a", "..", ".", "/etc/passwd", "a/b", "a\\b", "C:a", "a\x00", "a\n"])
def test_ids_that_leave_a_folder(tmp_path, clip):
    with pytest.raises(AnnotationError, match="entry 0: expected 'file' to be a clip id without path separators"):
        read_vggss(written(tmp_path, [{**WHOLE, "file": clip}]))


@needs_metadata
def test_real_boxes():
    path = Path(METADATA) / "vggss.json"
    annotations = read_vggss(path)
    report = annotations.report
    assert (report.entries, report.boxes, len(report.invalid)) == (5158, 5941, 18)
    assert len({record.classes for record in annotations}) == 221
    assert report.without_box == ("M1P1xla8rg0_000000", "MKC9LvRivTM_000030")
    empty = [record.clip for record in annotations if not rasterize(record.boxes[0]).any()]
    assert tuple(empty) == report.without_box
    assert len(read_vggss(path, on_invalid="drop")) == 5156
    with pytest.raises(AnnotationError, match=r"18 without area(?s:.*)entry 16 \(UyCw7pCgYg8_000055\), bbox\[2\]"):
        read_vggss(path, on_invalid="error")
