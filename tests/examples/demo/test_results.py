"""What the model finds in uploads, and how it is drawn; without a page."""

from __future__ import annotations

import io
import re
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from avsl.demo.results import View, draw, identifications, localize_in_picture, localize_in_video, shown
from avsl.demo.scenes import SCENES, composed_scene
from avsl.localization.job import find_sources
from avsl.localization.user_files import as_frame, read_sound
from avsl.localization.video import localize_video
from avsl.model.localizer import Localizer
from avsl.pictures import read_picture
from PIL import Image

from .videos import write_video


@pytest.mark.parametrize(("asked", "text"), [(None, r"^\d sources? found"), (2, "^2 sources asked for, 2 found")])
def test_a_picture_as_the_command_does(
    model: Localizer, picture: Path, sound: Path, asked: int | None, text: str
) -> None:
    pixels, waveform = read_picture(picture), read_sound(sound)
    result = localize_in_picture(model, pixels, waveform, asked, "iterative")
    whole, sources = find_sources(model, as_frame(pixels, 64), waveform, asked)
    found = int(sources.valid.sum())
    assert [view.title for view in result.views] == ["The whole sound", *(f"Source {n + 1}" for n in range(found))]
    assert torch.equal(result.views[0].heat, whole)
    assert torch.equal(result.views[1].heat, sources.maps[0, 0])
    assert result.views[1].note == f"largest similarity {float(sources.peaks[0, 0]):.2f}"
    assert (result.views[0].low, result.views[0].high) == (float(whole.min()), float(whole.max()))
    assert not result.warning
    assert re.search(text, result.text)
    assert "“iterative”" in result.text


def test_the_way_of_identification_is_used(model: Localizer, picture: Path, sound: Path) -> None:
    names = identifications(model)
    assert names[0] == model.config.identification
    assert set(names) == set(model.method.identifications) - {"given"}
    pixels, waveform = read_picture(picture), read_sound(sound)
    heats = [localize_in_picture(model, pixels, waveform, 2, name).views[1].heat for name in names]
    assert not torch.equal(heats[0], heats[1])


def test_a_silent_sound_is_said_to_mean_nothing(model: Localizer, picture: Path) -> None:
    result = localize_in_picture(model, read_picture(picture), torch.zeros(48_000), 1, "iterative")
    assert result.warning == "The sound is silent or constant: its level is -inf dBFS. The maps mean nothing."


def test_a_video(model: Localizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avsl.demo.results.SHOWN_FRAMES", 2)
    path, out = write_video(tmp_path / "upload", count=12), tmp_path / "heat.mp4"
    result = localize_in_video(model, path, 12, out)
    video = localize_video(model, path, 5)
    assert [view.title for view in result.views] == ["0.0 s", "1.0 s"]
    assert torch.equal(result.views[1].heat, video.maps[2])
    brightness = [float(view.picture.mean()) for view in result.views]
    assert brightness == pytest.approx([60, 160], abs=4)  # of the frames 0 and 10
    assert {(view.low, view.high) for view in result.views} == {(float(video.maps.min()), float(video.maps.max()))}
    assert "3 maps, one for every 5 frames, and 2 of them below" in result.text
    with av.open(str(out)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 12


def test_a_long_video_gets_no_more_maps(model: Localizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avsl.demo.results.MOST_MAPS", 2)
    path = write_video(tmp_path / "upload", count=13)
    assert "2 maps, one for every 7 frames" in localize_in_video(model, path, 13, tmp_path / "heat.mp4").text


def drawn(threshold: float, opacity: float) -> np.ndarray:
    heat = torch.tensor([[2.0, 4.0, 6.0]]).repeat(3, 1)
    view = View("", np.full((90, 90, 3), 100, np.uint8), heat, 2.0, 6.0, "")
    return np.asarray(Image.open(io.BytesIO(draw(view, threshold, opacity)))).astype(int)


def changed(picture: np.ndarray) -> np.ndarray:
    """Which columns differ from the gray picture."""
    return abs(picture - 100).max(2).mean(0) > 8


def test_the_sliders() -> None:
    assert not changed(drawn(0, 0)).any()
    assert changed(drawn(0, 0.7))[30:].all()
    half = changed(drawn(0.5, 0.7))
    assert not half[:40].any()
    assert half[50:].all()
    assert abs(drawn(0, 1.0)[45, -5] - 100).max() > abs(drawn(0, 0.5)[45, -5] - 100).max() + 20


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1, 1), (448, 448)), ((4000, 2000), (800, 400)), ((500, 400), (500, 400)), ((1, 5000), (1, 800))],
)
def test_the_size_of_what_is_shown(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert shown(Image.new("RGB", size)).shape == (*expected[::-1], 3)


def test_composed_scenes() -> None:
    assert [composed_scene(number).sources for number in range(len(SCENES))] == [sources for sources, _ in SCENES]
    scene = composed_scene(2)
    assert scene.sounding.count(" and ") == 1
    composed_scene.cache_clear()
    assert composed_scene(2) == scene  # from its seed
    assert Image.open(io.BytesIO(scene.picture)).size == (448, 448)
    assert len({composed_scene(number).picture for number in range(len(SCENES))}) == len(SCENES)
