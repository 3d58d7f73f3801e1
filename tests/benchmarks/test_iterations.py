import iterations
import torch
from result_files import Results
from transport_report import iterations_table

from sslosses.transport import solve


def test_plain_iterations_are_those_of_the_library():
    pairs = iterations.problems("random", 3, 5, 4)
    counted = iterations.sinkhorn(pairs, 0.1).iterations
    assert (counted - solve(pairs.cost, epsilon=0.1, solver="dense", max_iter=1000).iterations).abs().max() <= 1


def test_every_method_reaches_the_fixed_point(monkeypatch, tmp_path):
    monkeypatch.setattr(iterations, "GRIDS", ((4, 3),))
    monkeypatch.setattr(iterations, "EPSILONS", (0.1,))
    results = Results(tmp_path / "results.json", {"versions": {}, "gpu": None, "cpu": "", "cores": 1, "threads": 1})
    results.runs[0] |= {"date": "", "command": ""}
    for key, row in iterations.measure(count=2):
        results.put(key, row)
        assert row["most"]["plain"] < iterations.MOST
        assert row["most"]["best ω"] <= row["most"]["plain"]
    assert len(results.rows) == 2
    assert list(iterations.measure(results.rows)) == []
    assert iterations_table(results).count("| 4 × 3 |") == 2


def test_a_warm_start_at_the_solution_ends_at_once():
    pairs = iterations.problems("complementary", 2, 4, 3)
    _, start = iterations.sinkhorn(pairs, 0.05)
    assert torch.equal(iterations.sinkhorn(pairs, 0.05, start=start).iterations, torch.ones(2))
