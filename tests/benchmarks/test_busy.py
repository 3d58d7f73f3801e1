import json
import subprocess

import busy
import losses
import pytest


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(busy, "CASES", {"case": lambda: lambda: None})


def test_a_case_is_timed_on_a_free_machine_and_beside_busy_programs(tiny, capsys):
    busy.main(["--case", "case", "--rounds", "4", "--programs", "2"])
    times = json.loads(capsys.readouterr().out)
    assert {state: len(values) for state, values in times.items()} == {"free": 4, "busy": 4}


def test_busy_programs_end_with_the_measurement(monkeypatch):
    started = []
    popen = subprocess.Popen

    def remembered(*arguments, **options):
        started.append(popen(*arguments, **options))
        return started[-1]

    def fail():
        raise ZeroDivisionError

    monkeypatch.setattr(busy.subprocess, "Popen", remembered)
    monkeypatch.setattr(busy, "times_of", lambda *_: fail() if started else [])
    monkeypatch.setattr(busy, "CASES", {"case": lambda: fail})
    with pytest.raises(ZeroDivisionError):
        busy.measure("case", 1, 1.0, 2)
    assert len(started) == 2
    assert all(program.returncode is not None for program in started)


def test_each_way_to_wait_has_its_variables_and_a_row(tiny, monkeypatch, tmp_path, capsys):
    seen = []

    def run(command, env, **_):
        seen.append({name: env[name] for name in (*busy.VARIABLES, "OMP_NUM_THREADS") if name in env})
        output = json.dumps({"free": [1.0, 2.0, 3.0], "busy": [4.0, 4.0, 4.0]})
        return subprocess.CompletedProcess(command, 0, output)

    monkeypatch.setenv("GOMP_SPINCOUNT", "5")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(busy.subprocess, "run", run)
    busy.main(["--turns", "1", "--output", str(tmp_path)])
    assert seen == list(busy.WAYS.values())
    text = (tmp_path / "busy.md").read_text()
    assert text.count("| 2.0 |") == len(busy.WAYS)
    busy.main(["--table", "--output", str(tmp_path)])
    assert (tmp_path / "busy.md").read_text() == text


@pytest.mark.parametrize("name", ["ORI", "OCA", "fused", "scoring", "plain"])
def test_every_case_runs(name, monkeypatch):
    inputs = losses.inputs
    monkeypatch.setattr(losses, "inputs", lambda _, *rest: inputs(2, *rest))
    (case,) = (case for title, case in busy.CASES.items() if title.startswith(name))
    case()()
