"""The command ``export_model.py``, and the other commands with the folder that it writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from avsl.commands import evaluate, export, localize
from avsl.evaluation import job
from avsl.evaluation.report import write_report
from avsl.evaluation.run_results import results_section
from avsl.model import shared_folder
from avsl.model.localizer import Localizer

from .conftest import CONFIG, write_checkpoint

ROWS = {
    "trained": {"duet CAP": 12.34},
    "trained, clustering": {"duet CAP": 23.45},
    "untrained": {"duet CAP": 3.4},
    "untrained, clustering": {"duet CAP": 4.5},
    "centered Gaussian": {"duet CAP": 5.6},
    "whole frame": {"duet CAP": 6.7},
}


@pytest.fixture
def finished(run: Path, duets: Path) -> Path:
    """The run with its metrics, on a folder of the user."""
    write_report(run, ROWS, {}, ["A note on the clips."])
    (run / "config.yaml").write_text(yaml.safe_dump(CONFIG.as_dict() | {"data": str(duets)}))
    return run


@pytest.fixture
def shared(finished: Path, tmp_path: Path) -> Path:
    assert export.main([str(finished), str(tmp_path / "models" / "shared")]) == 0
    return tmp_path / "models" / "shared"


def test_files_and_card(shared: Path, duets: Path) -> None:
    assert [path.name for path in shared.parent.iterdir()] == ["shared"]
    assert sorted(path.name for path in shared.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    card = (shared / "README.md").read_text()
    for text in (
        "# tiny\n",
        "This card states no license",
        "A note on the clips.",
        "| duet CAP | 12.3 | 23.4 | 3.4 | 4.5 | 5.6 | 6.7 |",
        "the protocol `paper`",
        "`iterative` (rows “trained”, “untrained”) and `clustering` (rows “trained, clustering”",
        "Chance levels, which do not hear the sound: centered Gaussian, whole frame.",
        "| data | music: solo, duet; folder `music` |",
        "| seeds | 0 (run) |",
        "python examples/localize.py MODEL",
    ):
        assert text in card
    header = yaml.safe_load(card.split("---")[1])
    assert header == {"library_name": "sslosses", "tags": ["audio-visual", "sound-source-localization"]}
    for path in shared.iterdir():
        assert str(duets.parent).encode() not in path.read_bytes()  # no path of this machine


@pytest.mark.parametrize("content", ['{"percent": 3}', '{"percent": {"trained": {}, "untrained": 1}}', "{}", "no"])
def test_damaged_metrics(finished: Path, tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture) -> None:
    (finished / "metrics.json").write_text(content)
    assert export.main([str(finished), str(tmp_path / "models" / "shared")]) == 2
    assert f"{finished / 'metrics.json'} to " in caplog.text
    assert not (tmp_path / "models").exists()


def test_without_metrics(run: Path, tmp_path: Path) -> None:
    assert "may not have been finished" in results_section(run)
    ckpt = write_checkpoint(tmp_path / "a.ckpt", smoke_test=True)
    assert export.main([str(ckpt), str(tmp_path / "shared")]) == 0
    card = (tmp_path / "shared" / "README.md").read_text()
    assert "No results were recorded" in card
    assert "| smoke test | yes" in card


def test_the_folder_is_new_and_whole(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    taken, broken = tmp_path / "taken", tmp_path / "models" / "broken"
    taken.mkdir()
    assert export.main([str(finished), str(taken)]) == 2
    assert f"Expected `folder` to be new, but there is {taken} already" in caplog.text

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shared_folder, "write_json", full_disk)
    assert export.main([str(finished), str(broken)]) == 2
    assert not list(broken.parent.iterdir())


def test_a_missing_run(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert export.main(["runs/quik", "shared"]) == 2
    assert "Expected `run` to be the folder of a run or a checkpoint, but there is no folder runs/quik" in caplog.text


def test_localize_gives_the_same_maps(shared: Path, finished: Path, duets: Path, tmp_path: Path) -> None:
    media = [str(duets / "frames" / "e.jpg"), str(duets / "audio" / "e.wav")]
    for name, model in (("a", shared), ("b", finished)):
        assert localize.main([str(model), *media, "--sources", "2", "--out", str(tmp_path / name)]) == 0
    with np.load(tmp_path / "a" / "e-maps.npz") as ours, np.load(tmp_path / "b" / "e-maps.npz") as theirs:
        assert theirs.files
        assert all(np.array_equal(ours[key], theirs[key]) for key in theirs.files)


@pytest.mark.filterwarnings("ignore:.* samples have :UserWarning")
def test_evaluate_gives_the_same_metrics(
    shared: Path, finished: Path, duets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "draw_sheet", lambda *_, **__: None)
    monkeypatch.chdir(tmp_path)
    line = ["--data-root", str(duets), "--no-chance", "--subsets", "duet", "--protocol", "noprior"]
    results = []
    for model, name in ((shared, "shared"), (finished, "tiny"), ("someone/model", "model")):
        monkeypatch.setattr(shared_folder, "snapshot_download", lambda *_, **__: str(shared))
        assert evaluate.main([str(model), *line]) == 0
        content = json.loads((tmp_path / "evaluation" / f"{name}-music" / "metrics.json").read_text())
        assert content["model"] == str(model)
        results.append(content["subsets"])
    assert results[0] == results[1] == results[2]


def test_evaluate_needs_the_data_of_a_user(shared: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert evaluate.main([str(shared), "--out", str(tmp_path / "out"), "--data", str(tmp_path / "data")]) == 2
    assert "Expected `data_root`, since the data of this model, music, are not shared with it" in caplog.text
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("path", ["runs/quik", "./quik/model", "quik"])
def test_a_mistyped_path(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    monkeypatch.setattr(shared_folder, "snapshot_download", lambda *_, **__: pytest.fail("the hub was asked"))
    assert evaluate.main([path]) == 2
    assert f"there is no folder or file {tmp_path / path if path.startswith('.') else path}" in caplog.text


def test_a_shared_model_inside_a_run(finished: Path) -> None:
    """The data of the run around it are not those that its files say."""
    folder = finished / "models" / "shared"
    assert export.main([str(finished), str(folder)]) == 0
    assert job.recorded_data(folder) is None
    assert job.run_name(folder) == "shared"
    assert isinstance(job.selected_model(_options(folder)), Localizer)


def _options(folder: Path) -> object:
    options = evaluate.parse_arguments([str(folder), "--device", "cpu"])
    assert torch.device(options.device).type == "cpu"
    return options
