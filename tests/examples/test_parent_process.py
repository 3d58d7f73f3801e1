"""Programs that end with the one that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import avsl
import pytest
from avsl import parent_process
from avsl.commands import train
from avsl.parent_process import VARIABLE, end_with_starter
from avsl.tables.runs import Plan, Run, complete_runs

CHILD = "from avsl.parent_process import end_with_starter; end_with_starter(); print('up', flush=True); {work}"
WORK = "import signal; signal.pause()"
WAIT = f"import os\nwhile os.getppid() == int(os.environ[{VARIABLE!r}]): pass\n"
PARENT = """
import os, subprocess, sys
subprocess.Popen([sys.executable, "-c", sys.argv[1]], env=os.environ | {{"{variable}": str(os.getpid())}})
{then}
"""


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
@pytest.mark.parametrize(
    ("how", "work"),
    [
        (signal.SIGKILL, WORK),
        (signal.SIGTERM, WORK),
        (signal.SIGKILL, "import signal; signal.signal(signal.SIGTERM, lambda *_: None); signal.pause(); " + WORK),
    ],
)
def test_a_killed_starter(how: signal.Signals, work: str) -> None:
    with start(PARENT.format(variable=VARIABLE, then=WORK), CHILD.format(work=work)) as process:
        assert process.stdout.readline() == "up\n"
        process.send_signal(how)
        assert process.communicate(timeout=60) == ("", None)  # the child has closed its end of the pipe


@pytest.mark.skipif(os.name != "posix", reason="uses the parent of a POSIX process")
def test_a_starter_that_ended_first() -> None:
    with start(PARENT.format(variable=VARIABLE, then=""), WAIT + CHILD.format(work=WORK)) as process:
        assert process.wait(60) == 0
        assert process.communicate(timeout=60)[0] in ("", "up\n")


def start(*arguments: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(Path(avsl.__file__).parents[1])}
    return subprocess.Popen([sys.executable, "-c", *arguments], stdout=subprocess.PIPE, text=True, env=environment)


def test_only_a_named_starter_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    watched: list[int] = []
    monkeypatch.setattr(parent_process, "end_with", watched.append)
    for value in ("", "x", str(os.getpid()), "123456789"):
        monkeypatch.setenv(VARIABLE, value)
        end_with_starter()
        assert os.environ[VARIABLE] == str(os.getpid())  # what this program starts ends with it
    assert watched == [123456789]


def test_training_ends_with_its_starter(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[bool] = []
    monkeypatch.setattr(train, "end_with_starter", lambda: called.append(True))
    assert train.main(["--config", "no such"]) == 2
    assert called == [True]


def test_runs_of_tables_end_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = f"import os; print(os.environ[{VARIABLE!r}])"
    monkeypatch.setattr(Run, "command", lambda _: [sys.executable, "-c", code])
    run = Run(Plan("quick", {}, tmp_path / "runs", tmp_path / "data"), "music", ("duet",), None, 0)
    assert complete_runs([run], 1) == []
    assert run.log.read_text() == f"{os.getpid()}\n"
