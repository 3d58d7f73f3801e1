"""The picture sheet: the frames behind the maps, the lines above them, and the key."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from sslosses.annotations import Annotations, Record, Report
from sslosses.evaluate import sheet
from sslosses.evaluate.benchmark import Benchmark
from sslosses.evaluate.saved_maps import SavedMaps
from sslosses.metrics import protocols
from sslosses.metrics.layout import FrameLayout


@pytest.mark.parametrize("sixteen_bits", [False, True])
def test_frames_are_upright_and_keep_their_gray_levels(tmp_path: Path, sixteen_bits: bool) -> None:
    gray = np.repeat(np.array([[40, 200], [120, 250]]), 16, 0).repeat(16, 1)
    picture = Image.fromarray((gray * 257).astype(np.uint16) if sixteen_bits else gray.astype(np.uint8))
    orientation = Image.Exif()
    orientation[0x0112] = 6  # to be turned by a quarter
    picture.save(tmp_path / "a.png", exif=orientation)
    shown = sheet._picture(tmp_path, "a", 32)
    assert shown is not None
    assert np.array_equal(shown, np.rot90(gray, -1))


def panel(title: str, *, masks: tuple[bool, ...], names: tuple[str, ...] = ("cello", "tuba")) -> sheet.Panel:
    empty, full = torch.zeros(8, 8), torch.ones(8, 8)
    truths = zip(("lime", "deepskyblue"), names, (full if used else empty for used in masks), strict=False)
    return sheet.Panel(title, None, full, [sheet.Outline(*truth) for truth in truths])


def test_a_clip_says_which_source_has_no_usable_ground_truth() -> None:
    panels = [panel("map 1 of 2", masks=(True, False)), panel("map 2 of 2", masks=(True, False))]
    assert sheet.clip_lines("worst", 0.02, "M1P1", panels) == ["worst: AUC 2 %", "M1P1", "tuba: no usable ground truth"]
    assert sheet.clip_lines("best", -1.0, "M1P1", []) == ["best: no entry", "M1P1"]


def test_the_key_has_the_colors_that_are_drawn() -> None:
    assert sheet.key_lines([panel("", masks=(True, False))]) == [("lime", "ground truth of source 1")]
    assert sheet.key_lines([panel("", masks=(False, True))]) == [("deepskyblue", "ground truth of source 2")]
    both = sheet.key_lines([panel("", masks=(False, True)), panel("", masks=(True, False))])
    assert [text for _, text in both] == ["ground truth of source 1", "ground truth of source 2"]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("acoustic_guitar", "acoustic guitar"),
        ("penguins braying, a", "“penguins braying, a”"),
        ("alligators, crocodiles, hissing", "“alligators, crocodiles, h…”"),
        ("a" * 30, "a" * 25 + "…"),
    ],
)
def test_class_names_are_short_and_those_with_commas_are_quoted(name: str, label: str) -> None:
    assert sheet.class_label(name) == label


def test_a_source_without_a_map_and_an_empty_box_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = (((0.0, 0.0, 0.5, 1.0),), ((0.7, 0.2, 0.7, 0.9),))
    record = Record("clip", ("cello", "penguins, braying"), boxes)
    np.savez(tmp_path / "maps.npz", clip=np.random.default_rng(0).random((1, 7, 7)).astype(np.float32))
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    annotations = Annotations((record,), Report(Path("boxes.json"), entries=1, boxes=2))
    benchmark = Benchmark(annotations, (record,), "mixtures", FrameLayout())
    with SavedMaps(tmp_path / "maps.npz") as saved:
        sheet.draw(
            tmp_path / "sheet.png",
            [("clip", 0.25)],
            saved,
            benchmark,
            protocols.paper,
            missing=(),
            frames=None,
            per_group=1,
        )
    (figure,) = drawn
    first, second = figure.axes[:2]
    lines = "best: AUC 25 %\nclip\n“penguins, braying”: no usable ground truth\nmap 1 of 2"
    assert [axis.get_title(loc="left") for axis in (first, second)] == [lines, "map 2 of 2"]
    assert [text.get_text() for text in first.texts] == ["cello"]
    assert "no map" in [text.get_text() for text in second.texts]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["ground truth of source 1"]
    assert "red is high" in legend.get_title().get_text()
    figure.canvas.draw()
    assert first.get_window_extent().width >= 200
