"""A trained run with random weights, data folders of several scenes, and no language model at hand."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
import yaml
from avsl.config import Config
from avsl.model.localizer import Localizer

from ..conftest import TINY, write_clip

LANGUAGE_MODELS = (
    *("AutoModel", "AutoTokenizer", "AutoProcessor", "AutoModelForCausalLM", "AutoModelForImageTextToText"),
    *("BertModel", "CLIPModel", "CLIPTextModel"),
)
LEFT, RIGHT = [0.0, 0.0, 0.375, 1.0], [0.625, 0.0, 0.375, 1.0]
# With these thresholds, a model with random weights finds sources.
CONFIG = Config(**TINY, workers=0, peak_threshold=-1.0, background_threshold=1.0, merge_threshold=1.0)


@pytest.fixture(autouse=True)
def no_language_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only training needs captions: no command here may load a model that makes or encodes them."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a language model was loaded")

    for name in LANGUAGE_MODELS:
        monkeypatch.setattr(getattr(transformers, name), "from_pretrained", refuse)


@pytest.fixture(autouse=True)
def small_models(one_thread: None) -> None:
    """All tests of this folder use one thread."""


def write_checkpoint(path: Path, **changes: object) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Localizer(dataclasses.replace(CONFIG, **changes).as_dict(), 10)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}, path)
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run, as training writes it, but without the name of its data."""
    folder = tmp_path / "runs" / "tiny"
    write_checkpoint(folder / "checkpoints" / "last.ckpt")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG.as_dict()))
    return folder


@pytest.fixture
def duets(music: Path) -> Path:
    """The MUSIC folder with three scenes that are test duets and, for another list, test solos."""
    rng, metadata = np.random.default_rng(1), music / "metadata"
    names = ["e", "f", "g"]
    for name in names[1:]:
        write_clip(music, name, rng)
    entries = [
        {"file": n, "class_src1": "cello", "bbox_src1": LEFT, "class_src2": "flute", "bbox_src2": RIGHT} for n in names
    ]
    (metadata / "music_duet.json").write_text(json.dumps(entries))
    (metadata / "music_duet_test.csv").write_text("".join(f"{n}\n" for n in names))
    solos = [{"file": n, "class": "cello", "bbox": LEFT} for n in names]
    (metadata / "music_solo.json").write_text(json.dumps(solos))
    (metadata / "music_solo_test.csv").write_text("".join(f"{n},cello\n" for n in names))
    return music


@pytest.fixture
def vggsound(tmp_path: Path) -> Path:
    """A VGGSound folder with test sets of single clips, duets and a trio."""
    root, rng = tmp_path / "vggsound", np.random.default_rng(2)
    boxes = {"a": [[0, 0, 0.5, 1]], "b": [[0.5, 0, 1, 1], [0, 0, 0.1, 0.1]], "c": [[0, 0.5, 1, 1]]}
    labels = {"a": "elk bugling", "b": "female speech, woman speaking", "c": "playing cello"}
    for name in boxes:
        write_clip(root, name, rng)
    metadata = root / "metadata"
    metadata.mkdir()
    plain = {name: label.replace(",", "").replace(" ", "_") for name, label in labels.items()}
    (metadata / "vggss.json").write_text(json.dumps([{"file": n, "class": labels[n], "bbox": boxes[n]} for n in boxes]))
    for subset, scenes in (("single", "abc"), ("duet", ("ca", "ab", "bc")), ("trio", ("abc",))):
        lines = "".join(",".join(f"{n},{plain[n]}" for n in scene) + "\n" for scene in scenes)
        (metadata / f"vggsound_{subset}_test.csv").write_text(lines)
    return root
