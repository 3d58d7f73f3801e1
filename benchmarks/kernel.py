"""How fast the iterations of the fused solver are by themselves, and what limits them.

The time of an iteration is the difference between two solves with different numbers of iterations, divided by the
difference in iterations. That leaves out the work that is done once: the cost, the first plan, threads, the value. An
iteration takes 4·N·M floating-point operations per problem. The table also gives the speed of torch's float32 matrix
product, an upper limit of the machine's arithmetic, and the bytes of the plan that are read per second.

    python benchmarks/kernel.py

Writes benchmarks/results/kernel.json and benchmarks/results/kernel.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from problems import pairs_of, similarity_maps
from result_files import (
    RESULTS,
    Row,
    environment,
    interleaved,
    machine_and_command,
    markdown,
    seconds,
    spread,
    write_json,
    write_text,
)

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
    short, long = (spread([elapsed for elapsed, _ in times[f"{count}"][0]]) for count in ITERATIONS)
    pixels, problems = side[0] * side[1], batch * 3
    iteration = (long["median"] - short["median"]) / (ITERATIONS[1] - ITERATIONS[0])
    best = (long["range"][0] - short["range"][0]) / (ITERATIONS[1] - ITERATIONS[0])
    product = min(elapsed for elapsed, _ in times["product"][0])
    gflop = 4 * pixels**2 * problems / 1e9
    return {
        "pixels": pixels,
        "problems": problems,
        "threads": threads,
        "seconds_an_iteration_and_problem": iteration / problems * threads,
        "gflops": gflop / iteration,
        "gflops_best": gflop / best,
        "gflops_whole_solve": gflop * ITERATIONS[0] / short["median"],
        "plan_gigabytes_a_second": pixels**2 * 4 * problems / iteration / 1e9,
        "product_gflops": 2 * 1024**3 / product / 1e9,
        "rounds": rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--threads", type=int, nargs="+", default=sorted({1, torch.get_num_threads()}), help="numbers of threads"
    )
    parser.add_argument("--rounds", type=int, default=15, help="default: 15")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    run = environment("cpu", max(options.threads))
    rows = [measure(side, batch, n, options.rounds) for n in options.threads for side, batch in SIZES.items()]
    table = markdown(
        (
            "pixels", "problems", "threads", "iteration per problem, one thread", "GFLOP/s (best)",
            "GFLOP/s of a whole solve of 100 iterations", "plan read", "matrix product",
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
    write_json(options.output / "kernel.json", {"run": run, "rows": rows})
    write_text(options.output / "kernel.md", f"{machine_and_command([run])}\n{table}")
    print(table)


if __name__ == "__main__":
    main()
