"""Has the library become slower? A few fixed cases, each timed beside a plain implementation in the same run.

A time alone says little on another machine, or on a busy one. So each case is timed in turns with a reference that
computes the same results from the same inputs, after both results were compared. The file keeps the median ratio of
their processor times on one thread. The reference is code of this folder, so a change of the library changes the ratio
alone. Both do work of the same kind (products, logsumexp, sorting), but a processor with other vector units changes
some ratios; on a new machine, compare with a run of the older commit. The cost of a page fault differs most between
machines, so the C library is told to keep freed memory.

    python benchmarks/watch.py             # compares with benchmarks/results/watch.json, exits with 1 if slower
    python benchmarks/watch.py --update    # writes that file

A ratio above --factor times the committed one is measured again, and fails if it is still above.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import losses
import metrics
import numpy as np
import torch
from naive_losses import naive_oca
from peers import textbook_kernel, textbook_log
from problems import pairs_of, similarity_maps
from result_files import RESULTS, Row, environment, interleaved, markdown, spread, write_json
from torch import Tensor
from torch.nn.functional import normalize

from sslosses import OCALoss, similarity_map
from sslosses.transport import solve

EPSILON, ITERATIONS = 0.1, 100
# glibc reads these variables when a process starts.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 34)}
Answer = Callable[[], list[Tensor]]


class Case(NamedTuple):
    """The library's computation, the reference, and the largest difference allowed between their results."""

    library: Answer
    reference: Answer
    atol: float


def transport(solver: str, problems: int, height: int, width: int) -> Case:
    pairs = pairs_of(similarity_maps(problems, 1, height, width, torch.Generator().manual_seed(0)))
    plain = textbook_kernel if solver == "fused" else textbook_log

    def graded(answer: Callable[[], Tensor]) -> list[Tensor]:
        value = answer()
        return [value, *torch.autograd.grad(value.sum(), (pairs.source, pairs.target))]

    def library() -> Tensor:
        return solve(pairs.cost, epsilon=EPSILON, solver=solver, max_iter=ITERATIONS, tol=1e-30).value()

    pairs.source.requires_grad_()
    pairs.target.requires_grad_()
    return Case(partial(graded, library), partial(graded, lambda: plain(pairs, EPSILON, ITERATIONS, 0.0)), 1e-3)


def maps(batch: int, channels: int, height: int, width: int) -> Case:
    visual, _, foreground, _ = (x.detach() for x in losses.inputs(batch, channels, height, width, 3, "cpu"))

    def reference() -> list[Tensor]:
        return [torch.einsum("bchw,bkc->bkhw", normalize(visual, dim=1), normalize(foreground, dim=2))]

    return Case(lambda: [similarity_map(visual, foreground)], reference, 1e-5)


def object_aware(batch: int, channels: int, height: int, width: int) -> Case:
    tensors = losses.inputs(batch, channels, height, width, 2, "cpu")

    def graded(loss: losses.Loss) -> list[Tensor]:
        value = loss(*tensors)
        return [value, *torch.autograd.grad(value, tensors)]

    return Case(partial(graded, OCALoss()), partial(graded, naive_oca), 1e-4)


def scoring(protocol: str, frames: int) -> Case:
    generator = np.random.default_rng(0)
    boxes = metrics.synthetic_boxes(frames, generator)
    arrays = generator.normal(size=(frames, metrics.RESOLUTION, metrics.RESOLUTION)).astype(np.float32)
    names = metrics.protocols.get(protocol).single_metrics

    def answer(values: Mapping[str, float]) -> list[Tensor]:
        return [torch.tensor([values[name] for name in names], dtype=torch.float64)]

    tensors = torch.from_numpy(arrays)
    return Case(
        lambda: answer(metrics.library(protocol, tensors, boxes)),
        lambda: answer(metrics.loop(protocol, arrays, boxes)),
        1e-5,
    )


CASES: dict[str, Callable[[], Case]] = {
    "fused, forward and gradient": partial(transport, "fused", 32, 14, 7),
    "dense, forward and gradient": partial(transport, "dense", 8, 14, 7),
    "similarity_map": partial(maps, 32, 256, 14, 14),
    "OCA loss, forward and gradient": partial(object_aware, 32, 128, 14, 14),
    "scoring, paper": partial(scoring, "paper", 64),
    "scoring, lvs": partial(scoring, "lvs", 64),
    "scoring, avgn": partial(scoring, "avgn", 64),
}


def measure(case: Case, rounds: int) -> Row:
    """Ratio of the processor times of library and reference, after a check of their results."""
    for result, expected in zip(case.library(), case.reference(), strict=True):
        torch.testing.assert_close(result, expected, rtol=0, atol=case.atol)
    work = {"library": case.library, "reference": case.reference}
    times = interleaved(work, dict.fromkeys(work, rounds), "cpu")
    library, reference = ([processor for _, processor in times[name][0]] for name in work)
    return {
        "ratio": spread([a / b for a, b in zip(library, reference, strict=True)]),
        "milliseconds": 1e3 * statistics.median(library),
    }


def slower_cases(rows: Mapping[str, Row], committed: Mapping[str, Row], factor: float) -> list[str]:
    """The cases whose ratio is above ``factor`` times the committed one."""
    return [
        name
        for name, row in rows.items()
        if name in committed and row["ratio"]["median"] > factor * committed[name]["ratio"]["median"]
    ]


def table(rows: Mapping[str, Row], committed: Mapping[str, Row]) -> str:
    def cells(name: str, row: Row) -> list[str]:
        before = committed[name]["ratio"]["median"] if name in committed else float("nan")
        now, (low, high) = row["ratio"]["median"], row["ratio"]["quartiles"]
        return [
            name,
            f"{row['milliseconds']:.3g}",
            f"{now:.3g} ({low:.3g} to {high:.3g})",
            f"{before:.3g}",
            f"{now / before:.2f}",
        ]

    columns = ("case", "ms", "ratio to the reference (quartiles)", "committed", "now ÷ committed")
    return markdown(columns, [cells(name, row) for name, row in rows.items()])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help="cases; default: all"
    )
    parser.add_argument("--rounds", type=int, default=9, help="default: 9")
    parser.add_argument(
        "--factor", type=float, default=1.5, help="ratio to the committed ratio that is too slow; default: 1.5"
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of watch.json")
    parser.add_argument("--update", action="store_true", help="write the ratios of this run")
    options = parser.parse_args(arguments)
    path = options.output / "watch.json"
    if not options.update and not path.exists():
        parser.error(f"{path} does not exist: write it with --update")
    committed = json.loads(path.read_bytes())["rows"] if path.exists() else {}

    torch.set_num_threads(1)
    cases = {name: CASES[name]() for name in options.only}
    rows = {name: measure(case, options.rounds) for name, case in cases.items()}
    slower = [] if options.update else slower_cases(rows, committed, options.factor)
    for name in slower:
        rows[name] = measure(cases[name], 3 * options.rounds)
    slower = [] if options.update else slower_cases(rows, committed, options.factor)

    print(table(rows, committed))
    if options.update:
        write_json(path, {"run": environment("cpu", 1), "rows": committed | rows})
    for name in slower:
        print(f"{name} is more than {options.factor} times slower than committed")
    return 1 if slower else 0


if __name__ == "__main__":
    if KEEP_MEMORY.items() <= os.environ.items():
        raise SystemExit(main())
    command = [sys.executable, *sys.argv]
    raise SystemExit(subprocess.run(command, env={**os.environ, **KEEP_MEMORY}, check=False).returncode)
