from __future__ import annotations

import json

import cost_curves
import pytest
import torch
from cost_curves import Curve, exponent


def test_exponents_are_those_of_the_upper_half() -> None:
    sizes = [1, 2, 4, 8, 16, 32]
    assert exponent(sizes, [3 * size**1.5 for size in sizes]) == pytest.approx(1.5)
    assert exponent(sizes, [1e6, 1e6, 1e6, 8**2, 16**2, 32**2]) == pytest.approx(2)
    assert exponent([1, 2, 4], [5, 5, 5]) == pytest.approx(0)
    with pytest.raises(ValueError, match="at least three points above 0"):
        exponent([1, 2], [1, 2])
    with pytest.raises(ValueError, match="at least three points above 0"):
        exponent([1, 2, 4], [1, 0, 2])


def test_curves_are_measured_once_and_written(tmp_path, monkeypatch) -> None:
    """With clocks that say n² ms of processor time for size n."""
    calls = []

    def timed(work, device):
        size = work()
        return 1.0, size**2 / 1e3

    def work(size, folder):
        return lambda: calls.append(size) or size

    curves = [Curve(name, (100, 200, 400, 800), work, "fixed") for name in NAMES]
    monkeypatch.setattr(cost_curves, "CURVES", curves)
    monkeypatch.setattr(cost_curves, "timed", timed)
    monkeypatch.setattr(cost_curves, "differences", lambda *_: {"OCA value": 1e-9})
    options = ["--output", str(tmp_path), "--figure", str(tmp_path / "curves.png")]
    threads = torch.get_num_threads()
    try:
        cost_curves.main(options)
        count = len(calls)
        cost_curves.main(options)
    finally:
        torch.set_num_threads(threads)
    assert len(calls) == count == len(curves) * 4 * 4  # 1 s per round, and a budget of 3 s
    row = json.loads((tmp_path / "cost_curves.json").read_text())["rows"]["OCA, batch 400"]
    assert row["processor"]["median"] == pytest.approx(160)
    text = (tmp_path / "cost_curves.md").read_text()
    assert "| OCA, batch | 100 to 800 | fixed | 10 s to 640 s | 2.00 |" in text
    assert "plain code in float64: OCA value 1e-09" in text
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"


NAMES = ("OCA, batch", "ORI, batch", "objective, batch", "metrics, frames")


@pytest.mark.parametrize("name", ["OCA, pixels", "ORI, sources", "objective, pixels", "joining captions, clips"])
def test_works_run(name: str, tmp_path) -> None:
    (curve,) = (curve for curve in cost_curves.CURVES if curve.name == name)
    work = curve._replace(sizes=(2,)).work(98 if "pixels" in name else 2, tmp_path)
    work()


def test_answers_are_checked(tmp_path, monkeypatch) -> None:
    for make in (cost_curves.metrics_work, cost_curves.evaluate_work):
        work = make(100, tmp_path)
        work()
    monkeypatch.setattr(cost_curves, "scores", lambda count: {"AUC": count})
    with pytest.raises(SystemExit, match=r"metrics: \['AUC'\] differ"):
        cost_curves.metrics_work(200, tmp_path)()
    joining = cost_curves.join_work(20, tmp_path)
    monkeypatch.setattr(cost_curves, "join", lambda out, *_: out.write_text("other"))
    with pytest.raises(SystemExit, match="joined captions differ"):
        joining()
