"""A run with CLIP, CLAP and CLIP's text tower from end to end; inference without any text encoder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from avsl.commands.train import main
from avsl.data.music import MusicFolder
from avsl.evaluation.held_out import load_held_out
from avsl.evaluation.predict import predict
from avsl.model.localizer import Localizer
from avsl.training.callbacks import KeepLast

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("one_thread", "serial"),
    pytest.mark.filterwarnings("ignore:Experiment logs directory .* exists and is not empty:UserWarning"),
]
SIZES = ["--train-scenes", "16", "--test-scenes", "4", "--batch-size", "8", "--epochs", "2"]


def stop_after_the_first_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    save = KeepLast.on_train_epoch_end

    def save_and_stop(self, trainer, module) -> None:
        save(self, trainer, module)
        raise KeyboardInterrupt

    monkeypatch.setattr(KeepLast, "on_train_epoch_end", save_and_stop)


def test_trains_evaluates_and_resumes(
    clip: str, clap: str, tmp_path: Path, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["--quick", "--backbone", "clip-clap", *SIZES]
    line += ["--visual-weights", clip, "--audio-weights", clap, "--text-encoder", clip, "--embedding-dim", "16"]
    line += ["--runs", str(tmp_path / "runs"), "--data", str(tmp_path / "data")]
    assert main([*line, "--name", "whole"]) == 0
    # With pretrained weights, nothing is pretrained on crops. Scenes are of one clip, so sounds are kept too.
    cached = sorted(p.name.rpartition("-")[0] for p in (tmp_path / "data" / "cache").glob("[!.]*"))
    assert cached == ["captions", "features-frames", "features-sounds"]

    with monkeypatch.context() as patch:
        stop_after_the_first_epoch(patch)
        assert main([*line, "--name", "stopped"]) == 130
    assert not (tmp_path / "runs" / "stopped" / "metrics.json").exists()
    assert main([*line, "--name", "stopped"]) == 0

    runs = [tmp_path / "runs" / name for name in ("whole", "stopped")]
    saved, again = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in runs)
    assert saved["epoch"] == again["epoch"] == 1
    torch.testing.assert_close(again["state_dict"], saved["state_dict"], rtol=1e-4, atol=1e-5)
    metrics = [json.loads((run / "metrics.json").read_text())["percent"] for run in runs]
    assert metrics[0]["untrained"] == pytest.approx(metrics[1]["untrained"], abs=1e-3)

    vision = transformers.CLIPVisionModel.from_pretrained(clip)
    kept = saved["state_dict"]["visual.tower.value.weight"]
    assert torch.equal(kept, vision.encoder.layers[-1].self_attn.v_proj.weight)

    def refuse(*_, **__):
        raise AssertionError("inference needs no text encoder")

    for loader in (
        "AutoModel",
        "AutoTokenizer",
        "CLIPTextModelWithProjection",
        "CLIPModel",
        "BertModel",
        "CLIPVisionModel",
        "ClapAudioModel",
    ):
        monkeypatch.setattr(getattr(transformers, loader), "from_pretrained", refuse)
    model = Localizer(**saved["hyper_parameters"])
    model.load_state_dict(saved["state_dict"])
    found = predict(model, load_held_out(MusicFolder(music), "duet", 64))
    assert found.maps.shape == (1, 2, 8, 8)
    assert found.maps.isfinite().all()
