"""The training command from end to end: finished, repeated, interrupted, refused, and on a user's folder."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from avsl.commands.train import main
from avsl.config import TWO_WAYS, Config
from avsl.data.music import MusicFolder
from avsl.evaluation.held_out import load_held_out
from avsl.evaluation.predict import predictions
from avsl.evaluation.report import ROW_SUFFIX, SMOKE_TEST
from avsl.evaluation.score import run_metrics
from avsl.model.localizer import Localizer
from avsl.training import steps as training
from avsl.training.run_folder import claimed
from PIL import Image

from ..conftest import TINY
from .conftest import DATA, EPOCHS, SCRIPT, arguments, checkpoint, complete, losses, start_and_stop

pytestmark = [
    pytest.mark.slow,
    # Lightning warns when a run is resumed that it replaces the log of the earlier part.
    pytest.mark.filterwarnings("ignore:Experiment logs directory .* exists and is not empty:UserWarning"),
]

FILES = ("config.yaml", "metrics.json", "table.md", "sheet.png", "checkpoints/last.ckpt")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """One thread here and in the processes below, so that their numbers are the same."""
    previous = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(previous)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of this file's runs and of the data that they share."""
    return tmp_path_factory.mktemp("example")


@pytest.fixture(scope="module")
def whole(place: Path) -> Path:
    """The folder of a run that nothing interrupted."""
    complete(arguments(place, "whole"))
    return place / "runs" / "whole"


@pytest.fixture(scope="module")
def whole_crops(place: Path) -> Path:
    """The same for a visual ResNet from scratch that is pretrained on crops."""
    complete(arguments(place, "whole-crops", recipe="crops"))
    return place / "runs" / "whole-crops"


def test_files(whole: Path) -> None:
    assert all((whole / name).stat().st_size for name in FILES)
    assert [p.name for p in (whole / "checkpoints").iterdir()] == ["last.ckpt"]
    config = yaml.safe_load((whole / "config.yaml").read_text())
    assert Path(config.pop("data")).name == DATA
    assert Config.from_dict(config).epochs == EPOCHS
    assert checkpoint(whole)["epoch"] == EPOCHS - 1
    with Image.open(whole / "sheet.png") as image:
        image.load()
    assert set(losses(whole)) == {9, 19, 29, 39}
    assert all(math.isfinite(v) for row in losses(whole).values() for v in row.values())


def test_metrics(whole: Path) -> None:
    rows = json.loads((whole / "metrics.json").read_text())["percent"]
    models = ["trained", "trained, clustering", "untrained", "untrained, clustering"]
    assert list(rows) == [*models, "centered Gaussian", "whole frame", "random maps"]
    wanted = {"solo AP", "solo IoU@0.5", "solo AUC", "duet CAP", "duet CIoU@0.3", "duet AUC", "solo > twin"}
    for row in rows.values():
        assert wanted <= set(row)
        assert all(0 <= value <= 100 for value in row.values())
    assert len({json.dumps({name: rows[row][name] for name in wanted}) for row in models}) == 4
    assert [row for row in rows if "deviation of reference maps" in rows[row]] == ["trained"]
    lines = (whole / "table.md").read_text().splitlines()
    assert lines[:2] == [SMOKE_TEST, ""]
    assert lines[2] == f"| % | {' | '.join(models)} | centered Gaussian | whole frame | random maps |"
    assert f"| solo AP | {rows['trained']['solo AP']:.1f} |" in "\n".join(lines)


def test_the_checkpoint_gives_the_printed_metrics(whole: Path) -> None:
    read = checkpoint(whole)
    model = Localizer(**read["hyper_parameters"])
    model.load_state_dict(read["state_dict"])
    assert model.visual.head.mean.abs().max() > 0.1  # the standardization is part of the checkpoint
    rows = json.loads((whole / "metrics.json").read_text())["percent"]
    data = whole.parents[1] / "data"
    cached = sorted(path.name for path in (data / "cache").iterdir())
    for subset in ("solo", "duet"):
        test = load_held_out(MusicFolder(data / DATA), subset, model.config.image_size)
        test.scenes.use_features("frames", model.visual, data / "cache")  # those of the run, in half precision
        assert sorted(path.name for path in (data / "cache").iterdir()) == cached
        for identification, prediction in predictions(model, test, TWO_WAYS).items():
            row = rows[f"trained{ROW_SUFFIX[identification]}"]
            for name, value in run_metrics(test, prediction).items():
                assert row[name] == pytest.approx(value, abs=1e-3)


def test_a_finished_run_is_shown_and_not_repeated(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*")}
    monkeypatch.setattr(training, "fit", None)
    monkeypatch.setattr(training, "set_up_training", None)
    assert main(arguments(whole.parents[1], "whole")) == 0
    shown = capsys.readouterr().out
    assert "complete; delete it or choose another --name" in " ".join(shown.split())
    assert all(name in shown for name in ("trained,", "untrained", "clustering", "solo AP", "duet CAP"))
    assert {p: p.stat().st_mtime_ns for p in whole.rglob("*")} == before


def test_another_configuration_under_the_same_name(whole: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = (whole / "config.yaml").read_text()
    assert main(arguments(whole.parents[1], "whole", "--tau", "0.5", "--rate", "1e-3")) == 2
    assert "holds a run with another rate, tau. Choose another --name" in caplog.text
    assert (whole / "config.yaml").read_text() == before


def test_a_run_from_before_a_key_was_added(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = whole / "config.yaml"
    written = path.read_text()
    path.write_text(written.replace("false_negatives: visual-reference\n", ""))
    assert path.read_text() != written
    monkeypatch.setattr(training, "fit", None)
    try:
        assert main(arguments(whole.parents[1], "whole")) == 0
        assert main(arguments(whole.parents[1], "whole", "--false-negatives", "reference-reference")) == 2
    finally:
        path.write_text(written)


def test_a_configuration_that_does_not_fit_the_captions(
    whole: Path, tmp_path: Path, bert: str, caplog: pytest.LogCaptureFixture
) -> None:
    line = arguments(whole.parents[1], "misfit", "--runs", str(tmp_path), "--text-encoder", bert)
    assert main([*line, "--embedding-dim", "64"]) == 2
    assert "`embedding_dim` to be at most 24, the size of the caption features" in caplog.text


def test_untrained_metrics_of_an_earlier_version(music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have no identification, and are computed again; those of this version are not."""
    config, path = Config(**TINY, workers=0), tmp_path / "untrained.json"
    path.write_text('{"solo AP": 50.0}')
    model, tests = Localizer(config.as_dict(), 10), [load_held_out(MusicFolder(music), "solo", 64)]
    metrics = training._untrained_metrics(path, model, tests, TWO_WAYS, config)
    assert set(metrics) == set(TWO_WAYS)
    monkeypatch.setattr(training, "predictions", None)
    assert training._untrained_metrics(path, model, tests, TWO_WAYS, config) == metrics == json.loads(path.read_text())


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_run_is_resumed(whole: Path, tmp_path: Path) -> None:
    """Interrupted after one epoch, killed after another, then finished: the same losses, weights and metrics."""
    place, run = whole.parents[1], whole.parent / "stopped"
    line, log, last = arguments(place, "stopped"), tmp_path / "log", run / "checkpoints" / "last.ckpt"

    assert start_and_stop(line, log, last.is_file, signal.SIGINT) == 130, log.read_text()
    assert "Interrupted. Run the same command again to resume." in log.read_text()
    assert not (run / "metrics.json").exists()
    untrained, first, time_of_first = (run / "untrained.json").read_text(), checkpoint(run)["epoch"], last.stat()

    def saved_again() -> bool:
        return last.stat().st_mtime_ns > time_of_first.st_mtime_ns

    assert start_and_stop(line, log, saved_again, signal.SIGKILL) == -signal.SIGKILL
    assert not (run / "metrics.json").exists()
    second = checkpoint(run)["epoch"]
    assert first < second < EPOCHS - 1

    complete(line)
    assert [p.name for p in (run / "checkpoints").iterdir()] == ["last.ckpt"]
    assert (run / "untrained.json").read_text() == untrained
    resumed, expected = losses(run), losses(whole)
    assert set(resumed) == set(expected)  # what was logged before a stop is kept
    for step, row in resumed.items():
        assert row == pytest.approx(expected[step], rel=1e-4), step
    ours, theirs = checkpoint(run), checkpoint(whole)
    assert (ours["epoch"], ours["global_step"]) == (theirs["epoch"], theirs["global_step"])
    torch.testing.assert_close(ours["state_dict"], theirs["state_dict"], rtol=1e-3, atol=1e-4)
    metrics, wanted = (json.loads((path / "metrics.json").read_text())["percent"] for path in (run, whole))
    assert metrics["untrained"] == pytest.approx(wanted["untrained"], abs=1e-3)
    assert metrics["trained"].keys() == wanted["trained"].keys()


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(("recipe", "unbroken"), [("quick", "whole"), ("crops", "whole_crops")])
def test_killed_within_an_epoch(recipe: str, unbroken: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """With a checkpoint every three batches, killed at one of them: the same checkpoint as an unbroken run's."""
    whole = request.getfixturevalue(unbroken)
    place, run = whole.parents[1], whole.parent / f"killed-{recipe}"
    line = arguments(place, run.name, "--checkpoint-steps", "3", recipe=recipe)
    last = run / "checkpoints" / "last.ckpt"

    read = 0

    def within_the_second_epoch() -> bool:
        nonlocal read
        try:
            if (saved := last.stat().st_mtime_ns) == read:  # reading it all the time would slow down the run
                return False
            step, read = checkpoint(run)["global_step"], saved
        except (OSError, RuntimeError):  # missing, or moved while it was read
            return False
        return step == 8 + 3

    assert start_and_stop(line, tmp_path / "log", within_the_second_epoch, signal.SIGKILL) == -signal.SIGKILL
    assert checkpoint(run)["global_step"] % 8
    complete(line)
    ours, theirs = checkpoint(run), checkpoint(whole)
    assert (ours["epoch"], ours["global_step"]) == (theirs["epoch"], theirs["global_step"])
    torch.testing.assert_close(ours["state_dict"], theirs["state_dict"], rtol=0, atol=0)
    torch.testing.assert_close(ours["optimizer_states"], theirs["optimizer_states"], rtol=0, atol=0)


def stored(path: Path) -> dict[bytes, bytes]:
    with contextlib.closing(sqlite3.connect(path)) as table:
        return dict(table.execute("SELECT key, feature FROM features"))


def test_killed_while_features_are_computed(whole: Path, tmp_path: Path) -> None:
    """With two frames per transaction: the same command keeps those that are done and computes the others."""
    cache = whole.parents[1] / "data" / "cache"
    others = set(cache.glob("features-frames-*.sqlite"))
    script = tmp_path / "small_batches.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(SCRIPT.parent)!r})\n"
        "from avsl.commands.train import main\n"
        "from avsl.model import feature_file\n"
        "feature_file.BATCH = 2\n"
        "sys.exit(main())\n"
    )
    line = arguments(whole.parents[1], "features", "--image-size", "64", "--epochs", "1", "--runs", str(tmp_path))

    def within_the_features() -> bool:
        files = set(cache.glob("features-frames-*.sqlite")) - others
        try:
            return bool(files) and len(stored(files.pop())) > 0
        except sqlite3.OperationalError:  # the table is being made
            return False

    log = tmp_path / "log"
    assert start_and_stop(line, log, within_the_features, signal.SIGKILL, script) == -signal.SIGKILL
    (path,) = set(cache.glob("features-frames-*.sqlite")) - others
    assert 0 < len(stored(path)) < 32
    with contextlib.closing(sqlite3.connect(path)) as table, table:  # so that a row that is computed again is seen
        table.execute("UPDATE features SET feature = zeroblob(length(feature))")
    done = stored(path)
    complete(line)
    assert (tmp_path / "features" / "metrics.json").is_file()
    finished = stored(path)
    assert len(finished) == 32 + 12  # 16 scenes of training and 6 of the test, twice
    assert finished.items() >= done.items()


def test_pretraining_is_done_once_per_configuration(whole_crops: Path, tmp_path: Path) -> None:
    cache = whole_crops.parents[1] / "data" / "cache"
    (path,) = cache.glob("pretrained-*.pt")
    before = path.stat().st_mtime_ns
    line = arguments(whole_crops.parents[1], "again", "--epochs", "1", "--runs", str(tmp_path), recipe="crops")
    assert main([*line, "--rate", "1e-3"]) == 0
    assert path.stat().st_mtime_ns == before
    assert main([*line, "--name", "other", "--pretraining-steps", "2"]) == 0
    assert len(list(cache.glob("pretrained-*.pt"))) == 2


def test_stopped_after_training_and_moved(whole: Path, tmp_path: Path) -> None:
    """Only the missing step is done: the evaluation, by the same model."""
    run = tmp_path / "moved"
    shutil.copytree(whole, run)
    (run / "metrics.json").unlink()
    assert main(arguments(whole.parents[1], "moved", "--runs", str(tmp_path))) == 0
    assert [p.name for p in (run / "checkpoints").iterdir()] == ["last.ckpt"]
    assert checkpoint(run)["global_step"] == checkpoint(whole)["global_step"]
    metrics, wanted = (json.loads((path / "metrics.json").read_text())["percent"] for path in (run, whole))
    assert metrics["trained"] == pytest.approx(wanted["trained"], abs=1e-3)


@pytest.fixture
def users_folder(whole: Path, tmp_path: Path) -> Path:
    """The composed scenes without the files that only composed data have."""
    composed, folder = whole.parents[1] / "data" / DATA, tmp_path / "MUSIC"
    shutil.copytree(composed, folder, ignore=shutil.ignore_patterns("silent_objects.json", "dataset.json"))
    return folder


def test_a_users_folder(users_folder: Path, tmp_path: Path, bert: str, caplog: pytest.LogCaptureFixture) -> None:
    metadata, (seen, *_) = users_folder / "metadata", sorted((users_folder / "frames").glob("emb3*"))
    with (metadata / "music_duet_train.txt").open("a") as out:  # a test clip that is also a training clip
        out.write(f"{seen.stem},cello,flute\n")
    line = ["--data-root", str(users_folder), "--runs", str(tmp_path / "runs"), "--data", str(tmp_path / "data")]
    line += ["--config", "quick", "--epochs", "1", "--batch-size", "8", "--subsets", "duet", "--crops", "64"]
    line += ["--backbone", "resnet", "--visual-weights", "none", "--visual-widths", "8", "--visual-depths", "1"]
    assert main([*line, "--text-encoder", bert, "--embedding-dim", "16"]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("MUSIC-quick-seed0")
    assert all((run / name).stat().st_size for name in FILES)
    rows = json.loads((run / "metrics.json").read_text())["percent"]
    assert list(rows["whole frame"]) == ["duet CAP", "duet CIoU@0.3", "duet AUC"]
    note = "1 of 6 test clips of duet are also training clips, and 0 more are of the same videos as training clips "
    note += f"(first: {seen.stem})"
    for text in (caplog.text, (run / "metrics.json").read_text(), (run / "table.md").read_text()):
        assert note in text
    caplog.clear()
    assert main([*line, "--text-encoder", bert, "--embedding-dim", "16"]) == 0  # a finished run says it again
    assert note in caplog.text
    # Crops of drawn instruments are not pretraining for real frames, and nothing was composed.
    assert [p.name.split("-")[0] for p in (tmp_path / "data" / "cache").glob("[!.]*")] == ["captions"]
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["cache"]


def test_a_wrong_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert main(["--data-root", str(tmp_path), "--runs", str(tmp_path / "runs")]) == 2
    assert "to hold the folders frames/ (<id>.jpg), audio/ (<id>.wav) and metadata/" in caplog.text
    assert f"{tmp_path} lacks frames/, audio/, metadata/" in caplog.text
    assert not (tmp_path / "runs").exists()


def test_a_damaged_folder(users_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (users_folder / "audio" / "emb10000003_000_00000.wav").unlink()
    line = ["--data-root", str(users_folder), "--runs", str(tmp_path / "runs"), "--data", str(tmp_path / "data")]
    assert main([*line, "--config", "quick"]) == 2
    assert "emb10000003_000_00000.wav" in caplog.text


def test_a_start_that_failed_does_not_hold_the_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(ValueError, match="dens"), claimed(run, Config(ori_solver="dens"), tmp_path):
        raise ValueError("dens")
    with claimed(run, Config(), tmp_path):
        assert yaml.safe_load((run / "config.yaml").read_text())["ori_solver"] == "auto"
        (run / "untrained.json").write_text("{}")
    with (
        pytest.raises(ValueError, match="another tau"),
        claimed(run, Config(tau=0.5), tmp_path),
    ):
        pass


def test_keys_that_a_resumed_run_can_change(tmp_path: Path) -> None:
    run, config = tmp_path / "run", Config(mirror=False, cache_features=True, workers=2)
    with claimed(run, config, tmp_path):
        (run / "untrained.json").write_text("{}")
    with claimed(run, dataclasses.replace(config, cache_features=False, workers=0), tmp_path):
        pass
