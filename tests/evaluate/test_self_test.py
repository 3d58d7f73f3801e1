"""The self-test of the command: what it stores, prints and finds."""

import gzip
import json
import sys
from pathlib import Path

import pytest

from sslosses.evaluate import main, self_test
from sslosses.metrics import protocols
from sslosses.metrics._pipeline import scorer

sys.path.insert(0, str(Path(__file__).parents[1] / "metrics"))
import write_self_test


def test_every_protocol_is_as_stored(capsys):
    assert main(["--self-test"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [protocols.get(name).label for name in protocols.available()]
    assert all(line.endswith("metrics as stored") for line in lines)


def test_a_difference_is_named_and_ends_with_1(capsys, monkeypatch):
    monkeypatch.setattr(scorer, "SMOOTHING", 1.0)  # only T-VSL's IoU has it
    assert main(["--self-test"]) == 1
    wrong = [line for line in capsys.readouterr().out.splitlines() if "differs" in line]
    assert len(wrong) == 1
    assert wrong[0].startswith("tvsl: differs: mixtures: IoU is 0.")


def test_a_protocol_without_stored_metrics_differs(monkeypatch):
    stored = {**self_test._stored(), "expected": {}}
    monkeypatch.setattr(self_test, "_stored", lambda: stored)
    monkeypatch.setattr(protocols, "available", lambda: ("lvs",))
    assert self_test.self_test() == ("lvs: differs: mixtures: no stored metrics; single: no stored metrics\n", False)


def test_the_file_is_small_and_what_the_script_writes(tmp_path, monkeypatch):
    assert write_self_test.PATH.stat().st_size < 50_000
    monkeypatch.setattr(protocols, "available", lambda: ("lvs", "slavc", "noprior"))  # the others take long
    write_self_test.main(tmp_path / "file")
    new = json.loads(gzip.decompress((tmp_path / "file").read_bytes()))
    old = json.loads(gzip.decompress(write_self_test.PATH.read_bytes()))
    assert new["samples"] == old["samples"]
    for name, tasks in new["expected"].items():
        for task, values in tasks.items():
            assert values == pytest.approx(old["expected"][name][task], abs=1e-12)


def test_it_takes_no_other_arguments(capsys):
    with pytest.raises(SystemExit) as error:
        main(["--self-test", "--seed", "1"])
    assert error.value.code == 2
    assert "expected --self-test without other arguments" in capsys.readouterr().err
