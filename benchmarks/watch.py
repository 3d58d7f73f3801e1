"""Has something become slower? A short fixed set, each beside a plain implementation of the same in the same run.

A time says little on another machine, or on this one when others use it. So each case is timed in turns with a
reference that computes the same from the same inputs, and what is kept is the ratio of the two processor times, on one
thread, the median over the rounds. The answers are compared first. The reference is code of this folder: a change of
the library moves the ratio alone. It is work of the same kind (products, logsumexp, sorting), yet a processor with
other vector units moves some ratios; after a change of machine compare with a run of the older commit. What a page
fault costs differs most between machines, so the C library is told to keep the memory that it has once.

    python benchmarks/watch.py             # compares with benchmarks/results/watch.json, exits with 1 if slower
    python benchmarks/watch.py --update    # writes that file

A ratio above --factor times the committed one is measured again, and is a failure if it stays there.
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
from peers import textbook_kernel, textbook_log
from problems import pairs_of, similarity_maps
from result_files import ROOT, Row, environment, interleaved, markdown, spread
from torch import Tensor
from torch.nn.functional import normalize

from sslosses import OCALoss, similarity_map
from sslosses.transport import solve

EPSILON, ITERATIONS = 0.1, 100
# glibc reads them when a process starts.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 34)}
Answer = Callable[[], list[Tensor]]


class Case(NamedTuple):
    """What the library computes, the reference beside it, and how far their answers may be apart."""

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

    for each in (pairs.source, pairs.target):
        each.requires_grad_()
    return Case(partial(graded, library), partial(graded, lambda: plain(pairs, EPSILON, ITERATIONS, 0.0)), 1e-3)


def maps(batch: int, channels: int, height: int, width: int) -> Case:
    visual, _, foreground, _ = (each.detach() for each in losses.inputs(batch, channels, height, width, 3, "cpu"))

    def reference() -> list[Tensor]:
        return [torch.einsum("bchw,bkc->bkhw", normalize(visual, dim=1), normalize(foreground, dim=2))]

    return Case(lambda: [similarity_map(visual, foreground)], reference, 1e-5)


def object_aware(batch: int, channels: int, height: int, width: int) -> Case:
    given = losses.inputs(batch, channels, height, width, 2, "cpu")

    def graded(loss: losses.Loss) -> list[Tensor]:
        value = loss(*given)
        return [value, *torch.autograd.grad(value, given)]

    return Case(partial(graded, OCALoss()), partial(graded, losses.naive_oca), 1e-4)


def scoring(protocol: str, frames: int) -> Case:
    generator = np.random.default_rng(0)
    boxes = metrics.synthetic_boxes(frames, generator)
    arrays = generator.normal(size=(frames, metrics.RESOLUTION, metrics.RESOLUTION)).astype(np.float32)
    names = metrics.protocols.get(protocol).single_metrics

    def answer(found: Mapping[str, float]) -> list[Tensor]:
        return [torch.tensor([found[name] for name in names], dtype=torch.float64)]

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
    """Ratio of the processor times of library and reference, after a check of the answers."""
    for ours, theirs in zip(case.library(), case.reference(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=case.atol)
    work = {"library": case.library, "reference": case.reference}
    times = interleaved(work, dict.fromkeys(work, rounds), "cpu")
    ours, theirs = ([processor for _, processor in times[name][0]] for name in work)
    return {
        "ratio": spread([a / b for a, b in zip(ours, theirs, strict=True)]),
        "milliseconds": 1e3 * statistics.median(ours),
    }


def compared(found: Mapping[str, Row], kept: Mapping[str, Row], factor: float) -> list[str]:
    """The cases whose ratio is above ``factor`` times the kept one. One that is not kept is none of them."""
    return [
        name
        for name, row in found.items()
        if name in kept and row["ratio"]["median"] > factor * kept[name]["ratio"]["median"]
    ]


def table(found: Mapping[str, Row], kept: Mapping[str, Row]) -> str:
    def cells(name: str, row: Row) -> list[str]:
        before = kept[name]["ratio"]["median"] if name in kept else float("nan")
        now, (low, high) = row["ratio"]["median"], row["ratio"]["quartiles"]
        return [
            name,
            f"{row['milliseconds']:.3g}",
            f"{now:.3g} ({low:.3g} to {high:.3g})",
            f"{before:.3g}",
            f"{now / before:.2f}",
        ]

    columns = ("case", "ms", "ratio to the reference (quartiles)", "committed", "now ÷ committed")
    return markdown(columns, [cells(name, row) for name, row in found.items()])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--factor", type=float, default=1.5, help="how much slower is too slow")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "watch.json")
    parser.add_argument("--update", action="store_true", help="keep the ratios of this run")
    options = parser.parse_args(arguments)
    if not options.update and not options.results.exists():
        parser.error(f"{options.results} does not exist: make it with --update")
    kept = json.loads(options.results.read_text(encoding="utf-8"))["rows"] if options.results.exists() else {}

    torch.set_num_threads(1)
    cases = {name: CASES[name]() for name in options.only}
    found = {name: measure(case, options.rounds) for name, case in cases.items()}
    slower = [] if options.update else compared(found, kept, options.factor)
    for name in slower:
        found[name] = measure(cases[name], 3 * options.rounds)
    slower = [] if options.update else compared(found, kept, options.factor)

    print(table(found, kept))
    if options.update:
        text = json.dumps({"run": environment("cpu", 1), "rows": kept | found}, indent=1) + "\n"
        aside = options.results.with_suffix(".tmp")
        aside.write_text(text, encoding="utf-8")
        aside.replace(options.results)
    for name in slower:
        print(f"{name} is more than {options.factor} times slower than committed")
    return 1 if slower else 0


if __name__ == "__main__":
    if KEEP_MEMORY.items() <= os.environ.items():
        raise SystemExit(main())
    again = [sys.executable, *sys.argv]
    raise SystemExit(subprocess.run(again, env={**os.environ, **KEEP_MEMORY}, check=False).returncode)
