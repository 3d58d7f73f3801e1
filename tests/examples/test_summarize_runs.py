"""Several runs as one table."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import summarize_runs
from avsl.evaluation.report import SMOKE_TEST, write_report


def test_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, trained in (("a", 60.0), ("b", 40.0)):
        rows = {"trained": {"AP": trained, "without map": 0.0}, "untrained": {"AP": 30.0}, "chance": {"AP": 50.0}}
        write_report(tmp_path / name, rows, {"training": 2.0, "data": 1.0}, [SMOKE_TEST])
    with_mark = tmp_path / "a" / "metrics.json"  # as some editors save it
    with_mark.write_text(with_mark.read_text(), encoding="utf-8-sig")
    monkeypatch.setattr(sys, "argv", ["summarize_runs.py", str(tmp_path / "a"), str(tmp_path / "b")])
    summarize_runs.main()
    assert capsys.readouterr().out.splitlines() == [
        SMOKE_TEST,
        "",
        "| trained, % | mean ± sd | run 1 | run 2 | untrained | chance | runs ahead of all |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| AP | 50.0 ± 14.1 | 60.0 | 40.0 | 30.0 | 50.0 | 1 of 2 |",
        "",
        "Seconds per run: 3, 3",
    ]


def test_one_table_per_identification(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is compared with all references, and with no other trained row."""
    rows = {"trained": 60.0, "trained, clustering": 70.0, "untrained": 30.0, "untrained, clustering": 65.0}
    write_report(tmp_path / "a", {name: {"AP": value} for name, value in rows.items()}, {"training": 2.0})
    monkeypatch.setattr(sys, "argv", ["summarize_runs.py", str(tmp_path / "a")])
    summarize_runs.main()
    assert capsys.readouterr().out.splitlines() == [
        "| trained, % | mean ± sd | run 1 | untrained | untrained, clustering | runs ahead of all |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| AP | 60.0 ± 0.0 | 60.0 | 30.0 | 65.0 | 0 of 1 |",
        "",
        "| trained, clustering, % | mean ± sd | run 1 | untrained | untrained, clustering | runs ahead of all |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| AP | 70.0 ± 0.0 | 70.0 | 30.0 | 65.0 | 1 of 1 |",
        "",
        "Seconds per run: 2",
    ]
