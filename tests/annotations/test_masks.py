"""Folders of masks: forms of values, order of frames, and files that cannot be interpreted."""

import importlib

import numpy as np
import pytest
import torch
from PIL import Image

from sslosses.annotations import AnnotationError, read_masks

module = importlib.import_module("sslosses.annotations.masks")
PATTERN = np.array([[0, 1, 1], [0, 0, 1]], np.uint8)


def save(path, pixels, mode="L", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(pixels, np.uint8))
    if mode == "P":
        image = image.copy()
        image.putpalette([255, 255, 255, *range(1, 256), *range(255), *range(255)])  # white for 0: colors do not count
    elif mode == "1":
        image = image.point(lambda v: 255 * (v > 0)).convert("1")
    elif mode != "L":
        image = image.convert(mode)
    image.save(path, **options)


def only(folder, **options):
    (clip,) = read_masks(folder, **options)
    return clip


@pytest.mark.parametrize(("factor", "mode"), [(1, "L"), (255, "L"), (1, "P"), (255, "P"), (1, "1")])
def test_every_form_of_a_binary_mask(tmp_path, factor, mode):
    save(tmp_path / "v" / "v_1.png", factor * PATTERN, mode)
    save(tmp_path / "v" / "v_2.png", factor * (1 - PATTERN), mode)
    clip = only(tmp_path)
    assert clip.masks.dtype == torch.bool
    assert clip.masks.int().tolist() == [PATTERN.tolist(), (1 - PATTERN).tolist()]


def test_palettes_of_few_bits(tmp_path):
    save(tmp_path / "a.png", PATTERN, "P", bits=1)
    save(tmp_path / "b.png", 2 * PATTERN, "P", bits=2)
    assert [int(clip.masks.max()) for clip in read_masks(tmp_path, num_classes=3)] == [1, 2]


def test_frames_are_in_the_order_of_their_numbers_and_clips_sorted(tmp_path):
    for i in (10, 2, 1):
        save(tmp_path / "test" / "dog" / "b" / f"b_{i}.png", [[i % 2]])
    save(tmp_path / "test" / "cat" / "a" / "0.PNG", [[1]])
    save(tmp_path / "single.png", [[1]])
    (tmp_path / "._single.png").write_bytes(b"")
    (tmp_path / ".hidden").mkdir()
    save(tmp_path / ".hidden" / "x.png", [[1]])
    (tmp_path / "test" / "dog" / "notes.txt").write_text("no mask")
    folder = read_masks(tmp_path)
    assert folder.clips == ("a", "b", "single")
    assert len(folder) == 3
    assert "b" in folder
    assert [clip.files for clip in folder] == [("0.PNG",), ("b_1.png", "b_2.png", "b_10.png"), ("single.png",)]
    assert folder.read("b").masks.flatten().tolist() == [True, False, False]


def test_masks_in_a_subfolder(tmp_path):
    save(tmp_path / "v2" / "x" / "labels_semantic" / "0.png", [[3]])
    save(tmp_path / "v2" / "x" / "labels_rgb" / "0.png", [[3]], "RGB")
    clip = only(tmp_path, num_classes=4, subfolder="labels_semantic")
    assert (clip.clip, clip.masks.tolist(), clip.masks.dtype) == ("x", [[[3]]], torch.uint8)
    with pytest.raises(FileNotFoundError, match="holds none in folders masks"):
        read_masks(tmp_path, subfolder="masks")


def test_masks_are_read_one_clip_at_a_time(tmp_path, monkeypatch):
    for name in "abc":
        save(tmp_path / f"{name}.png", [[1]])
    read, pixels = [], module._pixels
    monkeypatch.setattr(module, "_pixels", lambda path: read.append(path.stem) or pixels(path))
    clips = iter(module.read_masks(tmp_path))
    assert read == []
    next(clips)
    assert read == ["a"]


@pytest.mark.parametrize(("values", "shown"), [([0, 3, 7], "0, 3, 7"), ([0, 1, 255], "0, 1, 255"), ([128], "128")])
def test_other_values_are_refused_or_foreground(tmp_path, values, shown):
    save(tmp_path / "v" / "1.png", [values], "P")
    with pytest.raises(AnnotationError, match=f"1.png: expected a mask of 0 and 1, or .* but got the values {shown}"):
        only(tmp_path)
    assert only(tmp_path, other_values="foreground").masks.tolist() == [[[v > 0 for v in values]]]


def test_class_ids_beyond_the_classes(tmp_path):
    save(tmp_path / "1.png", [[0, 70, 255, 93]])
    with pytest.raises(AnnotationError, match=r"1\.png: expected class ids from 0 to 70, but got 93, 255"):
        only(tmp_path, num_classes=71)
    with pytest.raises(AnnotationError, match="from 0 to 70, or 255, but got 93"):
        only(tmp_path, num_classes=71, ignore_index=255)
    assert only(tmp_path, num_classes=94, ignore_index=255).masks.tolist() == [[[0, 70, 255, 93]]]


def test_sizes_of_a_clip_have_to_agree(tmp_path):
    save(tmp_path / "v" / "1.png", PATTERN)
    save(tmp_path / "v" / "2.png", PATTERN.T)
    with pytest.raises(AnnotationError, match=r"2.png: expected a mask of 2 × 3, as 1.png has, but got 3 × 2"):
        only(tmp_path)


def test_a_clip_twice(tmp_path):
    for category in ("cat", "dog"):
        save(tmp_path / category / "v" / "1.png", PATTERN)
    with pytest.raises(AnnotationError, match=r"dog.v: expected each clip once, but v is also in .*cat.v"):
        read_masks(tmp_path)


def chunked(depth, kind, side=1):
    """The beginning of a PNG file."""
    size = side.to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + size + size + bytes([depth, kind, 0, 0, 0])


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "it is not a PNG file"),
        (b"\xff\xd8\xff" + bytes(40), "it is not a PNG file"),
        (chunked(8, 2), "gray mask of 1 or 8 bits or one with a palette, but got RGB"),
        (chunked(16, 0), "but got gray of 16 bits"),
        (chunked(4, 0), "but got gray of 4 bits"),
        (chunked(8, 6), "but got RGB with transparency"),
        (chunked(8, 0, 1 << 20), "mask of 1 to 67,108,864 pixels"),
        (chunked(8, 0, 0), "mask of 1 to 67,108,864 pixels"),
        (chunked(8, 0), "it cannot be read"),
    ],
)
def test_files_that_are_no_masks(tmp_path, content, match):
    (tmp_path / "1.png").write_bytes(content)
    with pytest.raises(AnnotationError, match=rf"1\.png: expected a.*{match}"):
        only(tmp_path)


def test_folders_without_masks(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        read_masks(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="holds none"):
        read_masks(tmp_path)
    (tmp_path / "1.png").mkdir()
    with pytest.raises(FileNotFoundError, match="holds none"):
        read_masks(tmp_path)


def test_wrong_options(tmp_path):
    with pytest.raises(ValueError, match="`num_classes`"):
        read_masks(tmp_path, num_classes=0)
    with pytest.raises(ValueError, match="`ignore_index` to be None without `num_classes`, but got 255"):
        read_masks(tmp_path, ignore_index=255)
    with pytest.raises(ValueError, match="`ignore_index` to be an integer >= 3, but got 2"):
        read_masks(tmp_path, num_classes=3, ignore_index=2)
    with pytest.raises(ValueError, match="`other_values`"):
        read_masks(tmp_path, other_values="ignore")
    with pytest.raises(TypeError, match="`subfolder`"):
        read_masks(tmp_path, subfolder=3)
