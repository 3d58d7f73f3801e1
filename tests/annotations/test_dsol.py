import json
import os
from pathlib import Path

import pytest

from sslosses.annotations import (
    AnnotationError,
    lists,
    read_dsol_audioset,
    read_dsol_music,
    read_music_duet,
    read_music_solo,
)

METADATA = os.environ.get("SSLOSSES_METADATA")
needs_metadata = pytest.mark.skipif(METADATA is None, reason="SSLOSSES_METADATA is not set")
FRAME = "4Oy5VmaacaI_0_1000/frame_013/00411.jpg"
BOX = {"box": [0, 0, 9, 9], "normbox": [0.25, 0.5, 0.5, 0.25], "category_id": 1}


def written(tmp_path, content):
    path = tmp_path / "dsol.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_boxes_of_a_category_are_one_source(tmp_path):
    boxes = [BOX, {**BOX, "category_id": 12}, {**BOX, "normbox": [0, 0, 0.25, 0.25]}, {**BOX, "category_id": 2}]
    annotations = read_dsol_music(written(tmp_path, {FRAME: {"bbox": boxes, "wdith": 640, "height": 360}}))
    record = annotations["4Oy5VmaacaI_013_00411"]
    assert record.classes == ("cello", "flute", "category 2")
    upper = (0.25, 0.5, 0.75, 0.75)
    assert record.boxes == ((upper, (0.0, 0.0, 0.25, 0.25)), (upper,), (upper,))
    assert (annotations.report.entries, annotations.report.boxes) == (1, 4)
    assert annotations.report.unreadable_as_corners == 3  # 0.5, 0.25 lies before 0.25, 0.5


def test_frames_without_a_box_are_left_out(tmp_path):
    other = FRAME.replace("411", "418")
    annotations = read_dsol_music(written(tmp_path, {FRAME: {"bbox": [BOX]}, other: {"bbox": []}}), "error")
    assert [record.clip for record in annotations] == ["4Oy5VmaacaI_013_00411"]
    assert (annotations.report.entries, annotations.report.dropped) == (2, ("4Oy5VmaacaI_013_00418",))


def test_invalid_boxes(tmp_path):
    flat = {FRAME: {"bbox": [BOX, {**BOX, "category_id": 3, "normbox": [0, 0, 0, 1]}]}}
    kept = read_dsol_music(written(tmp_path, flat))
    assert [(box.clip, box.key) for box in kept.report.invalid] == [("4Oy5VmaacaI_013_00411", "bbox[1]")]
    assert len(read_dsol_music(tmp_path / "dsol.json", "drop")) == 0
    with pytest.raises(AnnotationError, match=r"bbox\[1\]"):
        read_dsol_music(tmp_path / "dsol.json", "error")


def test_audioset(tmp_path):
    entry = {"category": 2, "normbox": [0.25, 0.5, 0.5, 0.25]}
    frames = {"8LYWfpPUokc/3": {"bbox": [entry, {**entry, "category": 0}]}, "8LYWfpPUokc/4": {"bbox": []}}
    annotations = read_dsol_audioset(written(tmp_path, frames))
    assert annotations["8LYWfpPUokc_3"].classes == ("category 2", "category 0")
    assert annotations.report.dropped == ("8LYWfpPUokc_4",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "a JSON object of entries, but got a list"),
        ('{"a": ', "a complete JSON object, but line 1"),
        ({"a/411.jpg": {"bbox": [BOX]}}, "expected a frame '<video>_0_1000/frame_<second>/<frame>.jpg', but got"),
        ({FRAME: [BOX]}, "an object with a list 'bbox', but got"),
        ({FRAME: {"bbox": BOX}}, "an object with a list 'bbox', but got"),
        ({FRAME: {"bbox": [3]}}, r"expected bbox\[0\] to be an object, but got 3"),
        ({FRAME: {"bbox": [{"normbox": [0, 0, 1, 1]}]}}, r"bbox\[0\]: expected the keys normbox, category_id, but cat"),
        ({FRAME: {"bbox": [{**BOX, "normbox": [0, 1]}]}}, r"'normbox' of bbox\[0\] to be a list of 4 finite numbers"),
        ({FRAME: {"bbox": [{**BOX, "category_id": "1"}]}}, r"'category_id' of bbox\[0\] to be a number of a category"),
        ({FRAME: {"bbox": [{**BOX, "category_id": True}]}}, "to be a number of a category, but got True"),
        ({FRAME: {"bbox": [{**BOX, "normbox": [0, 0, 640, 360]}]}}, "looks like pixels"),
        ({FRAME.replace("4Oy", "a:b"): {"bbox": [BOX]}}, "expected the video to be a clip id"),
        (f'{{"{FRAME}": {{"bbox": []}}, "{FRAME}": {{"bbox": []}}}}', "twice"),
    ],
)
def test_malformed_files(tmp_path, content, message):
    path = written(tmp_path, content)
    with pytest.raises(AnnotationError, match=message) as error:
        read_dsol_music(path)
    assert "dsol.json" in str(error.value)


@needs_metadata
@pytest.mark.parametrize(
    ("file", "frames", "without_box", "boxes", "videos", "sources", "thinned", "name"),
    [
        ("solotest", 12_356, 1116, 12_356, 27, {1: 12_356}, read_music_solo, "dsol-solo-12356"),
        ("duettest", 10_284, 1228, 15_035, 16, {1: 5533, 2: 4751}, read_music_duet, "dsol-duet-10284"),
    ],
)
def test_real_boxes_of_music(file, frames, without_box, boxes, videos, sources, thinned, name):
    annotations = read_dsol_music(Path(METADATA) / "lists" / "DTaoo+DSOL" / f"{file}.json", "error")
    report = annotations.report
    assert (len(annotations), len(report.dropped), report.boxes) == (frames, without_box, boxes)
    assert report.entries == frames + without_box
    counts = [len(record.boxes) for record in annotations]
    assert {n: counts.count(n) for n in set(counts)} == sources
    assert len({record.clip[:11] for record in annotations}) == videos
    assert not any("category" in c for record in annotations for c in record.classes)
    assert lists.recognize(record.clip for record in annotations).name == name
    kept = thinned(Path(METADATA) / f"music_{file.removesuffix('test')}.json")
    for record in kept:  # the thinned file has these ids, classes and boxes
        ours = dict(zip(annotations[record.clip].classes, annotations[record.clip].boxes, strict=True))
        for label, source in zip(record.classes, record.boxes, strict=True):
            assert ours[label][0] == pytest.approx(source[0], abs=1e-9)


@needs_metadata
def test_real_boxes_of_audioset():
    annotations = read_dsol_audioset(Path(METADATA) / "lists" / "DTaoo+DSOL" / "audioset_box.json", "error")
    assert (len(annotations), len(annotations.report.dropped), annotations.report.boxes) == (4473, 30, 7403)
    assert {len(record.boxes) for record in annotations} == {1, 2, 3}
    assert lists.recognize(record.clip for record in annotations).name == "dsol-audioset-4473"
