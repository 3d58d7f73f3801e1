import json

import pytest
import torch
import watch as watch_program

SMALL = {
    "fused": lambda: watch_program.transport("fused", 2, 4, 3),
    "dense": lambda: watch_program.transport("dense", 2, 4, 3),
    "similarity": lambda: watch_program.maps(2, 8, 3, 2),
    "OCA": lambda: watch_program.object_aware(3, 8, 3, 2),
    "scoring": lambda: watch_program.scoring("paper", 4),
}


@pytest.fixture
def watch(tmp_path, monkeypatch):
    """Runs the program over one case that measures these ratios, one after the other."""
    threads = torch.get_num_threads()

    def start(*ratios, update=False):
        left = list(ratios)

        def measure(case, rounds):
            median = left.pop(0)
            return {"ratio": {"median": median, "quartiles": [median, median]}, "milliseconds": 1.0}

        monkeypatch.setattr(watch_program, "CASES", {"case": lambda: None})
        monkeypatch.setattr(watch_program, "measure", measure)
        status = watch_program.main(["--output", str(tmp_path), *(["--update"] if update else [])])
        assert not left, "measured less often than expected"
        return status

    yield start
    torch.set_num_threads(threads)


@pytest.mark.filterwarnings("ignore::sslosses.transport.ConvergenceWarning")
@pytest.mark.parametrize("name", SMALL)
def test_a_case_is_the_ratio_to_a_reference_that_agrees(name, monkeypatch):
    times = {"library": ([(0.0, 3.0), (0.0, 4.0), (0.0, 50.0)], ""), "reference": ([(9.0, 2.0)] * 3, "")}
    monkeypatch.setattr(watch_program, "interleaved", lambda *_: times)
    row = watch_program.measure(SMALL[name](), 3)
    assert row["ratio"]["median"] == 2
    assert row["milliseconds"] == 4000


def test_a_case_with_another_answer_is_not_timed(monkeypatch):
    monkeypatch.setattr(watch_program, "interleaved", None)
    case = watch_program.Case(lambda: [torch.ones(2)], lambda: [torch.tensor([1.0, 1.1])], atol=1e-3)
    with pytest.raises(AssertionError, match="not close"):
        watch_program.measure(case, 3)


def test_slower_than_committed_fails(watch, tmp_path, capsys):
    assert watch(2.0, update=True) == 0
    kept = json.loads((tmp_path / "watch.json").read_text())
    assert kept["rows"]["case"]["ratio"]["median"] == 2
    assert watch(2.9) == 0
    assert watch(1.0) == 0
    # Measured again before it counts.
    assert watch(3.1, 2.9) == 0
    assert watch(3.1, 3.2) == 1
    assert "case is more than 1.5 times slower" in capsys.readouterr().out
    assert json.loads((tmp_path / "watch.json").read_text()) == kept


def test_nothing_to_compare_with(watch):
    with pytest.raises(SystemExit):
        watch()


def test_every_case_is_committed():
    kept = json.loads((watch_program.RESULTS / "watch.json").read_text())
    assert set(kept["rows"]) == set(watch_program.CASES)
