"""How fast the fused solver's iterations are by themselves, and what bounds them.

The time of an iteration is the difference of two solves that differ in nothing but their number of iterations, so what
happens once (the cost, the first plan, threads, the value) is left out. An iteration is 4·N·M floating-point operations
a problem. Beside it: a float32 matrix product by torch, the most that the machine's arithmetic gives, and how often a
second the plan is read.

    python benchmarks/kernel.py

Writes benchmarks/results/kernel.json and benchmarks/results/kernel.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from problems import pairs_of, similarity_maps
from result_files import ROOT, Row, environment, interleaved, machine_and_command, markdown, seconds, spread

from sslosses.transport import solve

SIZES = {(7, 7): 256, (14, 7): 64, (14, 14): 32, (28, 28): 4}
ITERATIONS = (100, 400)


def measure(side: tuple[int, int], batch: int, threads: int, rounds: int) -> Row:
    torch.set_num_threads(threads)
    pairs = pairs_of(similarity_maps(batch, 2, *side, torch.Generator().manual_seed(0)))
    work = {
        f"{count}": lambda count=count: solve(pairs.cost, epsilon=0.1, solver="fused", max_iter=count, tol=1e-30)
        for count in ITERATIONS
    }
    square = torch.rand(1024, 1024)
    work["product"] = lambda: square @ square
    for call in work.values():
        call()
    times = interleaved(work, dict.fromkeys(work, rounds), "cpu")
    few, many = (spread([elapsed for elapsed, _ in times[f"{count}"][0]]) for count in ITERATIONS)
    pixels, problems = side[0] * side[1], batch * 3
    iteration = (many["median"] - few["median"]) / (ITERATIONS[1] - ITERATIONS[0])
    best = (many["range"][0] - few["range"][0]) / (ITERATIONS[1] - ITERATIONS[0])
    product = min(elapsed for elapsed, _ in times["product"][0])
    work_done = 4 * pixels**2 * problems / 1e9
    return {
        "pixels": pixels,
        "problems": problems,
        "threads": threads,
        "seconds_an_iteration_and_problem": iteration / problems * threads,
        "gflops": work_done / iteration,
        "gflops_best": work_done / best,
        "gflops_whole_solve": work_done * ITERATIONS[0] / few["median"],
        "plan_gigabytes_a_second": pixels**2 * 4 * problems / iteration / 1e9,
        "product_gflops": 2 * 1024**3 / product / 1e9,
        "rounds": rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, torch.get_num_threads()}))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    run = environment("cpu", max(options.threads))
    rows = [measure(side, batch, n, options.rounds) for n in options.threads for side, batch in SIZES.items()]
    table = markdown(
        (
            "pixels", "problems", "threads", "an iteration of a problem, one thread", "GFLOP/s (best)",
            "with all that a solve of 100 iterations does", "plan read", "matrix product",
        ),
        (
            (
                row["pixels"],
                row["problems"],
                row["threads"],
                seconds(row["seconds_an_iteration_and_problem"]),
                f"{row['gflops']:.0f} ({row['gflops_best']:.0f})",
                f"{row['gflops_whole_solve']:.0f}",
                f"{row['plan_gigabytes_a_second']:.0f} GB/s",
                f"{row['product_gflops']:.0f} GFLOP/s",
            )
            for row in rows
        ),
    )  # fmt: skip
    for path, text in (
        (options.output / "kernel.json", json.dumps({"run": run, "rows": rows}, indent=1) + "\n"),
        (options.output / "kernel.md", f"{machine_and_command([run])}\n{table}"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".tmp")
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    print(table)


if __name__ == "__main__":
    main()
