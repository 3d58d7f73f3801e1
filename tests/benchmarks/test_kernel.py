import json

import kernel
import pytest
import torch


@pytest.mark.filterwarnings("ignore::sslosses.transport.ConvergenceWarning")
def test_an_iteration_is_what_more_of_them_take_longer(tmp_path, monkeypatch):
    """With a clock that says 5 ms per solve, 1 µs per iteration of all problems and 2 ms per product."""

    def interleaved(work, rounds, device):
        assert set(work) == set(rounds)
        for call in work.values():
            call()
        times = {"product": 2e-3} | {f"{count}": 5e-3 + count * 1e-6 for count in kernel.ITERATIONS}
        return {name: ([(seconds, 0.0)] * rounds[name], "") for name, seconds in times.items()}

    monkeypatch.setattr(kernel, "interleaved", interleaved)
    monkeypatch.setattr(kernel, "SIZES", {(3, 2): 2})
    threads = torch.get_num_threads()
    monkeypatch.setattr("sys.argv", ["kernel.py", "--threads", "1", "--output", str(tmp_path)])
    try:
        kernel.main()
    finally:
        torch.set_num_threads(threads)
    (row,) = json.loads((tmp_path / "kernel.json").read_text())["rows"]
    pixels, problems = 6, 6
    assert (row["pixels"], row["problems"]) == (pixels, problems)
    assert row["seconds_an_iteration_and_problem"] == pytest.approx(1e-6 / problems)
    assert row["gflops"] == row["gflops_best"] == pytest.approx(4 * pixels**2 * problems / 1e-6 / 1e9)
    assert row["gflops_whole_solve"] == pytest.approx(4 * pixels**2 * problems * 100 / 5.1e-3 / 1e9)
    assert row["product_gflops"] == pytest.approx(2 * 1024**3 / 2e-3 / 1e9)
    text = (tmp_path / "kernel.md").read_text()
    assert "| 6 | 6 | 1 | 167 ns |" in text
