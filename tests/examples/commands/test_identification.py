"""Evaluation and localization by the identification of the model, or by another one that is asked for."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from avsl.commands import evaluate, localize
from avsl.commands.arguments import THRESHOLDS
from avsl.config import TWO_WAYS
from avsl.data.music import MusicFolder
from avsl.evaluation import job, timing
from avsl.evaluation.held_out import load_held_out
from avsl.evaluation.predict import predictions
from avsl.localization.user_files import as_frame, read_sound
from avsl.model.checkpoints import open_model
from PIL import Image

from sslosses import cluster_objects, identify_objects

from .conftest import write_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*samples have :UserWarning")
CPU = torch.device("cpu")
OTHER = dict(zip(TWO_WAYS, reversed(TWO_WAYS), strict=True))


@pytest.fixture(params=TWO_WAYS)
def trained(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """A checkpoint, and the identification of its configuration."""
    return write_checkpoint(tmp_path / "model.ckpt", identification=request.param), request.param


def options(named: bool, configured: str) -> tuple[list[str], str]:
    """Options of the command line, and the identification that follows from them."""
    return (["--identification", OTHER[configured]], OTHER[configured]) if named else ([], configured)


@pytest.mark.parametrize("named", [False, True])
def test_evaluate(
    trained: tuple[Path, str], duets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    monkeypatch.setattr(job, "draw_sheet", lambda *_, **__: None)
    path, configured = trained
    more, identification = options(named, configured)
    line = [str(path), "--data-root", str(duets), "--no-chance", "--out", str(tmp_path / "out"), *more]
    assert evaluate.main(line) == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["identification"] == identification
    for subset in ("solo", "duet"):
        test = load_held_out(MusicFolder(duets), subset, 64)
        expected = predictions(open_model(path, CPU), test, [identification])[identification]
        with np.load(tmp_path / "out" / "maps" / f"music-{subset}.npz") as saved:
            for name, maps, valid in zip(saved.files, expected.maps, expected.valid, strict=True):
                assert saved[name] == pytest.approx(maps[valid].numpy(), abs=1e-5)


@pytest.mark.parametrize("named", [False, True])
def test_localize(trained: tuple[Path, str], duets: Path, tmp_path: Path, named: bool) -> None:
    path, configured = trained
    more, identification = options(named, configured)
    media = [duets / "frames" / "e.jpg", duets / "audio" / "e.wav"]
    assert localize.main([str(path), *map(str, media), "--sources", "2", "--out", str(tmp_path / "out"), *more]) == 0
    with np.load(tmp_path / "out" / "e-maps.npz") as saved:
        maps, peaks = saved["maps"], saved["peaks"]
    model = open_model(path, CPU)
    with Image.open(media[0]) as picture, torch.no_grad():
        frame = as_frame(picture.convert("RGB"), 64)
        features = model.method.features(model.encode(frame[None], read_sound(media[1])[None]))
    thresholds = {name: getattr(model.config, name) for name in THRESHOLDS}
    find = cluster_objects if identification == "clustering" else partial(identify_objects, **thresholds)
    expected = find(*features, num_sources=2)
    assert maps == pytest.approx(expected.maps[0].numpy(), abs=1e-4)
    assert peaks == pytest.approx(expected.peaks[0].numpy(), abs=1e-5)


@pytest.mark.parametrize("command", [evaluate, localize])
def test_clustering_has_no_thresholds(
    duets: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, command: object
) -> None:
    path, out = write_checkpoint(tmp_path / "model.ckpt", identification="clustering"), tmp_path / "out"
    picture = [str(duets / "frames" / "e.jpg"), str(duets / "audio" / "e.wav")]
    data = ["--data-root", str(duets), "--subsets", "duet", "--no-chance"]
    line = [str(path), *(data if command is evaluate else picture), "--out", str(out), "--merge-threshold", "0.9"]
    assert command.main(line) == 2
    assert "no `merge_threshold` with the identification clustering, which has no thresholds" in caplog.text
    assert not out.exists()
    assert command.main([*line, "--identification", "iterative"]) == 0


@pytest.mark.parametrize(
    "option", [["--sources", "2"], ["--identification", "clustering"], ["--peak-threshold", "0.2"]]
)
def test_a_video_has_no_sources(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        localize.main(["model.ckpt", "a.mp4", *option])
    assert f"{option[0]} applies to IMAGE SOUND; a video shows where its whole sound" in capsys.readouterr().err


@pytest.mark.parametrize("command", [evaluate, localize])
def test_an_identification_that_the_method_lacks(
    run: Path, duets: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, command: object
) -> None:
    picture = [str(duets / "frames" / "e.jpg"), str(duets / "audio" / "e.wav")]
    data = ["--data-root", str(duets), "--subsets", "duet", "--no-chance"]
    line = [str(run), *(data if command is evaluate else picture), "--out", str(tmp_path / "out")]
    assert command.main([*line, "--identification", "own"]) == 2
    assert (
        "`identification` of the method object-aware to be one of iterative, clustering, but got 'own'" in caplog.text
    )


@pytest.mark.parametrize("command", [evaluate, localize])
def test_an_unknown_identification(command: object, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(["model.ckpt", "a.jpg", "a.wav", "--identification", "kmeans"])
    assert "invalid choice: 'kmeans'" in capsys.readouterr().err


@pytest.mark.parametrize(("subset", "identification", "number"), [("solo", "clustering", 1), ("duet", "clustering", 2)])
def test_clustering_is_part_of_the_time(
    duets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subset: str, identification: str, number: int
) -> None:
    monkeypatch.setattr(timing, "REPEATS", 1)
    numbers = []
    for chosen in (identification, OTHER[identification]):
        model = open_model(write_checkpoint(tmp_path / f"{chosen}.ckpt", identification=chosen), CPU)
        computed, asked = model.source_maps, []
        monkeypatch.setattr(
            model,
            "source_maps",
            lambda encoded, n, computed=computed, asked=asked: asked.append(n) or computed(encoded, n),
        )
        timing.measure(model, load_held_out(MusicFolder(duets), subset, 64), (1,), known=True)
        numbers.append(set(asked))
    assert numbers == [{number}, set() if subset == "solo" else {number}]
