"""Names, colors and the key of the pictures of scenes."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
import torch
from avsl.data.folders import Clip
from avsl.evaluation.held_out import HeldOutScenes
from avsl.evaluation.legend import (
    SILENT_COLOR,
    add_key,
    assigned_maps,
    box_remarks,
    class_label,
    key_rows,
    map_titles,
    source_color,
    source_labels,
)
from avsl.evaluation.predict import Prediction

from .conftest import perfect


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("acoustic_guitar", "acoustic guitar"),
        ("alligators, crocodiles", "“alligators, crocodiles”"),
        ("alligators, crocodiles hissing", "“alligators, crocodiles …”"),
        ("a" * 30, "a" * 23 + "…"),
    ],
)
def test_class_names(name: str, label: str) -> None:
    assert class_label(name) == label


def test_sources_have_colors_of_their_own() -> None:
    assert len({source_color(number) for number in range(4)} | {SILENT_COLOR}) == 5
    assert source_color(4) == source_color(0)


def test_labels_of_all_frames(side_by_side: HeldOutScenes) -> None:
    assert source_labels(side_by_side, 0) == ["cello", "flute"]
    assert source_labels(side_by_side, 1) == ["flute", "cello"]


def test_a_source_without_a_usable_box_is_remarked(side_by_side: HeldOutScenes) -> None:
    boxes = [(((0.0, 0.0, 0.4, 1.0),), ((1.2, 0.0, 1.6, 1.0), (0.5, 0.5, 0.5, 0.9))), (((0.1, 0.1, 0.9, 0.9),), ())]
    test = side_by_side._replace(test=side_by_side.test._replace(boxes=boxes))
    assert box_remarks(test, 0) == ["flute: no usable box"]
    assert box_remarks(test, 1) == ["cello: no usable box"]
    assert box_remarks(side_by_side, 0) == []


def test_maps_are_assigned_to_the_sources_that_they_cover(held_out: dict[str, HeldOutScenes]) -> None:
    duet = held_out["duet"]
    maps = perfect(duet).maps.flip(1)
    extra = torch.cat([maps, torch.zeros_like(maps[:, :1])], dim=1)
    found = torch.ones(len(maps), 3, dtype=torch.bool)
    assert assigned_maps(duet, Prediction(maps.amax(1), extra, found), 0) == [1, 0]
    assert assigned_maps(duet, Prediction(maps.amax(1), maps, torch.tensor([[True, False]])), 0) == [-1, 0]
    assert assigned_maps(duet, Prediction(maps.amax(1), maps, torch.tensor([[False, False]])), 0) == [-1, -1]


def test_maps_are_assigned_on_frames_side_by_side(side_by_side: HeldOutScenes) -> None:
    maps = torch.zeros(2, 2, 8, 16)
    maps[0, 0, :, 13:], maps[0, 1, :, :3] = 1, 1  # the right frame's box, then the left frame's
    maps[1, 0, :, 5:8], maps[1, 1, :, 8:11] = 1, 1
    prediction = Prediction(maps.amax(1), maps, torch.ones(2, 2, dtype=torch.bool))
    assert [assigned_maps(side_by_side, prediction, index) for index in (0, 1)] == [[1, 0], [0, 1]]


def test_titles_of_maps() -> None:
    assert map_titles(["cello", "tuba"], [1, 2], [True, True, True]) == [
        ("source 1: cello", 1),
        ("source 2: tuba", 2),
        ("map without a source", 0),
    ]
    assert map_titles(["cello", "tuba"], [1, -1], [False, True, False]) == [
        ("source 1: cello", 1),
        ("source 2: not found", -1),
        ("", -1),
    ]


def test_key() -> None:
    rows = key_rows(2, silent=True, missing=True)
    assert [color for color, _ in rows] == [source_color(0), source_color(1), SILENT_COLOR, ""]
    assert key_rows(1, silent=False, missing=False) == [(source_color(0), "box of source 1, which sounds")]
    figure, _ = plt.subplots(figsize=(8, 4), layout="constrained")
    add_key(figure, rows, "A note.")
    figure.canvas.draw()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [text for _, text in rows]
    assert "red is high" in legend.get_title().get_text()
    assert "A note." in legend.get_title().get_text().replace("\n", " ")
    box = legend.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    plt.close(figure)


def test_names_of_classes_of_a_clip(held_out: dict[str, HeldOutScenes]) -> None:
    solo = held_out["solo"]
    clips = [Clip(clip.name, ("male speech, man speaking",)) for clip in solo.test.clips]
    assert source_labels(solo._replace(test=solo.test._replace(clips=clips)), 0) == ["“male speech, man …”"]
