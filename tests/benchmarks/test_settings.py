import json

import pytest
import settings


@pytest.fixture
def two_cases(monkeypatch):
    cases = (settings.Case("OCA", "small", {}, 3), settings.Case("ORI", "few", {"max_iter": 1}, 2))
    monkeypatch.setattr(settings, "CASES", cases)
    monkeypatch.setattr(
        settings, "measure_in_process", lambda index, rounds: settings.measure(cases[index], rounds, channels=4)
    )


def test_a_row_per_case_and_a_table(two_cases, tmp_path, capsys):
    settings.main(["--rounds", "2", "--output", str(tmp_path)])
    small, few = json.loads((tmp_path / "settings.json").read_text())["rows"].values()
    assert len(small["times"]) == 2
    assert "converged" not in small
    assert few["converged"] is False
    text = (tmp_path / "settings.md").read_text()
    assert "| OCA | small |" in text
    assert ", not reached |" in text
    settings.main(["--table", "--output", str(tmp_path)])
    assert (tmp_path / "settings.md").read_text() == text


def test_compiling_is_timed(monkeypatch):
    monkeypatch.setattr(settings.torch, "compile", lambda function, **_: function)
    row = settings.measure(settings.Case("OCA", "small", {}, 3, compiled=True), 1, channels=4)
    assert row["compiling"] > 0
