import json

import pytest
import torch
import transport
from float64_reference import graded, leaves, reference
from peers import contestants
from problems import pairs_of, similarity_maps
from result_files import ROOT, Results

from sslosses.transport import solve

EPSILON, ITERATIONS = 0.2, 30
# Compiling KeOps' formulas takes minutes.
QUICK = [name for name, contestant in contestants().items() if not contestant.missing and name != "SamplesLoss, online"]


@pytest.fixture
def pairs():
    return leaves(pairs_of(similarity_maps(1, 2, 3, 2, torch.Generator().manual_seed(0))))


@pytest.fixture
def run(tmp_path, monkeypatch):
    # The processes of the contestants import the library from this repository.
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def start(*arguments):
        case = ["--pixels", "3x2", "--batch", "1", "--sources", "1", "--epsilon", str(EPSILON), "--rounds", "2"]
        folders = ["--output", str(tmp_path), "--figures", str(tmp_path)]
        transport.main([*case, "--iterations", str(ITERATIONS), "--threads", "1", *folders, *arguments])
        return json.loads((tmp_path / "transport-custom.json").read_text())

    return start


def test_reference_is_the_fixed_point_and_its_gradient(pairs):
    expected = reference(pairs, EPSILON, ITERATIONS)
    doubles = leaves(pairs.to(torch.float64))
    solved = solve(doubles.cost, epsilon=EPSILON, solver="dense", max_iter=5000, tol=1e-12)
    values, gradient = graded(solved.value(), doubles)
    torch.testing.assert_close(expected.converged, (values, gradient), rtol=0, atol=1e-9)
    limited = solve(doubles.cost, epsilon=EPSILON, solver="dense", max_iter=3, tol=1e-30, gradient="unrolled")
    unrolled = graded(limited.value(), doubles)
    torch.testing.assert_close(reference(pairs, EPSILON, 3).iterates[2], unrolled, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.filterwarnings("ignore")
def test_contestants_agree(pairs, name):
    contestant = contestants()[name]
    iterations = 3 * ITERATIONS if contestant.updates == "averaged" else ITERATIONS
    values, gradient = graded(contestant.answer(pairs, EPSILON, iterations, 0.0), pairs)
    expected = reference(pairs, EPSILON, ITERATIONS)
    if contestant.updates == "none":
        exact = solve(pairs.to(torch.float64).cost, epsilon=0).value()
        torch.testing.assert_close(values.double(), exact, rtol=0, atol=1e-6)
        return
    # Annealing is at ε for one iteration only; averaging has a temperature 1 % too high for most iterations.
    atol = {"annealed": 1e-2, "averaged": 1e-4}.get(contestant.updates, 1e-5)
    torch.testing.assert_close(values.double(), expected.converged[0], rtol=0, atol=atol)
    error = (gradient - expected.converged[1]).norm() / expected.converged[1].norm()
    assert error < (0.3 if contestant.gradient == "envelope" else 1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_run_checks_and_times_and_resumes(run, tmp_path):
    chosen = ["dense", "exact", "textbook, bmm"]
    first = run("--solvers", *chosen[:2])
    rows = {row["contestant"]: row for row in first["rows"].values()}
    assert set(rows) == set(chosen[:2])
    dense = rows["dense"]
    assert dense["status"] == "ok"
    assert dense["within_1e-4_of_iterate"]
    assert dense["value_error_converged"] < 1e-4
    assert dense["both"]["rounds"] == 2
    assert dense["gflops"] > 0
    assert rows["exact"]["above_exact"] == pytest.approx(0, abs=1e-5)
    second = run("--solvers", *chosen)
    assert {row["contestant"]: row["run"] for row in second["rows"].values()} == dict(
        zip(chosen, (0, 0, 1), strict=True)
    )
    assert [row for row in second["rows"].values() if row["run"] == 0] == list(first["rows"].values())
    table = (tmp_path / "transport-custom.md").read_text()
    assert all(f"`{name}`" in table for name in chosen)


@pytest.mark.slow
def test_a_failure_is_a_row(run):
    (row,) = run("--solvers", "dense", "--budget", "1e-6")["rows"].values()
    assert row["status"] == "failed"
    assert "over the budget" in row["reason"]
    _, row = run("--solvers", "ot.sinkhorn2", "--epsilon", "0.001")["rows"].values()
    assert row["status"] == "failed"
    assert "numerical errors" in row["reason"]


def test_results_survive_an_interruption(tmp_path):
    path = tmp_path / "results.json"
    Results(path, {"date": 1}).put("a", {"x": 1})
    path.with_name("results.json.tmp").write_text("{ cut off")
    kept = Results(path, {"date": 2})
    kept.put("b", {"x": 2})
    assert json.loads(path.read_text()) == {
        "runs": [{"date": 1}, {"date": 2}],
        "rows": {"a": {"x": 1, "run": 0}, "b": {"x": 2, "run": 1}},
    }
    assert Results(path, {}, fresh=True).rows == {}


def test_a_larger_budget_tries_again():
    over = {"reason": "over the budget of 3 s in its forward", "budget": 3}
    assert transport.done(over, 3)
    assert not transport.done(over, 4)
    assert transport.done({"reason": "in its check: RuntimeError", "budget": 3}, 4)
    assert not transport.done({"unfinished": True}, 3)
