"""The loader's measurement, on a small folder."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "measure_loading.py"


def test_a_folder_made_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"--clips 300 --workers 0 --batches 1 --out {tmp_path / 'loading.json'}"
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *line.split()])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    written = json.loads((tmp_path / "loading.json").read_text())
    assert written == json.loads(capsys.readouterr().out)
    assert written["clips"] == 300
    assert written["scenes_per_second"]["0"] > 0
