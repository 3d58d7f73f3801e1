"""Setting up and running methods other than the default: without captions, with classes, with waveforms, by stages."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from avsl.commands import evaluate
from avsl.commands.train import main
from avsl.config import ONE_MAP, Config
from avsl.data.loading import Clips, TrainingScenes
from avsl.data.music import MusicFolder
from avsl.data.vggsound import VggsoundFolder
from avsl.evaluation.report import ROW_SUFFIX
from avsl.model.caption_features import TextProjection
from avsl.model.encoders import Encoders, Features
from avsl.model.encoders.text import TextEncoder, WordCounts
from avsl.model.localizer import Localizer
from avsl.training import model_setup, run
from avsl.training.data_location import DataLocation
from avsl.training.model_setup import set_up_training, use_cached_features
from torch import Tensor

from ..conftest import TINY, write_clip
from ..own_maps import OwnMaps

CONFIG = Config(**TINY, method="lvs", workers=0, mirror=False, batch_size=2)
#: The options of a command line that say the same.
LINE = [
    *("--method", "lvs", "--image-size", "64", "--embedding-dim", "6", "--workers", "0", "--batch-size", "2"),
    *("--visual-weights", "none", "--visual-widths", "4", "8", "--visual-depths", "1", "1"),
    *("--audio-weights", "none", "--audio-widths", "4", "8", "--audio-depths", "1", "1"),
]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def bare(music: Path) -> Path:
    """A MUSIC folder without captions."""
    (music / "metadata" / "captions.jsonl").unlink()
    return music


def use(method: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes ``method`` take the place of every method."""
    monkeypatch.setattr("avsl.model.localizer.method_class", lambda _: method)
    monkeypatch.setattr(model_setup, "method_class", lambda _: method)


def set_up(root: Path, **changes: Any) -> tuple[Localizer, TrainingScenes]:
    config = dataclasses.replace(CONFIG, **changes)
    return set_up_training(DataLocation(root.parent / "data", root), config, MusicFolder(root))


# Setting up


def test_a_method_without_captions_needs_no_file_of_them(bare: Path) -> None:
    model, scenes = set_up(bare)
    assert scenes.names == ["a", "b", "c"]
    assert model.classes == ("cello", "flute")
    assert (model.method.setting.text, model.method.setting.sources) == (0, 2)
    assert not (bare.parent / "data").exists()  # nothing was encoded


def test_a_method_with_captions_says_that_they_are_missing(bare: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"captions\.jsonl, but there is no such file\. Create it with"):
        set_up(bare, method="object-aware")


def test_the_weights_of_a_seed_are_those_of_any_method(music: Path) -> None:
    """So that methods are compared from the same start."""
    one, other = (
        set_up(music, method=name, embedding_dim=4, text_encoder="words")[0] for name in ("lvs", "object-aware")
    )
    for encoder in ("visual", "audio"):
        pair = (getattr(model, encoder).state_dict().values() for model in (one, other))
        assert all(map(torch.equal, *pair))


def test_crops_need_captions(bare: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected `crops` of the method lvs to be 0, since .* but got 64"):
        set_up(bare, crops=64)


def test_single_scenes_are_the_clips_of_one_source(bare: Path) -> None:
    _, scenes = set_up(bare, training_scenes="single")
    assert (scenes.names, scenes.collate.slots, scenes.largest_scene) == (["a", "b"], 1, 1)
    assert set_up(bare, training_scenes="all")[1].names == ["a", "b", "c"]


def test_no_single_scenes(bare: Path) -> None:
    with pytest.raises(ValueError, match=r"clips of one source for `training_scenes` single, but duet has none"):
        set_up(bare, training_scenes="single", subsets=("duet",))


def test_single_scenes_of_subsets_that_share_a_list(tmp_path: Path) -> None:
    """VGGSound's mixtures are drawn from the list of its single clips: each clip is one scene, unmixed."""
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "vggsound_train.csv").write_text("v1_1,cat\nv2_2,dog\nv3_3,cat\n")
    for name in ("v1_1", "v2_2", "v3_3"):
        write_clip(tmp_path, name, np.random.default_rng(0))
    config = dataclasses.replace(
        CONFIG, dataset="vggsound", subsets=("single", "duet", "trio"), training_scenes="single"
    )
    _, scenes = set_up_training(DataLocation(tmp_path / "data", tmp_path), config, VggsoundFolder(tmp_path))
    assert scenes.names == ["v1_1", "v2_2", "v3_3"]
    assert scenes.largest_scene == 1
    mixed = dataclasses.replace(config, training_scenes="all")
    _, scenes = set_up_training(DataLocation(tmp_path / "data", tmp_path), mixed, VggsoundFolder(tmp_path))
    assert (len(scenes.names), scenes.largest_scene) == (9, 3)


class NeedsClasses(OwnMaps):
    needs_classes: ClassVar[bool] = True


def test_a_method_that_needs_classes(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(NeedsClasses, monkeypatch)
    assert set_up(bare)[0].classes == ("cello", "flute")
    (bare / "metadata" / "music_solo_train.txt").write_text("a\nb\n")
    message = "Expected the class of clip 'a' in the training list, since the method lvs needs it, but it has none"
    with pytest.raises(ValueError, match=message):
        set_up(bare)
    use(OwnMaps, monkeypatch)
    assert set_up(bare)[1].names == ["a", "b", "c"]


def test_a_method_that_reads_class_names(bare: Path) -> None:
    """Their text features are made before training, and read from disk by the next run."""
    lists = bare / "metadata" / "music_solo_train.txt"
    lists.write_text("a,cello\nb,acoustic_guitar\n")
    model, _ = set_up(bare, method="t-vsl", text_encoder="words", embedding_dim=7)
    assert model.classes == ("acoustic_guitar", "cello", "flute")
    features, _ = WordCounts()(["acoustic guitar", "cello", "flute"])
    projection = TextProjection(WordCounts.SIZE, 7)
    projection.fit(features, CONFIG.text_shrinkage)
    torch.testing.assert_close(model.method.names, projection(features))
    assert model.hparams["text_features"] == 0
    (cached,) = (bare.parent / "data").rglob("captions-*.sqlite")
    other, _ = set_up(bare, method="lvs", embedding_dim=7)
    for encoder in ("visual", "audio"):  # the seed's weights do not depend on it
        pair = (getattr(each, encoder).state_dict().values() for each in (model, other))
        assert all(map(torch.equal, *pair))
    written = cached.stat().st_mtime_ns
    set_up(bare, method="t-vsl", text_encoder="words", embedding_dim=7)
    assert cached.stat().st_mtime_ns == written


def test_class_names_by_the_text_tower_of_audioclip(bare: Path, audioclip: str, clip_tokenizer: str) -> None:
    """Its tokenizer, and that made-up weights are accepted, are options for captions and class names alike."""
    towers = {"backbone": "audioclip", "visual_weights": audioclip, "audio_weights": audioclip, "embedding_dim": 16}
    text = {"text_encoder": audioclip, "tokenizer": clip_tokenizer, "smoke_test": True}
    model, _ = set_up(bare, method="t-vsl", method_options=("whiten=false",), **towers, **text)
    expected, _ = TextEncoder(audioclip, clip_tokenizer, allow_stand_in=True)(model.classes)
    torch.testing.assert_close(model.method.names, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", ["t-vsl", "object-aware"])
@pytest.mark.parametrize(
    ("error", "message", "weights"),
    [
        (FileNotFoundError, "`visual_weights` .* no file 'AudioCLIP-Full-Tr.*Name it with --visual-weights$", {}),
        (FileNotFoundError, "`visual_weights` .* no file 'gone.bin'", {"visual_weights": "gone.bin"}),
        (ValueError, "`visual_weights` .* stand-in with random weights", {"visual_weights": "FILE"}),
        (FileNotFoundError, "`audio_weights` .*'gone.pt'", {"visual_weights": "FILE", "audio_weights": "gone.pt"}),
        (FileNotFoundError, "`text_encoder` .*'gone.pt'", {"visual_weights": "FILE", "text_encoder": "gone.pt"}),
    ],
)
def test_a_fault_of_audioclips_file_names_the_option_that_gave_it(
    method: str,
    error: type[Exception],
    message: str,
    weights: dict[str, str],
    music: Path,
    audioclip: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The text tower is read first, but has the file of all three. A file without .pt is no name on a hub."""
    monkeypatch.chdir(tmp_path)
    given = {name: audioclip if value == "FILE" else value for name, value in weights.items()}
    config = Config(**{"method": method, "backbone": "audioclip", "text_encoder": "audioclip"} | given)
    with pytest.raises(error, match=message):
        set_up_training(DataLocation(tmp_path / "data", music), config, MusicFolder(music))


def test_an_identification_that_the_method_lacks_ends_the_run_at_its_start(bare: Path) -> None:
    message = f"`identification` of the method lvs to be one of {', '.join(ONE_MAP)}, but got 'own'"
    with pytest.raises(ValueError, match=message):
        set_up(bare, identification="own")


class NeedsWaveforms(OwnMaps):
    needs_waveforms: ClassVar[bool] = True


def test_features_do_not_take_the_place_of_waveforms_that_a_method_needs(
    bare: Path, clip: str, clap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(NeedsWaveforms, monkeypatch)
    location = DataLocation(tmp_path / "data", bare)
    location.cache.mkdir(parents=True)
    pair = {"backbone": "clip-clap", "visual_weights": clip, "audio_weights": clap, "image_size": 32}
    config = dataclasses.replace(CONFIG, **pair, cache_features=True)
    model, training = set_up(bare, **pair, cache_features=True)
    scenes = [(training.scenes, 1)]
    message = (
        "Expected `cache_features` to be false for the method lvs, which mixes waveforms in training, but got true"
    )
    with pytest.raises(ValueError, match=f"^{message}$"):
        use_cached_features(model, location, config, scenes)
    assert not list(location.cache.iterdir())
    use_cached_features(model, location, dataclasses.replace(config, cache_features=False), scenes)
    assert not list(location.cache.iterdir())


def test_features_of_frames_are_kept_beside_waveforms_that_a_method_needs(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(NeedsWaveforms, monkeypatch)
    location = DataLocation(tmp_path / "data", bare)
    location.cache.mkdir(parents=True)
    model, training = set_up(bare, backbone="efficientnet-lite0", cache_features=True)
    use_cached_features(model, location, model.config, [(training.scenes, 1)])
    assert isinstance(training.scenes[0].frame, Features)
    assert isinstance(training.scenes[0].waveform, Tensor)


# Runs


@pytest.mark.parametrize(
    ("identification", "shown"),
    [
        ("iterative", ["", ", clustering"]),
        ("clustering", ["", ", clustering"]),
        ("single", ["", ", one map"]),
        ("own", ["", ", own maps"]),
    ],
)
def test_the_printed_rows_fit_a_terminal(identification: str, shown: list[str]) -> None:
    """They are of the configuration's identification and of the first of the others, beside all baselines."""
    rows = {f"{kind}{suffix}": {} for kind in ("trained", "untrained") for suffix in ROW_SUFFIX.values()}
    printed = run._printed(rows | {"whole frame": {}}, identification)
    assert list(printed) == [f"{kind}{suffix}" for kind in ("trained", "untrained") for suffix in shown] + [
        "whole frame"
    ]
    only = {"trained, own maps": {}, "untrained, own maps": {}, "whole frame": {}}
    assert run._printed(only, identification) == only


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*samples have :UserWarning")
def test_a_run_without_captions(bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From training to its table, and then evaluated by another identification."""
    line = ["--data-root", str(bare), *LINE, "--identification", "repeat", "--epochs", "2", "--name", "run"]
    line += ["--runs", str(tmp_path / "runs"), "--data", str(tmp_path / "data")]
    assert main(line) == 0
    folder = tmp_path / "runs" / "run"
    rows = json.loads((folder / "metrics.json").read_text())["percent"]
    models = [f"{kind}{ROW_SUFFIX[name]}" for kind in ("trained", "untrained") for name in ONE_MAP]
    assert list(rows) == [*models, "centered Gaussian", "whole frame", "random maps"]
    assert not any("deviation" in name for row in rows.values() for name in row)  # there are no references
    assert rows["trained, one map"]["duet without map"] == 0
    assert not (tmp_path / "data").exists()
    for name in ("table.md", "sheet.png", "checkpoints/last.ckpt"):
        assert (folder / name).stat().st_size
    hyper_parameters = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["hyper_parameters"]
    assert (hyper_parameters["classes"], hyper_parameters["sources"]) == (["cello", "flute"], 2)

    assert main(line) == 0  # it is complete
    assert "complete; delete it or choose another --name" in " ".join(capsys.readouterr().out.split())
    out = tmp_path / "out"
    more = ["--data-root", str(bare), "--no-chance", "--out", str(out), "--identification", "single"]
    assert evaluate.main([str(folder), *more]) == 0
    assert json.loads((out / "metrics.json").read_text())["identification"] == "single"


class Stages(OwnMaps):
    """Records what it is given before each epoch, and keeps the number of epochs in checkpoints."""

    started: ClassVar[list[tuple[int, list[int], bool]]] = []

    def __init__(self, setting: Any) -> None:
        super().__init__(setting)
        self.epochs = 0

    def get_extra_state(self) -> dict[str, int]:
        return {"epochs": self.epochs}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.epochs = state["epochs"]

    def start_epoch(self, epoch: int, encoders: Encoders, clips: Iterator[Clips]) -> None:
        indices = [int(i) for part in clips for i in part.indices]
        self.started.append((epoch, indices, encoders.visual.training))
        self.epochs += 1

    def loss(self, batch: Any, encoders: Encoders) -> dict[str, Tensor]:
        assert encoders.visual.training
        assert self.epochs == len({epoch for epoch, *_ in self.started})
        return super().loss(batch, encoders)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*samples have :UserWarning")
@pytest.mark.filterwarnings("ignore:Experiment logs directory .* exists and is not empty:UserWarning")
@pytest.mark.parametrize("within", [False, True])
def test_a_method_is_prepared_once_per_epoch(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, within: bool
) -> None:
    """With all clips and fixed batch statistics. What it prepared is in the checkpoint, also in one within an epoch."""
    use(Stages, monkeypatch)
    monkeypatch.setattr(Stages, "started", [])
    line = ["--data-root", str(bare), *LINE, "--batch-size", "1", "--epochs", "3", "--name", "run"]
    line += ["--runs", str(tmp_path / "runs"), "--data", str(tmp_path / "data"), "--subsets", "solo"]

    line += ["--checkpoint-steps", "1" if within else "0"]
    loss, batches = Stages.loss, []

    def stop(self: Stages, batch: Any, encoders: Encoders) -> dict[str, Tensor]:
        batches.append(batch)
        if len(batches) == 6:  # the last one
            raise KeyboardInterrupt
        return loss(self, batch, encoders)

    with monkeypatch.context() as patch:
        patch.setattr(Stages, "loss", stop)
        assert main(line) == 130
    assert [epoch for epoch, *_ in Stages.started] == [0, 1, 2]
    last = tmp_path / "runs" / "run" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["state_dict"]["method._extra_state"] == {"epochs": 3 if within else 2}
    if not within:  # the epoch starts again
        Stages.started.pop()
    assert main(line) == 0
    assert Stages.started == [(epoch, [0, 1], False) for epoch in range(3)]
    assert torch.load(last, weights_only=True)["state_dict"]["method._extra_state"] == {"epochs": 3}
