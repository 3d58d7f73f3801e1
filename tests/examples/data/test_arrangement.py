"""The objects of a scene, their places and states."""

from __future__ import annotations

import numpy as np
import pytest
from avsl.data.composed.arrangement import Scene, SceneObject, sample_scene
from avsl.data.composed.composer import DrawnSource

VOCABULARY = DrawnSource.vocabulary


def scenes(sources: int, count: int = 500) -> list[Scene]:
    return [sample_scene(np.random.default_rng([7, sources, i]), VOCABULARY, sources) for i in range(count)]


def twins(scene: Scene) -> list[tuple[SceneObject, SceneObject]]:
    return [(played, other) for played in scene.sounding for other in scene.silent if played.name == other.name]


def geometry(objects: list[SceneObject]) -> np.ndarray:
    """Area and center of every box."""
    x, y, w, h = np.array([o.box for o in objects]).T
    return np.stack([w * h, x + w / 2, y + h / 2], axis=1)


def test_the_vocabulary_has_seven_classes_that_sound_and_others_that_never_do() -> None:
    assert len(VOCABULARY.sounding) >= 7
    assert VOCABULARY.silent
    assert not VOCABULARY.silent.keys() & VOCABULARY.sounding.keys()


@pytest.mark.parametrize("sources", [1, 2])
def test_objects(sources: int) -> None:
    for scene in scenes(sources):
        sounding = [o.name for o in scene.sounding]
        assert len(set(sounding)) == len(sounding) == sources
        assert set(sounding) <= VOCABULARY.sounding.keys()
        assert scene.silent
        assert {o.name for o in scene.silent} <= VOCABULARY.sounding.keys() | VOCABULARY.silent.keys()


@pytest.mark.parametrize("sources", [1, 2])
def test_boxes_lie_inside_the_frame_and_apart(sources: int) -> None:
    for scene in scenes(sources):
        boxes = [(x, y, x + w, y + h) for x, y, w, h in (o.box for o in scene.objects)]
        for i, (left, top, right, bottom) in enumerate(boxes):
            assert 0 <= left < right <= 1
            assert 0 <= top < bottom <= 1
            assert (right - left) * (bottom - top) > 0.03
            for other in boxes[:i]:
                assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top


@pytest.mark.parametrize("sources", [1, 2])
def test_a_silent_twin_in_three_of_ten_scenes_or_more(sources: int) -> None:
    counts = np.array([len(twins(scene)) for scene in scenes(sources)])
    assert 0.3 <= (counts > 0).mean() <= 0.7
    assert counts.max() == 1


@pytest.mark.parametrize("sources", [1, 2])
def test_twins_have_the_size_and_position_of_what_is_played(sources: int) -> None:
    played, silent = zip(*(pair for scene in scenes(sources, 1000) for pair in twins(scene)), strict=True)
    played, silent = geometry(list(played)), geometry(list(silent))
    np.testing.assert_allclose(silent[:, 0].mean(), played[:, 0].mean(), rtol=0.05)
    np.testing.assert_allclose(silent[:, 1:].mean(0), played[:, 1:].mean(0), atol=0.05)
    np.testing.assert_allclose(silent[:, 1:].std(0), played[:, 1:].std(0), rtol=0.1)


@pytest.mark.parametrize(("sources", "objects"), [(1, 2), (2, 3)])
def test_all_silent_instruments_have_the_size_and_position_of_played_ones(sources: int, objects: int) -> None:
    """Where a scene has as many slots as usual: one slot cut in two gives smaller objects, which are always silent."""
    chosen = [scene for scene in scenes(sources) if len(scene.objects) == objects]
    assert len(chosen) > 250
    played = geometry([o for scene in chosen for o in scene.sounding])
    silent = geometry([o for scene in chosen for o in scene.silent if o.name in VOCABULARY.sounding])
    np.testing.assert_allclose(silent[:, 0].mean(), played[:, 0].mean(), rtol=0.1)
    np.testing.assert_allclose(silent[:, 1:].mean(0), played[:, 1:].mean(0), atol=0.05)


def test_a_scene_depends_on_the_generator_alone() -> None:
    assert scenes(2, 5) == scenes(2, 5)
    first, second = (sample_scene(np.random.default_rng(seed), VOCABULARY, 2) for seed in (0, 1))
    assert first != second
