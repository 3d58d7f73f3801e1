"""Maps of the identifications: against the library's functions, scene by scene, and against each other."""

from __future__ import annotations

import dataclasses
import json
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from avsl.config import IDENTIFICATIONS, ONE_MAP, TWO_WAYS, Config
from avsl.data.music import MusicFolder
from avsl.evaluation.held_out import HeldOutScenes, load_held_out
from avsl.evaluation.predict import Prediction, predict, predictions, usable_identifications
from avsl.model.encoders import Encoding
from avsl.model.localizer import Localizer
from torch import Tensor

from sslosses import cluster_objects, identify_objects, similarity_map

from ..conftest import TINY
from ..own_maps import OwnMaps

# With these thresholds, a model with random weights finds sources.
THRESHOLDS = {"peak_threshold": -1.0, "background_threshold": 1.0, "merge_threshold": 0.99}
MASKS = {"alpha_background": 0.2, "omega": 0.1}
CONFIG = Config(**TINY, workers=0, **THRESHOLDS, **MASKS)


def build(**changes: object) -> Localizer:
    torch.manual_seed(0)
    return Localizer(dataclasses.replace(CONFIG, **changes).as_dict(), 10).train()


@pytest.fixture
def model() -> Localizer:
    return build()


@pytest.fixture
def tests(music: Path) -> dict[str, HeldOutScenes]:
    """Three scenes per subset."""
    metadata, box = music / "metadata", [0.0, 0.0, 0.5, 1.0]
    (metadata / "music_solo_test.csv").write_text("d,cello\na,cello\nb,cello\n")
    (metadata / "music_solo.json").write_text(json.dumps([{"file": n, "class": "cello", "bbox": box} for n in "dab"]))
    (metadata / "music_duet_test.csv").write_text("e\nc\na\n")
    classes = {"class_src1": "cello", "bbox_src1": box, "class_src2": "flute", "bbox_src2": box}
    (metadata / "music_duet.json").write_text(json.dumps([{"file": n} | classes for n in "eca"]))
    return {subset: load_held_out(MusicFolder(music), subset, 64) for subset in ("solo", "duet")}


@torch.no_grad()
def scene_by_scene(model: Localizer, test: HeldOutScenes, identification: str, number: int | None) -> list[tuple]:
    """The map of the sound, and the maps of the sources that were found, of each scene on its own."""
    model.eval()
    results = []
    for scene in test.test.scenes:
        frame, waveform, _ = test.scenes[scene]
        visual, audio, *_ = model.encode(frame[None], waveform[None])
        visual = F.normalize(visual, dim=1)
        sound = similarity_map(visual, audio)
        if identification == "clustering":
            maps, valid, *_ = cluster_objects(visual, audio, num_sources=number)
        elif identification in ("repeat", "single"):
            maps = sound.expand(number or 1, -1, -1)[None]
            valid = torch.tensor([[identification == "repeat" or slot == 0 for slot in range(number or 1)]])
        elif test.task == "single":
            maps, valid = sound[:, None], torch.ones(1, 1, dtype=torch.bool)
        else:
            maps, valid, *_ = identify_objects(visual, audio, num_sources=number, **THRESHOLDS, **MASKS)
        results.append((maps[0, 0] if test.task == "single" else sound[0], maps[0][valid[0]]))
    model.train()
    return results


def agree(prediction: Prediction, expected: list[tuple[Tensor, Tensor]]) -> None:
    assert len(prediction.sound) == len(expected)
    for sound, maps, valid, (wanted_sound, wanted_maps) in zip(*prediction, expected, strict=True):
        torch.testing.assert_close(sound, wanted_sound, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(maps[valid], wanted_maps, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("method", "identification"), [*product(["object-aware"], TWO_WAYS), *product(["lvs"], ONE_MAP)]
)
@pytest.mark.parametrize("subset", ["solo", "duet"])
def test_maps_are_those_of_each_scene(
    tests: dict[str, HeldOutScenes], subset: str, method: str, identification: str, known: bool
) -> None:
    """A solo has one source, whether or not that is told."""
    model, test = build(method=method), tests[subset]
    number = {"solo": 1, "duet": 2 if known else None}[subset]
    prediction = predictions(model, test, [identification], batch_size=2, known=known)[identification]
    assert model.training
    agree(prediction, scene_by_scene(model, test, identification, number))
    assert not prediction.maps.requires_grad


@pytest.mark.parametrize("known", [True, False])
def test_a_solo_has_one_source_also_where_its_pixels_differ(
    model: Localizer, tests: dict[str, HeldOutScenes], known: bool
) -> None:
    """The left half of a frame has another feature than the right half: without the number, two would be found."""
    halves = torch.zeros(6, 8, 8)
    halves[0, :, :4], halves[1, :, 4:] = 1, 1
    sound = torch.tensor([1.0, 1, 0, 0, 0, 0])
    model.visual.encode = lambda frames: Encoding(frames, halves.expand(len(frames), -1, -1, -1))
    model.audio.encode = lambda sounds: Encoding(sounds, sound.expand(len(sounds), -1))
    solo, duet = (predictions(model, test, ["clustering"], known=known)["clustering"] for test in tests.values())
    assert duet.valid.sum(1).tolist() == [2, 2, 2]
    assert solo.valid.tolist() == [[True]] * 3


def test_both_at_once_are_each_alone(model: Localizer, tests: dict[str, HeldOutScenes]) -> None:
    for test in tests.values():
        calls: list[int] = []
        hook = model.audio.trunk.register_forward_hook(lambda _, inputs, __, calls=calls: calls.append(len(inputs[0])))
        both = predictions(model, test, TWO_WAYS, batch_size=2)
        hook.remove()
        assert calls == [2, 1]  # scenes are encoded once
        assert tuple(both) == TWO_WAYS
        for name, prediction in both.items():
            (alone,) = predictions(model, test, [name], batch_size=2).values()
            for ours, expected in zip(prediction, alone, strict=True):
                assert torch.equal(ours, expected)
        assert not torch.allclose(both["iterative"].maps, both["clustering"].maps)


@pytest.mark.parametrize("identification", TWO_WAYS)
def test_the_configuration_chooses(model: Localizer, tests: dict[str, HeldOutScenes], identification: str) -> None:
    model.config = dataclasses.replace(model.config, identification=identification)
    for test in tests.values():
        for ours, expected in zip(
            predict(model, test), predictions(model, test, TWO_WAYS)[identification], strict=True
        ):
            assert torch.equal(ours, expected)


def test_thresholds_are_those_of_the_configuration(model: Localizer, tests: dict[str, HeldOutScenes]) -> None:
    before = predictions(model, tests["duet"], TWO_WAYS)
    model.config = dataclasses.replace(model.config, merge_threshold=-1.0)  # everything is one source
    after = predictions(model, tests["duet"], TWO_WAYS, known=False)
    assert (after["iterative"].valid.sum(1) == 1).all()
    assert before["iterative"].valid.sum() > 3
    model.config = dataclasses.replace(model.config, alpha_background=0.1)
    again = predictions(model, tests["duet"], TWO_WAYS)
    assert torch.equal(again["clustering"].maps, before["clustering"].maps)


def own(classes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> Localizer:
    monkeypatch.setattr("avsl.model.localizer.method_class", lambda _: OwnMaps)
    torch.manual_seed(0)
    return Localizer(dataclasses.replace(CONFIG, method="lvs").as_dict(), 0, classes=classes)


@pytest.mark.parametrize("known", [True, False])
def test_given_classes_are_those_of_each_source(
    tests: dict[str, HeldOutScenes], monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """Of scenes in several batches; a class is known by its index among the classes of the training clips."""
    model = own(("bass", "cello", "drum", "flute"), monkeypatch)
    for subset, classes in (("solo", [1]), ("duet", [1, 3])):
        test = tests[subset]
        both = predictions(model, test, ("own", "given"), batch_size=2, known=known)
        trunks = [model.eval().visual.encode(test.scenes[scene].frame[None]).trunk[0] for scene in test.test.scenes]
        expected = torch.stack([trunk[classes] for trunk in trunks])
        torch.testing.assert_close(both["given"].maps, expected, atol=1e-4, rtol=1e-4)
        assert both["given"].valid.all()
        if subset == "solo":
            assert torch.equal(both["given"].sound, both["given"].maps[:, 0])
        assert not torch.allclose(both["own"].maps[:, : len(classes)], expected)


def test_given_classes_follow_their_scenes(
    music: Path, tests: dict[str, HeldOutScenes], monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = zip("dab", ("cello", "flute", "bass"), strict=True)
    entries = [{"file": name, "class": kind, "bbox": [0.0, 0.0, 0.5, 1.0]} for name, kind in classes]
    (music / "metadata" / "music_solo.json").write_text(json.dumps(entries))
    test, model = load_held_out(MusicFolder(music), "solo", 64), own(("bass", "cello", "flute"), monkeypatch)
    prediction = predictions(model, test, ("given",), batch_size=2)["given"]
    for scene, index, maps in zip(test.test.scenes, (1, 2, 0), prediction.maps, strict=True):
        trunk = model.eval().visual.encode(test.scenes[scene].frame[None]).trunk[0]
        torch.testing.assert_close(maps[0], trunk[index], atol=1e-4, rtol=1e-4)


def test_a_class_that_no_training_clip_has(tests: dict[str, HeldOutScenes], monkeypatch: pytest.MonkeyPatch) -> None:
    model = own(("bass", "cello"), monkeypatch)
    message = "the sources of duet to have classes of training clips for the identification given, but one has 'flute'"
    predictions(model, tests["solo"], ("given",))
    with pytest.raises(ValueError, match=message):
        predictions(model, tests["duet"], ("own", "given"))
    predictions(model, tests["duet"], ("own",))


def test_slots_of_scenes_with_fewer_sources(model: Localizer, tests: dict[str, HeldOutScenes]) -> None:
    """Without the number, maps have at least as many slots as a scene has sources."""
    prediction = predictions(model, tests["duet"], ["clustering"], batch_size=1, known=False)["clustering"]
    assert prediction.maps.shape[:2] == prediction.valid.shape
    assert prediction.valid.shape[1] >= 2
    for maps, valid in zip(prediction.maps, prediction.valid, strict=True):
        assert (maps[~valid] == 0).all()


def test_given_classes_are_left_out_where_one_is_unknown(
    tests: dict[str, HeldOutScenes], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A test set with another class does not end a run, unless its configuration asks for given classes."""
    model = own(("cello",), monkeypatch)
    assert usable_identifications(model, [tests["solo"]]) == IDENTIFICATIONS
    assert usable_identifications(model, list(tests.values())) == IDENTIFICATIONS[:-1]
    assert "but one has 'flute'. Scores with given classes are left out." in caplog.text
    model.config = dataclasses.replace(model.config, identification="given")
    assert usable_identifications(model, list(tests.values())) == IDENTIFICATIONS
