import contextlib
import io
import json
import subprocess

import baseline_losses
import pytest
import torch
from baseline_cases import SMALL, cases

from sslosses.losses import baselines

SMALL_RUN = ["--batch", "4", "--channels", "8", "--rounds", "2", "--threads", "1"]


@pytest.mark.parametrize("name", cases())
def test_naive_forms_agree(name):
    # The naive ORI runs all its iterations; the library stops at a tolerance, and its gradient is the fixed point's.
    assert baseline_losses.difference(cases()[name]) < (1e-2 if name in ("ORI", "objective") else 1e-9)


@pytest.mark.parametrize("name", cases())
@pytest.mark.filterwarnings("ignore::sslosses.transport.ConvergenceWarning")
def test_inputs_reach_every_gradient(name):
    case = cases()[name]
    tensors = case.inputs(SMALL)
    gradients = baseline_losses.graded(case.library, tensors)[1:]
    if name == "DSOL, second stage: dictionary":
        gradients.pop()  # the bias has no effect on the loss
    assert gradients
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_every_loss_is_measured():
    called = set()

    def count(module, *_):
        called.add(type(module).__name__)

    handle = torch.nn.modules.module.register_module_forward_hook(count)
    try:
        for name, case in cases().items():
            if name not in ("ORI", "objective"):
                case.library(*case.inputs(SMALL))
    finally:
        handle.remove()
    # `correspondence` calls the function: its module would own scale and bias.
    known = {name for name in baselines.__all__ if name.endswith("Loss")} - {"MultipleInstanceCorrespondenceLoss"}
    assert known <= called


def test_a_run_times_everything_and_resumes(tmp_path, monkeypatch):
    case = cases()["EZ-VSL: best place"]
    chosen = {
        "all": case,
        "few": case._replace(naive_samples=2),
        "wrong": case._replace(naive=lambda *x: 2 * case.naive(*x)),
        "nan": case._replace(naive=lambda *x: torch.nan * case.naive(*x)),
    }
    monkeypatch.setattr(baseline_losses, "cases", lambda: chosen)
    command = [*SMALL_RUN, "--no-memory", "--output", str(tmp_path)]
    baseline_losses.main(command)
    path = tmp_path / "baseline-losses.json"
    first = json.loads(path.read_text())
    rows = {row["name"]: row for row in first["rows"].values()}
    assert list(rows["all"]["times"]) == ["library", "naive"]
    assert list(rows["few"]["times"]) == ["library", "library, few", "naive"]
    assert all(times["median"] > 0 for name in ("all", "few") for times in rows[name]["times"].values())
    # Each input is read once, and each gradient is written once.
    size = 4 * (4 * 8 * 14 * 7 + 4 * 8)
    assert rows["all"]["floor"] * rows["all"]["bandwidth"] == pytest.approx(2 * size)
    assert rows["all"]["least_mib"] == pytest.approx(size / 2**20)
    baseline_losses.main(command)
    assert json.loads(path.read_text()) == first
    lines = (tmp_path / "baseline-losses.md").read_text().splitlines()
    for name in ("wrong", "nan"):
        assert "times" not in rows[name]
        assert any(line.startswith(f"| {name} | failed: differs by") for line in lines)


def test_the_ratio_is_of_the_same_samples():
    times = {"first_run_only": False, "quartiles": [1, 1]}
    row = {
        "name": "loss",
        "sizes": SMALL._asdict(),
        "naive_samples": 2,
        "floor": 0.5,
        "least_mib": 1,
        "times": {form: times | {"median": x} for form, x in (("library", 8), ("library, few", 3), ("naive", 6))},
    }
    cells = baseline_losses._cells(row)
    assert cells[2] == "16"
    assert cells[4] == "2"
    assert cells[3].endswith("(2 samples)")


def test_memory_is_measured_in_a_process(tmp_path, monkeypatch):
    """The process is replaced by a call with its arguments."""

    def run(command, **_):
        output, error = io.StringIO(), ""
        with contextlib.redirect_stdout(output):
            try:
                baseline_losses.main(command[2:])
            except SystemExit as failure:
                error = str(failure)
        return subprocess.CompletedProcess(command, int(bool(error)), output.getvalue(), error)

    def broken(*_):
        raise MemoryError("too much")

    monkeypatch.setattr(baseline_losses.subprocess, "run", run)
    monkeypatch.setattr(baseline_losses, "limit_memory", lambda _: None)
    case = cases()["EZ-VSL: best place"]
    monkeypatch.setattr(baseline_losses, "cases", lambda: {"good": case, "bad": case._replace(naive=broken)})
    options = ["--channels", "256", "--batch", "32", "--threads", "1"]
    baseline_losses.main([*options, "--rounds", "1", "--losses", "good", "--output", str(tmp_path)])
    (row,) = json.loads((tmp_path / "baseline-losses.json").read_text())["rows"].values()
    assert all(row["memory"][form]["mib"] >= row["least_mib"] for form in ("library", "naive"))
    parsed = baseline_losses.parser().parse_args(options)
    assert baseline_losses.peak_of_process("bad", "naive", 2, parsed) == {"failed": "MemoryError: too much"}
