import json

import losses
import pytest

from sslosses import ObjectAwareObjective, ORILoss


def test_naive_losses_agree():
    # The public log-domain form adds 1e-8 to every mass.
    differences = losses.differences("dense", 3, 2, 2)
    assert max(value for name, value in differences.items() if not name.startswith("ORI by")) < 1e-6
    # 100 iterations do not quite reach the fixed point.
    assert max(differences.values()) < 1e-2


@pytest.mark.filterwarnings("ignore::sslosses.transport.ConvergenceWarning")
def test_inputs_reach_every_gradient():
    tensors = losses.inputs(3, 8, 3, 2, 2, "cpu")
    losses.both(ObjectAwareObjective(ori=ORILoss(solver="dense")), tensors)()
    assert all(x.grad.abs().sum() > 0 for x in tensors)


@pytest.mark.filterwarnings("ignore")
def test_a_run_times_everything_and_resumes(tmp_path):
    small = ["--batch", "4", "--channels", "8", "--pixels", "3x2", "--rounds", "2", "--step-batch", "0"]
    folders = [
        "--output",
        str(tmp_path),
        "--threads",
        "1",
        "--no-compile",
        "--solver",
        "dense",
    ]
    losses.main([*small, *folders, "--naive-batch", "2"])
    first = json.loads((tmp_path / "losses.json").read_text())
    (row,) = first["rows"].values()
    assert all(times["median"] > 0 for times in row["times"].values())
    assert row["times"]["ORI, naive|both"]["samples"] == 2
    losses.main([*small, *folders])
    assert json.loads((tmp_path / "losses.json").read_text()) == first
    assert "OCA, eager" in (tmp_path / "losses.md").read_text()
