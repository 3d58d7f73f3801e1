"""How the command ends: closed and broken pipes, full disks, and what killed runs leave."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sslosses
from sslosses.evaluate import main, sheet
from sslosses.evaluate.results_folder import atomic_write

ROOT = Path(sslosses.__file__).parents[1]
FILES = ["metrics.json", "table.md", "table.tex"]


@pytest.fixture
def arguments(tmp_path):
    entry = {"file": "a_000030", "class": "bird", "bbox": [[0.1, 0.2, 0.6, 0.9]]}
    (tmp_path / "vggss.json").write_text(json.dumps([entry]))
    np.savez(tmp_path / "maps.npz", a_000030=np.eye(4, dtype=np.float32))
    paths = ["--maps", tmp_path / "maps.npz", "--annotations", tmp_path / "vggss.json", "--out", tmp_path / "scores"]
    return [*map(str, paths), "--format", "vggss", "--protocol", "paper", "--no-chance"]


def run(arguments, redirection, **environment):
    line = f'"$0" -m sslosses.evaluate "$@" {redirection}'
    return subprocess.run(
        ["bash", "-c", line, sys.executable, *arguments, "--no-sheet"],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("redirection", ["| head -c0; exit ${PIPESTATUS[0]}", ">&-", ">&- 2>&-"])
def test_nobody_reads_the_tables(arguments, tmp_path, redirection):
    done = run(arguments, redirection)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in (tmp_path / "scores").iterdir()) == FILES


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_tables_that_cannot_be_printed(arguments, tmp_path):
    done = run(arguments, "> /dev/full")
    assert done.returncode == 1
    assert done.stderr.startswith("error: the results are in ")
    assert done.stderr.count("\n") == 1
    assert sorted(path.name for path in (tmp_path / "scores").iterdir()) == FILES


def test_an_output_without_the_letters_of_the_tables(arguments, tmp_path):
    np.savez(tmp_path / "maps.npz", a_000030=np.zeros((0, 4, 4), np.float32))  # – in place of numbers
    done = run(arguments, "", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "\\u2013" in done.stdout


def test_an_interrupted_run(arguments, tmp_path, monkeypatch, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(sheet, "draw", interrupt)
    assert main(arguments) == 130
    assert capsys.readouterr().err == "Interrupted; nothing is written.\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["maps.npz", "vggss.json"]


KILLED = """
import os, signal, sys
from pathlib import Path
from sslosses.evaluate.results_folder import atomic_write
with atomic_write(Path(sys.argv[1]), ("a",)) as folder:
    (folder / "a").write_text("half")
    print(flush=True)
    if sys.argv[2] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.read()
"""


def test_what_a_killed_run_leaves_is_removed_by_the_next_one(arguments, tmp_path):
    line = [sys.executable, "-c", KILLED, str(tmp_path / "scores")]
    done = subprocess.run([*line, "kill"], cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
    assert done.returncode == -signal.SIGKILL
    abandoned = [path.name for path in tmp_path.iterdir() if path.name.startswith(".scores.")]
    (tmp_path / ".scores.mine").mkdir()  # a folder of the user
    living = subprocess.Popen([*line, "wait"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    living.stdout.readline()
    hidden = {path.name for path in tmp_path.iterdir() if path.name.startswith(".scores.")}
    assert len(abandoned) == 1
    assert not hidden & set(abandoned)
    assert len(hidden) == 2
    assert main([*arguments, "--no-sheet"]) == 0
    living.communicate(b"")
    assert (living.returncode, (tmp_path / "scores" / "a").read_text()) == (0, "half")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == [".scores.mine"]


def test_an_earlier_sheet_does_not_stay_beside_other_scores(arguments, tmp_path):
    pytest.importorskip("matplotlib")
    assert main(arguments) == 0
    (tmp_path / "scores" / "notes.txt").write_text("mine")
    assert main([*arguments, "--no-sheet"]) == 0
    assert sorted(path.name for path in (tmp_path / "scores").iterdir()) == sorted([*FILES, "notes.txt"])


def test_a_folder_is_written_as_a_whole_or_not_at_all(tmp_path):
    def fail():
        with atomic_write(tmp_path / "out", ("a", "b")) as folder:
            (folder / "a").write_text("a")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert not list(tmp_path.iterdir())
    with atomic_write(tmp_path / "out", ("a", "b")) as folder:
        (folder / "b").write_text("b")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b"]
