"""Metrics of known maps, and the files of a report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from avsl.data.folders import Clip, ListedScenes
from avsl.data.music import MusicFolder
from avsl.data.scenes import Scenes
from avsl.evaluation.predict import HeldOutScenes, Prediction, SilentObjects, chance, load_held_out, masks, score
from avsl.evaluation.report import draw_sheet, markdown_table, rich_table, write_report
from PIL import Image
from rich.console import Console

SILENT = {
    "d": [{"class": "cello", "bbox": [0.625, 0.0, 0.375, 1.0]}, {"class": "chair", "bbox": [0.375, 0.0, 0.25, 1.0]}],
    "e": [{"class": "flute", "bbox": [0.0, 0.0, 0.1, 0.1]}],
}


@pytest.fixture
def held_out(music: Path) -> dict[str, HeldOutScenes]:
    (music / "metadata" / "silent_objects.json").write_text(json.dumps(SILENT))
    return {subset: load_held_out(MusicFolder(music), subset, 32) for subset in ("solo", "duet")}


def perfect(test: HeldOutScenes) -> Prediction:
    maps = torch.stack([masks(boxes) for boxes in test.test.boxes]).float()
    return Prediction(maps.amax(1), maps, torch.ones(maps.shape[:2], dtype=torch.bool))


def test_loading(held_out: dict[str, HeldOutScenes]) -> None:
    solo, duet = held_out["solo"], held_out["duet"]
    assert (solo.task, solo.sources, solo.layout) == ("single", 1, "one")
    assert (duet.task, duet.sources, duet.layout) == ("mixtures", 2, "one")
    (left,), (first, right) = masks(solo.test.boxes[0]), masks(duet.test.boxes[0])
    assert left[:, :84].all()
    assert not left[:, 84:].any()
    assert torch.equal(first, left)
    assert torch.equal(right, left.flip(1))
    assert solo.silent[0].classes == ("cello", "chair")
    assert [int(m.sum()) for m in masks([[b] for b in solo.silent[0].boxes])] == [224 * 84, 224 * 56]


def test_boxes_of_silent_objects_are_not_needed(music: Path) -> None:
    test = load_held_out(MusicFolder(music), "solo", 32)
    assert test.silent == []
    assert not any(">" in name for name in score(test, perfect(test)))


def test_perfect_maps(held_out: dict[str, HeldOutScenes]) -> None:
    """The boxes are less than half of the frame, so upper-median binarization gives them back."""
    assert score(held_out["solo"], perfect(held_out["solo"])) == {
        "solo AP": 100,
        "solo IoU@0.5": 100,
        "solo AUC": 100,
        "solo without map": 0,
        "solo > silent": 100,
        "solo > twin": 100,
    }
    metrics = score(held_out["duet"], perfect(held_out["duet"]))
    assert [metrics[f"duet {name}"] for name in ("CAP", "CIoU@0.3", "AUC")] == [100, 100, 100]


def test_maps_on_the_silent_side(held_out: dict[str, HeldOutScenes]) -> None:
    solo = held_out["solo"]
    wrong = perfect(solo)
    wrong = wrong._replace(sound=wrong.sound.flip(2), maps=wrong.maps.flip(3))
    metrics = score(solo, wrong)
    assert [metrics[f"solo {name}"] for name in ("IoU@0.5", "> silent", "> twin")] == [0, 25, 0]  # the chair ties
    assert metrics["solo AP"] <= 50


def test_twins_are_counted_apart(held_out: dict[str, HeldOutScenes]) -> None:
    solo = held_out["solo"]
    prediction = perfect(solo)
    on_the_chair = prediction._replace(sound=prediction.sound + 2 * masks([[solo.silent[0].boxes[1]]])[0])
    metrics = score(solo, on_the_chair)
    assert (metrics["solo > silent"], metrics["solo > twin"]) == (50, 100)


def test_mixed_up_and_missing_maps(held_out: dict[str, HeldOutScenes]) -> None:
    duet = held_out["duet"]
    right = perfect(duet)
    swapped = right._replace(maps=right.maps.flip(1))
    assert score(duet, swapped) == score(duet, right)
    one = right._replace(valid=torch.tensor([[True, False]]))
    assert score(duet, one)["duet CIoU@0.3"] == 50
    none = score(duet, right._replace(valid=torch.tensor([[False, False]])))
    assert (none["duet without map"], none["duet CIoU@0.3"] > 0) == (1, False)


@pytest.fixture
def side_by_side(held_out: dict[str, HeldOutScenes]) -> HeldOutScenes:
    """Two clips in one scene: one with boxes left, the other with boxes right; a silent twin on the other side."""
    solo, left, right = held_out["solo"], (0.0, 0.0, 0.375, 1.0), (0.625, 0.0, 1.0, 1.0)
    clips = [Clip("d", ("cello",)), Clip("e", ("flute",))]
    silent = [SilentObjects((right,), ("cello",)), SilentObjects((left,), ("flute",))]
    scenes = Scenes(solo.scenes._frames.parent, ["d", "e"], 32)
    return HeldOutScenes(
        "duet", scenes, ListedScenes(clips, [(0, 1), (1, 0)], [((left,), (right,)), ((right,), (left,))]), silent
    )


def test_perfect_maps_of_frames_side_by_side(side_by_side: HeldOutScenes) -> None:
    left, right = (masks([[box]])[0].float() for box in ((0, 0, 0.375, 1), (0.625, 0, 1, 1)))
    nothing = torch.zeros_like(left)
    first = torch.stack([torch.cat([left, nothing], 1), torch.cat([nothing, right], 1)])
    second = torch.stack([torch.cat([right, nothing], 1), torch.cat([nothing, left], 1)])
    maps = torch.stack([first, second])
    perfect_ = Prediction(maps.amax(1), maps, torch.ones(2, 2, dtype=torch.bool))
    metrics = score(side_by_side, perfect_)
    assert (side_by_side.task, side_by_side.layout) == ("mixtures", "side-by-side")
    assert [metrics[f"duet {n}"] for n in ("CAP", "CIoU@0.3", "AUC", "> silent", "> twin")] == [100] * 5
    mirrored = perfect_._replace(sound=perfect_.sound.flip(2), maps=maps.flip(3))
    assert [score(side_by_side, mirrored)[f"duet {n}"] for n in ("> silent", "> twin")] == [100, 100]
    exchanged = perfect_._replace(sound=perfect_.sound.flip(0), maps=maps.flip(0))
    wrong = score(side_by_side, exchanged)
    assert [wrong[f"duet {n}"] for n in ("CIoU@0.3", "> silent", "> twin")] == [0, 0, 0]
    levels = chance(side_by_side, (7, 7))
    assert levels["whole frame"]["duet > silent"] == levels["centered Gaussian"]["duet > twin"] == 50


def test_a_sheet_of_frames_side_by_side(side_by_side: HeldOutScenes, tmp_path: Path) -> None:
    path, heat = tmp_path / "sheet.png", torch.rand(2, 7, 14)
    draw_sheet(path, [(side_by_side, Prediction(heat, heat[:, None].expand(-1, 2, -1, -1), torch.ones(2, 2) > 0))])
    with Image.open(path) as image:
        assert image.width > 3 * image.height


@pytest.mark.parametrize("subset", ["solo", "duet"])
def test_perfect_maps_are_ahead_of_chance(held_out: dict[str, HeldOutScenes], subset: str) -> None:
    test = held_out[subset]
    levels = chance(test, (7, 7))
    assert set(levels) == {"centered Gaussian", "whole frame", "random maps"}
    metrics = score(test, perfect(test))
    for row in levels.values():
        assert set(row) == {name for name in metrics if "without" not in name}
        for name in row:
            if ">" not in name:
                assert metrics[name] >= row[name], name
        assert sum(metrics[n] - row[n] for n in row if ">" not in n) > 50
    assert levels["whole frame"][f"{subset} > silent"] == 50
    assert chance(test, (7, 7)) == levels
    assert chance(test, (7, 7), seed=1)["random maps"] != levels["random maps"]


ROWS = {
    "trained": {"solo AP": 61.25, "solo AUC": 30.0, "solo without map": 0.0},
    "untrained": {"solo AP": 40.0, "solo AUC": 31.04, "solo without map": 0.0},
    "chance": {"solo AP": 50.0, "solo AUC": 10.0},
}


def test_markdown_table() -> None:
    assert markdown_table(ROWS).splitlines() == [
        "| % | trained | untrained | chance |",
        "| --- | ---: | ---: | ---: |",
        "| solo AP | 61.2 | 40.0 | 50.0 |",
        "| solo AUC | 30.0 | 31.0 | 10.0 |",
    ]


def test_terminal_table() -> None:
    console = Console(width=100, record=True)
    with console.capture() as capture:
        console.print(rich_table(ROWS, "a title"))
    text = capture.get()
    assert "a title" in text
    assert text.index("61.2") < text.index("30.0")
    bold = [str(cell) for column in rich_table(ROWS, "").columns for cell in column.cells if "[bold]" in str(cell)]
    assert bold == ["[bold]61.2[/]"]


def test_report_files(tmp_path: Path) -> None:
    write_report(tmp_path, ROWS, {"training": 1.5})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"percent": ROWS, "seconds": {"training": 1.5}}
    assert (tmp_path / "table.md").read_text() == markdown_table(ROWS)


def test_sheet(held_out: dict[str, HeldOutScenes], tmp_path: Path) -> None:
    duet = perfect(held_out["duet"])._replace(valid=torch.tensor([[True, False]]))
    path = tmp_path / "sheet.png"
    draw_sheet(path, [(held_out["solo"], perfect(held_out["solo"])), (held_out["duet"], duet)])
    assert [p.name for p in tmp_path.glob("*.png")] == ["sheet.png"]
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert image.width > image.height > 50
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).view(-1, 3).int()
    for box in ((0, 255, 0), (255, 0, 0)):  # of sounding and of silent objects
        assert ((pixels - torch.tensor(box)).abs().amax(1) < 40).sum() > 20
