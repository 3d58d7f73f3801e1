"""VGGSound folders: single clips, and mixtures of several."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from avsl.data.folders import Clip
from avsl.data.vggsound import VggsoundFolder

from ..conftest import write_clip

BOXES = {"a": [[0, 0, 0.5, 1]], "b": [[0.5, 0, 1, 1], [0, 0, 0.1, 0.1]], "c": [[0, 0.5, 1, 1]]}
LABELS = {"a": "elk bugling", "b": "female speech, woman speaking", "c": "playing cello"}


@pytest.fixture
def folder(tmp_path: Path) -> VggsoundFolder:
    rng = np.random.default_rng(0)
    for name in BOXES:
        write_clip(tmp_path, name, rng)
    metadata = tmp_path / "metadata"
    metadata.mkdir()
    plain = {name: label.replace(",", "").replace(" ", "_") for name, label in LABELS.items()}
    entries = [{"file": name, "class": LABELS[name], "bbox": boxes} for name, boxes in BOXES.items()]
    (metadata / "vggss.json").write_text(json.dumps(entries))
    lines = "".join(f"{name},{label}\n" for name, label in plain.items())
    (metadata / "vggsound_train.csv").write_text(lines)
    (metadata / "vggsound_single_test.csv").write_text(lines)
    pairs = [("c", "a"), ("a", "b")]
    (metadata / "vggsound_duet_test.csv").write_text("".join(f"{x},{plain[x]},{y},{plain[y]}\n" for x, y in pairs))
    captions = [{"id": n, "foreground": f"an image of {n}", "background": "an image of a wall"} for n in BOXES]
    (metadata / "captions.jsonl").write_text("".join(json.dumps(c) + "\n" for c in captions))
    return VggsoundFolder(tmp_path)


@pytest.mark.parametrize(("subset", "size"), [("single", 1), ("duet", 2), ("trio", 3)])
def test_training(folder: VggsoundFolder, subset: str, size: int) -> None:
    clips, number = folder.training_pool(subset)
    assert number == size
    assert clips[0] == Clip("a", ("elk_bugling",), ("an image of a",), "an image of a wall")
    assert [c.name for c in clips] == ["a", "b", "c"]


def test_single_clips(folder: VggsoundFolder) -> None:
    clips, scenes, boxes = folder.test_scenes("single")
    assert [(c.name, c.classes) for c in clips] == [(n, (LABELS[n],)) for n in BOXES]
    assert scenes == [(0,), (1,), (2,)]
    assert boxes[1] == (((0.5, 0, 1, 1), (0, 0, 0.1, 0.1)),)


def test_mixtures_name_each_clip_once(folder: VggsoundFolder) -> None:
    clips, scenes, boxes = folder.test_scenes("duet")
    assert [c.name for c in clips] == ["c", "a", "b"]
    assert scenes == [(0, 1), (1, 2)]
    assert boxes[0] == (((0, 0.5, 1, 1),), ((0, 0, 0.5, 1),))


def test_a_list_that_is_not_there(folder: VggsoundFolder) -> None:
    with pytest.raises(FileNotFoundError, match=r"vggsound_trio_test\.csv, one of the public lists.*links\.md"):
        folder.test_scenes("trio")


def test_a_clip_without_boxes(folder: VggsoundFolder) -> None:
    (folder.root / "metadata" / "vggsound_single_test.csv").write_text("a,elk_bugling\nz,elk_bugling\n")
    with pytest.raises(ValueError, match=r"'z' of vggsound_single_test\.csv is not in vggss\.json"):
        folder.test_scenes("single")


@pytest.mark.parametrize("line", ["b", "b,", ",x", "a,playing cello", "../b,x"])
def test_a_malformed_line(folder: VggsoundFolder, line: str) -> None:
    (folder.root / "metadata" / "vggsound_train.csv").write_text(f"a,elk_bugling\n{line}\n")
    with pytest.raises(ValueError, match=r"line 2 of .*vggsound_train\.csv"):
        folder.training_pool("single")


def test_a_class_with_commas(folder: VggsoundFolder) -> None:
    (folder.root / "metadata" / "vggsound_train.csv").write_text('a,"race car, auto racing"\nb,race car, auto racing\n')
    assert {clip.classes for clip in folder.training_pool("single").clips} == {("race car, auto racing",)}
