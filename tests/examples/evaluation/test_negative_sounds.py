"""Negative sounds of test scenes: what is heard, which scenes estimate the threshold, and what is scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from avsl.data.folders import Clip, ListedScenes
from avsl.data.scenes import Scenes
from avsl.evaluation.held_out import HeldOutScenes, SilentObjects
from avsl.evaluation.negative_sounds import negative_sound_scores, offscreen_clips
from torch import Tensor

LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
NAMES = ("a", "b", "c", "d", "e")
CLASSES = ("cello", "flute", "cello", "tuba", "flute")


class Ear:
    """A model whose map is 1.5 on the left half for the sounds of clips, and constant for other sounds.

    The constants are the level of the sound: 0 for silence, and about 1 for noise with variance 1.
    """

    device, training = torch.device("cpu"), False

    def __init__(self) -> None:
        self.heard: list[Tensor] = []

    def eval(self) -> None:
        self.training = False

    def train(self, mode: bool) -> None:
        self.training = mode

    def encode(self, frames: Tensor, waveforms: Tensor) -> tuple[int, Tensor]:
        assert len(frames) == len(waveforms)
        self.heard += list(waveforms)
        return frames.shape[-1] // 32, waveforms

    def sound_map(self, encoded: tuple[int, Tensor]) -> Tensor:
        frames, waveforms = encoded
        level = waveforms.square().mean(1).sqrt()
        maps = level[:, None, None].repeat(1, 4, frames * 224)  # as wide as the ground truth: edges stay sharp
        clip = (level > 0.1) & (level < 0.9)
        maps[clip], maps[clip, :, : frames * 112] = 0.0, 1.5
        return maps


def scenes_of(music: Path, scenes: list[tuple[int, ...]], silent: list[SilentObjects] | None = None) -> HeldOutScenes:
    clips = [Clip(name, (kind,)) for name, kind in zip(NAMES, CLASSES, strict=True)]
    boxes = [((LEFT,),) * len(scene) for scene in scenes]
    return HeldOutScenes("single", Scenes(music, NAMES, 32), ListedScenes(clips, scenes, boxes), silent or [])


def scores(model: Any, held_out: HeldOutScenes, **options: Any) -> Any:
    return negative_sound_scores(model, held_out, **{"oracle": False, "seed": 0} | options)


def test_offscreen_sounds_are_of_no_class_in_sight(music: Path) -> None:
    test = scenes_of(music, [(i,) for i in range(5)] * 40)
    drawn = offscreen_clips(test, seed=0)
    assert all(CLASSES[clip] != CLASSES[scene % 5] for scene, clip in enumerate(drawn))
    assert {clip for scene, clip in enumerate(drawn) if CLASSES[scene % 5] == "cello"} == {1, 3, 4}
    # a class is drawn first: the one tuba about as often as both flutes together
    tubas = [CLASSES[clip] == "tuba" for scene, clip in enumerate(drawn) if CLASSES[scene % 5] == "cello"]
    assert 0.35 < sum(tubas) / len(tubas) < 0.65
    assert drawn == offscreen_clips(test, seed=0) != offscreen_clips(test, seed=1)
    flute = [SilentObjects((RIGHT,), ("flute",))] * 5
    seen = offscreen_clips(scenes_of(music, [(0,), (3,), (0, 3)], flute), seed=0)
    assert [None if clip is None else CLASSES[clip] for clip in seen] == ["tuba", "cello", None]


def test_a_model_that_hears_noise_but_not_silence(music: Path) -> None:
    test = scenes_of(music, [(i % 5,) for i in range(10)])
    found = scores(Ear(), test)
    assert (found.estimated, found.scored, found.left_out) == (2, 8, 0)
    # maxima of two scenes: 0, 0, about 1, about 1, 1.5, 1.5; the third quartile is three quarters between 1 and 1.5
    assert found.threshold == pytest.approx(1.375, abs=0.01)
    metrics = found.result.metrics
    assert (metrics["CIoU_U"], metrics["pIA silence"], metrics["pIA noise"]) == (1, 0, 0)
    assert metrics["pIA offscreen"] == pytest.approx(0.5)  # the left half, whatever sounds
    assert (metrics["IoU own+offscreen"], metrics["IoU own+silence"]) == (1, 0)
    assert found.result.counts == {"entries": 8}
    assert found.maxima == pytest.approx({"own": 1.5, "silence": 0, "noise": 1, "offscreen": 1.5}, abs=0.01)
    assert "Mean maximum of the maps: own 1.500, silence 0.000, noise 1.00" in str(found)
    assert "8 scenes; threshold 1.37" in str(found)
    assert "maxima under negative sounds in 2 other scenes" in str(found)


def test_scenes_that_estimate_the_threshold_are_not_scored(music: Path) -> None:
    scenes = [(i % 5,) for i in range(10)]
    plain, oracle = Ear(), Ear()
    found, known = scores(plain, scenes_of(music, scenes)), scores(oracle, scenes_of(music, scenes), oracle=True)
    first, rest = plain.heard[: 2 * 4], plain.heard[2 * 4 :]
    own = Scenes(music, NAMES, 32)
    assert [torch.equal(first[i], own[0].waveform) for i in range(2)] == [True, True]  # scenes 0 and 5
    assert [torch.equal(a, own[i].waveform) for a, i in zip(rest, (1, 2, 3, 4, 1, 2, 3, 4), strict=False)] == [True] * 8
    assert len(oracle.heard) == 10 * 4
    assert (known.estimated, known.scored) == (10, 10)
    assert (found.result.label, known.result.label) == ("negative sounds", "negative sounds (oracle)")
    assert "in the scored scenes (oracle)" in str(known)


def test_noise_depends_on_the_seed_and_the_scene_alone(music: Path) -> None:
    test = scenes_of(music, [(i % 5,) for i in range(6)])
    heard = []
    for options in ({"batch_size": 1}, {"batch_size": 4}, {"seed": 1}):
        model = Ear()
        scores(model, test, oracle=True, **options)
        heard.append(sorted(round(float(w.sum()), 2) for w in model.heard if w.std() > 0.9))
    assert heard[0] == heard[1] != heard[2]
    assert len(set(heard[0])) == 6
    silent = [w for w in model.heard if not w.any()]
    assert len(silent) == 6


def test_frames_side_by_side(music: Path) -> None:
    test = scenes_of(music, [(0, 2), (0, 2), (0, 2)])
    boxes = [((LEFT,), (RIGHT,))] * 3
    test = test._replace(test=test.test._replace(boxes=boxes))
    found = scores(Ear(), test)
    # the map marks the left frame, the ground truth is half of it and half of the other frame
    assert found.result.metrics["CIoU_U"] == pytest.approx(1 / 3)


def test_scenes_without_a_sound_from_out_of_sight(music: Path, caplog: pytest.LogCaptureFixture) -> None:
    everything = [SilentObjects((RIGHT,), ("flute",)), *[SilentObjects((RIGHT, RIGHT), ("flute", "tuba"))] * 4]
    test = scenes_of(music, [(0,), (2,)], everything)
    assert scores(Ear(), test) is None
    assert "single has no negative sounds: every sound has a class that is in sight, in all scenes but 1" in caplog.text
    found = scores(Ear(), scenes_of(music, [(0,), (2,), (0,)], everything))
    assert (found.estimated, found.scored, found.left_out) == (1, 1, 1)
    assert "; 1 scenes without a sound from out of sight left out" in str(found)
