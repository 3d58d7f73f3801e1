"""A run with a stand-in for AudioCLIP from end to end: training, evaluation and localization."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from avsl.commands import evaluate, localize
from avsl.commands.train import main
from avsl.model.checkpoints import open_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("one_thread", "serial"),
    pytest.mark.filterwarnings("ignore:.* samples have :UserWarning"),
]


def test_trains_evaluates_and_localizes(
    audioclip: str, clip_tokenizer: str, music: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights, data = tmp_path / "own.pt", tmp_path / "data"
    weights.write_bytes(Path(audioclip).read_bytes())
    line = ["--config", "audioclip", "--visual-weights", str(weights), "--tokenizer", clip_tokenizer]
    line += ["--data-root", str(music), "--embedding-dim", "3", "--image-size", "64", "--workers", "0"]
    line += ["--subsets", "solo", "--epochs", "1", "--batch-size", "2", "--ori-tol", "0.1"]
    line += ["--runs", str(tmp_path / "runs"), "--data", str(data), "--name", "own"]
    assert main(line) == 2
    assert "stand-in with random weights. Add --smoke-test true" in caplog.text
    assert main([*line, "--smoke-test", "true"]) == 0
    cached = sorted(path.name.rpartition("-")[0] for path in (data / "cache").glob("[!.]*"))
    assert cached == ["captions", "features-frames", "features-sounds"]

    run = tmp_path / "runs" / "own"
    assert any("smoke test" in note.lower() for note in json.loads((run / "metrics.json").read_text())["notes"])
    tower = open_model(run, torch.device("cpu")).audio.tower.state_dict()
    stored = torch.load(weights, weights_only=True)
    assert all(torch.equal(value, stored[f"audio.{name}"]) for name, value in tower.items())

    weights.unlink()  # to use the model, neither the file nor the tokenizer is needed
    scores, maps = tmp_path / "scores", tmp_path / "maps"
    options = ["--data-root", str(music), "--protocol", "noprior", "--no-chance"]
    assert evaluate.main([str(run), *options, "--out", str(scores)]) == 0
    assert json.loads((scores / "metrics.json").read_text())["subsets"].keys() == {"solo"}
    picture, sound = music / "frames" / "d.jpg", music / "audio" / "d.wav"
    assert localize.main([str(run), str(picture), str(sound), "--sources", "1", "--out", str(maps)]) == 0
    assert list(maps.iterdir())
