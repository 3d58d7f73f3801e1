"""Flickr-SoundNet in ``evaluate.py`` and ``train_flickr.py``: the consensus of annotators, no classes, no captions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from avsl.commands import evaluate
from avsl.commands.train import main as train
from avsl.data.flickr import FlickrFolder
from avsl.evaluation import job
from avsl.evaluation.held_out import load_held_out
from avsl.evaluation.predict import Prediction
from avsl.evaluation.score import chance_metrics, run_metrics
from avsl.files import write_json
from avsl.training import steps

from sslosses.metrics import SoundLocalization

from ..conftest import write_clip
from .test_evaluate import agree, metrics, score_maps

BOX = "<bbox><xmin>{}</xmin><ymin>0</ymin><xmax>{}</xmax><ymax>256</ymax></bbox>"
#: The annotators agree on the first clip. On the second they share a quarter of the frame of three quarters.
ANNOTATED = {"101": ((0, 128), (0, 128)), "102": ((0, 128), (64, 192)), "103": ((64, 256),)}
LINE = [
    *("--image-size", "64", "--embedding-dim", "6", "--workers", "0", "--batch-size", "2", "--epochs", "1"),
    *("--visual-weights", "none", "--visual-widths", "4", "8", "--visual-depths", "1", "1", "--accelerator", "cpu"),
    *("--audio-weights", "none", "--audio-widths", "4", "8", "--audio-depths", "1", "1"),
]


@pytest.fixture
def flickr(tmp_path: Path) -> Path:
    """A prepared folder with three test clips, one of which is a training clip too."""
    root, rng = tmp_path / "flickr", np.random.default_rng(3)
    folder = root / "metadata" / "flickr_boxes"
    folder.mkdir(parents=True)
    for name in (*ANNOTATED, "201", "202"):
        write_clip(root, name, rng)
    for name, sides in ANNOTATED.items():
        (folder / f"{name}.xml").write_text(f"<annotation>{''.join(BOX.format(*side) for side in sides)}</annotation>")
    (root / "metadata" / "flickr_single_test.csv").write_text("".join(f"{name}\n" for name in ANNOTATED))
    (root / "metadata" / "flickr_train.txt").write_text("201\n202\n103\n")
    write_json(root / "metadata" / "report.json", {"lists": {"flickr_single_test.csv": {"listed": 250, "prepared": 3}}})
    return root


@pytest.fixture
def no_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take longer than all the rest."""
    for module in (job, steps):
        monkeypatch.setattr(module, "draw_sheet", lambda *_, **__: None)


@pytest.mark.usefixtures("no_sheet")
def test_evaluation(
    run: Path,
    flickr: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The metrics are those that the scoring command computes from the same maps and the XML files."""
    out, names = tmp_path / "out", "lvs,ez-vsl,paper"
    line = [str(run), "--dataset", "flickr", "--data-root", str(flickr), "--protocol", names, "--out", str(out)]
    assert evaluate.main([*line, "--negative-sounds"]) == 0
    assert "3 of 250 scenes of the public list (1.2 %)" in capsys.readouterr().out
    assert "single has no negative sounds" in caplog.text  # as classes are not known
    found = metrics(out)["subsets"]
    assert list(found) == ["single"]
    folder = flickr / "metadata" / "flickr_boxes"
    scored = score_maps(out / "maps" / "flickr-single.npz", folder, "flickr", names, tmp_path / "scored")
    agree(found["single"]["protocols"], scored)


def test_a_pixel_that_one_annotator_marked_counts_half(flickr: Path) -> None:
    test = load_held_out(FlickrFolder(flickr), "single", 32)
    agreed, shared, alone = test.truths(8)
    row = [[1, 1, 1, 1, 0, 0, 0, 0], [0.5, 0.5, 1, 1, 0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]]
    for truth, values in zip((agreed, shared, alone), row, strict=True):
        assert truth.shape == (1, 8, 8)
        assert truth[0, 3].tolist() == values


def test_a_run_scores_by_the_consensus(flickr: Path) -> None:
    test = load_held_out(FlickrFolder(flickr), "single", 32)
    maps = torch.rand(3, 1, 7, 7, generator=torch.Generator().manual_seed(0))
    prediction = Prediction(maps[:, 0], maps, torch.ones(3, 1, dtype=torch.bool))
    metric = SoundLocalization("paper", task="single")
    metric.update(maps, torch.stack(list(test.truths(224))), prediction.valid)
    expected = {f"single {name}": 100 * float(value) for name, value in metric.compute().items()}
    found = run_metrics(test, prediction)
    assert all(found[f"single {name}"] == expected[f"single {name}"] for name in metric.metrics)
    union = test._replace(annotators=False)
    assert run_metrics(union, prediction) != found
    assert chance_metrics(union, (7, 7)) != chance_metrics(test, (7, 7))


@pytest.mark.usefixtures("no_sheet")
def test_training(flickr: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Training needs neither captions nor classes, and a test clip that was trained on is told, by evaluation too."""
    line = ["--data-root", str(flickr), "--runs", str(tmp_path / "runs"), "--data", str(tmp_path), "--name", "tiny"]
    assert train([*line, *LINE], dataset="flickr") == 0
    percent = json.loads((tmp_path / "runs" / "tiny" / "metrics.json").read_text())
    assert any(name.startswith("single ") for name in percent["percent"]["trained"])
    assert "1 of 3 test clips of single are also training clips" in percent["notes"][0]
    # The archive has one clip of each id, so a copy of the test set elsewhere is compared with the training list too.
    other = shutil.copytree(flickr, tmp_path / "elsewhere")
    out = tmp_path / "out"
    model = str(tmp_path / "runs" / "tiny")
    assert evaluate.main([model, "--data-root", str(other), "--protocol", "lvs", "--out", str(out)]) == 0
    assert "1 of 3 test clips of single are also training clips" in metrics(out)["notes"][0]
    capsys.readouterr()


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("avgn", "Expected `method` to be one that needs no classes, which flickr does not have, but got 'avgn'"),
        ("object-aware", "generate_captions.py can't write it, as it needs the class of each clip"),
    ],
)
def test_methods_that_need_what_is_not_known(
    flickr: Path, tmp_path: Path, method: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    line = ["--data-root", str(flickr), "--runs", str(tmp_path / "runs"), "--data", str(tmp_path), "--method", method]
    assert train([*line, *LINE], dataset="flickr") == 2
    assert message in caplog.text


def test_captions_of_your_own(flickr: Path) -> None:
    captions = [{"id": name, "foreground": f"sound {name}"} for name in ("201", "202", "103")]
    (flickr / "metadata" / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in captions))
    clips, _ = FlickrFolder(flickr).training_pool("single")
    assert [clip.foreground for clip in clips] == [("sound 201",), ("sound 202",), ("sound 103",)]


def test_a_test_clip_without_a_file_of_boxes(flickr: Path) -> None:
    (flickr / "metadata" / "flickr_boxes" / "102.xml").unlink()
    with pytest.raises(ValueError, match=r"'102' of flickr_single_test\.csv has no file in flickr_boxes/"):
        FlickrFolder(flickr).test_scenes("single")


def test_there_are_no_composed_scenes(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SystemExit, match="2"):
        train([], dataset="flickr")
    assert evaluate.main([str(run), "--dataset", "flickr", "--data", str(tmp_path)]) == 2
    assert "Expected `data_root`, as there are no composed scenes for flickr" in caplog.text
