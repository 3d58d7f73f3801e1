"""Commands answer ``--help`` and report mistakes before they import what takes seconds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from avsl.commands import evaluate
from avsl.config import CAPTIONED_METHODS, METHODS, SOLVERS, Config
from avsl.methods import method_class
from avsl.training.data_location import DataLocation, data_root

import sslosses
from sslosses.metrics import protocols

SCRIPTS = Path(__file__).resolve().parents[3] / "examples"
HEAVY = ("torch", "lightning", "transformers", "matplotlib", "scipy", "torchmetrics", "numba", "sslosses")
# Runs command lines in one process, and prints the status and the heavy modules after each.
PROGRAM = """
import contextlib, importlib, json, runpy, sys
heavy, lines = json.loads(sys.argv[1]), json.loads(sys.argv[2])
for script, *arguments in lines:
    sys.argv = [script, *arguments]
    try:
        with contextlib.redirect_stdout(sys.stderr):
            runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        status = end.code
    print(json.dumps([status, sorted(set(heavy) & set(sys.modules))]), flush=True)
"""


def run_lines(lines: list[list[str]], folder: Path, heavy: tuple[str, ...] = HEAVY) -> tuple[list[list], str]:
    """The status and the heavy modules after each line, and all that was written to stderr."""
    lines = [[str(SCRIPTS / script), *arguments] for script, *arguments in lines]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(SCRIPTS), str(SCRIPTS.parent)))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(heavy), json.dumps(lines)],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env=environment,
    )
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_help(tmp_path: Path) -> None:
    scripts = sorted(path.name for path in SCRIPTS.glob("*.py") if "avsl.commands" in path.read_text())
    assert len(scripts) == 13
    ends, _ = run_lines([[name, "--help"] for name in scripts], tmp_path)
    assert dict(zip(scripts, ends, strict=True)) == {name: [0, []] for name in scripts}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with a MUSIC folder without captions, a VGGSound folder and a finished run."""
    for name, lists in (
        ("music", ("music_solo_train.txt", "music_solo_test.csv", "music_solo.json")),
        ("vggsound", ("vggsound_train.csv", "vggsound_single_test.csv", "vggss.json")),
    ):
        for part in ("frames", "audio", "metadata"):
            (tmp_path / name / part).mkdir(parents=True)
        for file in lists:
            (tmp_path / name / "metadata" / file).touch()
    shutil.copytree(tmp_path / "music", tmp_path / "captioned")
    (tmp_path / "captioned" / "metadata" / "captions.jsonl").touch()
    run = tmp_path / "runs" / "finished"
    run.mkdir(parents=True)
    config = Config.load(["quick"], {})
    data = {"data": str(data_root(DataLocation(tmp_path / "data"), config).resolve())}
    (run / "config.yaml").write_text(yaml.safe_dump(config.as_dict() | data))
    (run / "metrics.json").write_text(json.dumps({"percent": {"trained": {"solo AP": 12.3}}, "notes": []}))
    return tmp_path


MISTAKES = {
    "Expected `config` to be a YAML file": ["train_music.py", "--config", "none"],
    "unrecognized arguments: --ori-eps 0.1": ["train_music.py", "--ori-eps", "0.1"],
    "Expected `ori_solver` to be one of auto, dense": ["train_music.py", "--ori-solver", "sinkhorn"],
    "lacks frames/, audio/, metadata/": ["train_music.py", "--data-root", "none"],
    "Create it with: python examples/generate_captions.py": [
        *("train_music.py", "--data-root", "music", "--subsets", "solo"),
    ],
    "Create it with: python examples/prepare_music.py": ["train_music.py", "--data-root", "music"],
    "The folder holds VGGSound. Use train_vggsound.py": ["train_music.py", "--data-root", "vggsound"],
    "The folder holds MUSIC. Use train_music.py": ["train_vggsound.py", "--data-root", "music"],
    "there is no folder or file none": ["evaluate.py", "none"],
    "there is no folder or file runs/mistyped": ["evaluate.py", "runs/mistyped"],
    "Expected `text_encoder` to be a folder": [
        *("train_music.py", "--data-root", "captioned", "--subsets", "solo", "--text-encoder", "./nomodel"),
    ],
    "Expected `model` to be a folder": ["generate_captions.py", "--data-root", "music", "--model", "./nomodel"],
    "and metadata/ (vggsound_train.csv": [
        *("evaluate.py", "runs", "--data-root", "music/frames", "--dataset", "vggsound"),
    ],
    "there is no file a.png": ["localize.py", "model.ckpt", "a.png", "a.wav"],
    "there is no folder nothing": ["export_model.py", "nothing", "shared"],
    "to be one of": ["reproduce_tables.py", "--table", "99"],
    "at least one of metadata/music_solo_train.txt": ["generate_captions.py", "--data-root", "none", "--model", "m"],
    "Expected `--lists` to be a folder with": [
        *("prepare_music.py", "--videos", ".", "--lists", "none", "--out", "out"),
    ],
}


def test_mistakes(folder: Path) -> None:
    (folder / "model.ckpt").touch()
    (folder / "runs" / "checkpoints").mkdir()
    (folder / "runs" / "checkpoints" / "last.ckpt").touch()
    ends, errors = run_lines(list(MISTAKES.values()), folder)
    assert [message for message in MISTAKES if message not in errors] == []
    assert dict(zip(MISTAKES, ends, strict=True)) == {message: [2, []] for message in MISTAKES}


def test_a_finished_run_is_shown(folder: Path) -> None:
    ends, shown = run_lines([["train_music.py", "--quick", "--name", "finished"]], folder)
    assert ends == [[0, []]]
    assert "12.3" in shown
    assert not (folder / "data").exists()  # no scene is composed


def test_what_is_written_down_is_what_the_library_has() -> None:
    """These names are constants of the commands, so that the library need not be imported for them."""
    assert protocols.available() == evaluate.PROTOCOLS
    assert sslosses.transport.SOLVERS == SOLVERS
    assert tuple(name for name in METHODS if method_class(name).needs_captions) == CAPTIONED_METHODS
