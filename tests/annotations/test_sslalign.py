import json

import pytest

from sslosses.annotations import AnnotationError, rasterize, read_sslalign

ENTRY = {"image": "/mnt/a/dog_cat_7_dog.jpg", "audio": "/mnt/b/dog_cat_7_dog.wav", "gt_box": [13.0, 69.0, 198.9, 221.0]}


def written(tmp_path, content):
    path = tmp_path / "boxes.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def other(name, **changes):
    return {"image": f"/x/{name}.jpg", "audio": f"/y/{name}.wav", "gt_box": [0, 0, 224, 224]} | changes


def reference_mask(box, size=224):
    mask = [[0] * size for _ in range(size)]
    xmin, ymin, xmax, ymax = (int(v) for v in box)
    for y in range(size):
        for x in range(size):
            mask[y][x] = int(xmin <= x < xmax and ymin <= y < ymax)
    return mask


def test_boxes_are_pixels_with_exclusive_corners(tmp_path):
    record = read_sslalign(written(tmp_path, [ENTRY]))["dog_cat_7_dog"]
    assert (record.classes, record.group) == ((), "dog_cat_7")
    assert rasterize(record.boxes[0]).int().tolist() == reference_mask(ENTRY["gt_box"])


def test_every_pixel_survives(tmp_path):
    """61/224, 115/224 and 122/224 are rounded down: multiplied by 224 they are below 61, 115 and 122."""
    entries = [other(f"a_{k}", gt_box=[k, 0, 224, 224 - k]) for k in range(224)]
    for k, record in enumerate(read_sslalign(written(tmp_path, entries))):
        mask = rasterize(record.boxes[0])
        assert (mask.any(0).sum(), mask.any(1).sum(), mask.sum()) == (224 - k, 224 - k, (224 - k) ** 2)


def test_groups_and_ids(tmp_path):
    entries = [ENTRY, other("dog_cat_7_cat"), other("plain"), other("a_1_0", image="C:\\data\\b_1_0.png")]
    annotations = read_sslalign(written(tmp_path, entries))
    assert {record.clip: record.group for record in annotations} == {
        "dog_cat_7_dog": "dog_cat_7",
        "dog_cat_7_cat": "dog_cat_7",
        "plain": "plain",
        "b_1_0": "b_1",
    }


def test_entries_may_share_a_picture(tmp_path):
    entries = [other("p_1", audio="/y/cat.wav"), other("p_1", audio="/y/dog.wav"), other("p_2")]
    annotations = read_sslalign(written(tmp_path, entries))
    assert {record.clip: record.group for record in annotations} == {"p_1+cat": "p", "p_1+dog": "p", "p_2": "p"}


def test_empty_boxes_stay_entries(tmp_path):
    path = written(tmp_path, [other("a", gt_box=[]), other("b", gt_box=[5, 5, 5, 9]), other("c")])
    annotations = read_sslalign(path)
    assert [len(record.boxes) for record in annotations] == [1, 1, 1]
    assert not any(rasterize(annotations[clip].boxes[0]).any() for clip in "ab")
    assert annotations.report.without_box == ("a", "b")
    assert [(box.clip, box.values) for box in annotations.report.invalid] == [("b", (5, 5, 5, 9))]
    assert [record.clip for record in read_sslalign(path, "drop")] == ["c"]
    with pytest.raises(AnnotationError, match="no usable box: a"):
        read_sslalign(path, "error")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": ENTRY}, "a JSON list of entries, but got an object"),
        ([{"image": "a.jpg", "gt_box": []}], "entry 0: expected the keys image, audio, gt_box, but audio is missing"),
        ([ENTRY, other("a", gt_box="/masks/a.png")], "entry 1: .* a box, but got the path .*: this is a file of masks"),
        ([other("a", gt_box=[0, 0, 1])], "entry 0: expected 'gt_box' to be a list of 4 finite numbers"),
        ([other("a", gt_box=[0, 0, 640, 360])], "entry 0: expected boxes within the frame"),
        ([other("a", image="/x/..")], "entry 0: expected the file name of 'image' to be a clip id"),
        ([other("a", audio=3)], "entry 0: expected 'audio' to be a non-empty string"),
        ([ENTRY, ENTRY], "entry 1: expected each clip once, but 'dog_cat_7_dog.dog_cat_7_dog' is entry 0 too"),
    ],
)
def test_malformed_files(tmp_path, content, message):
    with pytest.raises(AnnotationError, match=message) as error:
        read_sslalign(written(tmp_path, content))
    assert "boxes.json" in str(error.value)


def test_sides(tmp_path):
    path = written(tmp_path, [other("a", gt_box=[0, 0, 50, 100])])
    assert read_sslalign(path, side=100)["a"].boxes == (((0.0, 0.0, 0.5, 1.0),),)
    for side in (0, 1 << 17):
        with pytest.raises(ValueError, match="`side`"):
            read_sslalign(path, side=side)
    with pytest.raises(TypeError, match="`side`"):
        read_sslalign(path, side=1.5)
