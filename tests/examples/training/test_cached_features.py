"""Runs read the features of frozen encoders from the disk, where the encoders and scenes allow it."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path

import pytest
import torch
from avsl.config import Config
from avsl.data.loading import SceneBatch
from avsl.data.music import MusicFolder
from avsl.data.scenes import Scenes
from avsl.evaluation.held_out import load_held_out
from avsl.evaluation.predict import predict
from avsl.model.encoders import Encoded, Features
from avsl.model.encoders.efficientnet import LITE0
from avsl.model.localizer import Localizer
from avsl.training import model_setup
from avsl.training.data_location import DataLocation
from avsl.training.model_setup import set_up_training, standardize_features, use_cached_features
from filelock import FileLock, Timeout
from torch import Tensor

from ..conftest import TINY

COMMON = TINY | {"mirror": False, "workers": 0, "text_encoder": "words", "embedding_dim": 2, "ori_tol": 0.1}


def efficientnet(**changes: object) -> Config:
    return Config(**COMMON | {"backbone": LITE0, "cache_features": True} | changes)


@pytest.fixture
def clip_clap(clip: str, clap: str) -> Config:
    weights = {"visual_weights": clip, "audio_weights": clap, "image_size": 32}
    return Config(**COMMON | weights | {"backbone": "clip-clap", "cache_features": True})


def held_by(example: object) -> dict[str, bool]:
    """Whether the frame and the waveform of an example are features."""
    return {name: isinstance(getattr(example, name), Features) for name in ("frame", "waveform")}


def build(config: Config) -> Localizer:
    torch.manual_seed(0)
    return Localizer(config.as_dict(), 10).eval()


def test_sounds_of_mixtures_are_not_kept(clip_clap: Config, music: Path, tmp_path: Path) -> None:
    """The features of a mixture are not those of its sounds; those of its frames are."""
    model, location = build(clip_clap), DataLocation(tmp_path)
    location.cache.mkdir(parents=True)
    single, mixed = (Scenes(music, ["a", "b", "c"], 32) for _ in range(2))
    plain = Scenes(music, ["a", "b", "c"], 32)
    use_cached_features(model, location, clip_clap, [(single, 1), (mixed, 2)])
    assert held_by(single[0]) == {"frame": True, "waveform": True}
    assert held_by(mixed[(0, 1)]) == {"frame": True, "waveform": False}
    assert torch.equal(mixed[(0, 1)].waveform, plain[(0, 1)].waveform)
    with pytest.raises(ValueError, match=r"Expected waveforms for a scene of several clips, but got the features"):
        single[(0, 1)]
    kinds = sorted(path.name.rpartition("-")[0] for path in location.cache.glob("*.sqlite"))
    assert kinds == ["features-frames", "features-sounds"]

    def encoded(scenes: Scenes, clips: tuple[int, ...]) -> Encoded:
        frame, waveform, _ = scenes[clips]
        batched = (Features(v.values[None]) if isinstance(v, Features) else v[None] for v in (frame, waveform))
        with torch.no_grad():
            return model.encode(*batched)

    for scenes, clips in ((single, (2,)), (mixed, (0, 1))):
        for ours, expected in zip(encoded(scenes, clips), encoded(plain, clips), strict=True):
            torch.testing.assert_close(ours, expected, atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    ("changes", "held"),
    [
        ({}, {"frame": True, "waveform": False}),
        ({"cache_features": False}, {"frame": False, "waveform": False}),
        ({"tower_rate": 1e-5}, {"frame": False, "waveform": False}),  # a tower that is trained
        ({"backbone": "resnet"}, {"frame": False, "waveform": False}),
    ],
)
def test_which_features_are_kept(music: Path, tmp_path: Path, changes: dict, held: dict[str, bool]) -> None:
    config, location = efficientnet(**changes), DataLocation(tmp_path)
    location.cache.mkdir(parents=True)
    scenes = Scenes(music, ["a", "b"], 64)
    use_cached_features(build(config), location, config, [(scenes, 1)])
    assert held_by(scenes[0]) == held


def test_frames_as_they_are_cannot_be_mirrored() -> None:
    with pytest.raises(ValueError, match=r"`mirror` to be false with `cache_features`, .* but got true"):
        efficientnet(mirror=True)
    assert efficientnet(mirror=True, cache_features=False).mirror


def first_batch(config: Config, root: Path, data: Path) -> tuple[Localizer, SceneBatch]:
    location = DataLocation(data, root)
    model, training = set_up_training(location, config, MusicFolder(root))
    use_cached_features(model, location, config, [(training.scenes, training.largest_scene)])
    return model.train(), next(iter(training.train_dataloader()))


@pytest.mark.parametrize("pair", ["efficientnet", "clip-clap"])
@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
def test_the_first_loss_is_the_same(clip_clap: Config, music: Path, tmp_path: Path, pair: str) -> None:
    """To half precision, which the features are kept in."""
    config = clip_clap if pair == "clip-clap" else efficientnet(visual_weights=LITE0)
    losses = []
    for kept in (True, False):
        chosen = Config.from_dict(config.as_dict() | {"cache_features": kept, "batch_size": 3})
        model, batch = first_batch(chosen, music, tmp_path / str(kept))
        assert isinstance(batch.frames, Features) is kept
        assert isinstance(batch.waveforms, Features) is (kept and pair == "clip-clap")
        losses.append(model.method.loss(batch, model.encoders)["total"])
        losses[-1].backward()
        assert all(p.grad.abs().max() > 0 for p in model.visual.head.parameters())
    torch.testing.assert_close(*losses, rtol=2e-3, atol=1e-4)


def test_other_runs_are_set_up_meanwhile(music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While features are computed, their file is locked, but not the captions and weights that all runs need."""
    config, location = efficientnet(), DataLocation(tmp_path)
    model, free = build(config), []
    computed = model.visual.features

    def features(frames: Tensor) -> Tensor:
        for path in [location.cache / ".lock", *location.cache.glob(".features-*.lock")]:
            with contextlib.suppress(Timeout), FileLock(path, timeout=0):
                free.append(path.name)
        return computed(frames)

    monkeypatch.setattr(model.visual, "features", features)
    use_cached_features(model, location, config, [(Scenes(music, ["a", "b"], 64), 1)])
    assert len(list(location.cache.glob(".features-frames-*.lock"))) == 1
    assert free == [".lock", ".lock"]  # asked for the shape, then for all features


def test_test_scenes_give_the_same_maps(music: Path, tmp_path: Path) -> None:
    config, location = efficientnet(visual_weights=LITE0), DataLocation(tmp_path)
    location.cache.mkdir(parents=True)
    model = build(config)
    tests = [load_held_out(MusicFolder(music), subset, 64) for subset in ("solo", "duet")]
    expected = [predict(model, test) for test in tests]
    use_cached_features(model, location, config, [(test.scenes, test.num_frames) for test in tests])
    for test, prediction in zip(tests, expected, strict=True):
        assert held_by(test.scenes[0])["frame"]
        found = predict(model, test)
        torch.testing.assert_close(found.sound, prediction.sound, atol=5e-3, rtol=0)
    assert len(list(location.cache.glob("features-frames-*"))) == 1


def test_features_of_training_are_in_the_order_of_its_scenes(music: Path, tmp_path: Path) -> None:
    config, location = efficientnet(batch_size=1), DataLocation(tmp_path, music)
    model, training = set_up_training(location, config, MusicFolder(music))
    plain = [training.scenes[(i,)].frame for i in range(len(training.scenes))]
    use_cached_features(model, location, config, [(training.scenes, training.largest_scene)])
    computed = [model.visual.features(frame[None])[0] for frame in plain]
    for ours, expected in itertools.zip_longest((training.scenes[i].frame.values for i in range(3)), computed):
        torch.testing.assert_close(ours.float(), expected, atol=1e-2, rtol=2e-3)


def fitted(config: Config, root: Path, data: Path) -> dict[str, Tensor]:
    """The head's statistics after the setup of a run."""
    location = DataLocation(data, root)
    model, training = set_up_training(location, config, MusicFolder(root))
    use_cached_features(model, location, config, [(training.scenes, training.largest_scene)])
    standardize_features(model, training.scenes)
    return {name: value for name, value in model.visual.named_buffers() if name in ("head.mean", "head.deviation")}


def test_the_head_is_standardized_on_training_frames(music: Path, tmp_path: Path) -> None:
    config = efficientnet(visual_weights=LITE0)
    kept, computed = (
        fitted(Config.from_dict(config.as_dict() | {"cache_features": cache}), music, tmp_path / str(cache))
        for cache in (True, False)
    )
    model = build(config)
    frames = [Scenes(music, ["a", "b", "c"], 64)[i].frame for i in range(3)]
    model.visual.head.fit(torch.cat([model.visual.features(frame[None]) for frame in frames]))
    expected = dict(model.visual.named_buffers())
    assert expected["head.mean"].abs().max() > 0.1
    for name, value in computed.items():
        torch.testing.assert_close(value, expected[name], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(kept[name], expected[name], atol=5e-3, rtol=5e-3)


def test_the_frames_of_standardization_are_evenly_picked(
    music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes, picked = Scenes(music, ["a", "b", "c", "d", "e"], 64), []
    read = Scenes.__getitem__
    monkeypatch.setattr(Scenes, "__getitem__", lambda self, i: picked.append(i) or read(self, i))
    monkeypatch.setattr(model_setup, "STANDARDIZED", 2)
    standardize_features(build(efficientnet()), scenes)
    assert picked == [0, 2]
    monkeypatch.setattr(model_setup, "STANDARDIZED", 200)
    standardize_features(build(efficientnet()), scenes)
    assert picked[2:] == [0, 1, 2, 3, 4]


def test_other_encoders_are_not_standardized(music: Path, clip_clap: Config) -> None:
    for config in (efficientnet(backbone="resnet", cache_features=False), clip_clap):
        model = build(config)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        standardize_features(model, Scenes(music, ["a"], config.image_size))
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
