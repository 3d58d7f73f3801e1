"""The price of settings: processor time and memory of OCA and ORI, by option, and what compiling them takes.

Each case is one process, which computes the loss and its gradient a few times. Processor time adds up all threads and
is the median; other programs hardly change it. Memory is the peak above that of the inputs. Compiling starts from an
empty cache; its time is that of the first call, with the compiler's processes.

    python benchmarks/studies/settings.py
    python benchmarks/studies/settings.py --table

Writes benchmarks/results/settings.json and settings.md, and resumes where it was interrupted.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from typing import Any, NamedTuple

import torch
from study import Results, Row, environment, markdown, study_parser, write_text

# isort: split
from losses import Inputs, both, inputs
from probe import Memory
from result_files import machine_and_command, seconds, timed
from tolerance import batches

from sslosses import object_aware_contrastive_loss, object_region_isolation_loss

CHANNELS = 512


class Case(NamedTuple):
    """Options of one loss."""

    loss: str
    title: str
    options: dict[str, Any]
    batch: int = 64
    compiled: bool = False


CASES = (
    *(Case("OCA", f"{batch} samples", {"temperature": 0.07}, batch) for batch in (16, 32, 64, 128, 256)),
    Case("OCA", "64 samples, compiled", {"temperature": 0.07}, compiled=True),
    Case("ORI", "defaults: `epsilon=0.05`, `tol=1e-2`, `max_iter=100`", {}),
    Case("ORI", "`max_iter=300`", {"max_iter": 300}),
    Case("ORI", "`tol=1e-3`", {"tol": 1e-3}),
    Case("ORI", "`tol=1e-3, max_iter=1000`", {"tol": 1e-3, "max_iter": 1000}),
    Case("ORI", "`epsilon=0.1`", {"epsilon": 0.1}),
    Case("ORI", "`epsilon=0.01`", {"epsilon": 0.01}),
    Case("ORI", "`epsilon=0.01, max_iter=2000`", {"epsilon": 0.01, "max_iter": 2000}),
    Case("ORI", "`epsilon=0.01, max_iter=2000, scaling=0.5`", {"epsilon": 0.01, "max_iter": 2000, "scaling": 0.5}),
    Case("ORI", "`epsilon=0` (exact)", {"epsilon": 0.0}),
    Case("ORI", '`solver="dense"`', {"solver": "dense"}),
    Case("ORI", '`gradient="envelope"`', {"gradient": "envelope"}),
    Case("ORI", '`formulation="distribution"`', {"formulation": "distribution"}),
    Case("ORI", "compiled (`dense`)", {}, compiled=True),
)


def inputs_of(case: Case, channels: int) -> Inputs:
    """For OCA random features; for ORI those of two objects that are found, as after training."""
    if case.loss == "OCA":
        return inputs(case.batch, channels, 14, 14, 2, "cpu")
    found = dict(batches(case.batch, torch.Generator().manual_seed(0)))["two objects found, 14x14"]
    visual, *captions = (x.float() for x in found)
    return visual.requires_grad_(), torch.empty(0), *captions


def terms_of(case: Case, tensors: Inputs) -> Any:
    """The terms of the loss."""
    visual, audio, *captions = tensors
    if case.loss == "OCA":
        return object_aware_contrastive_loss(visual, audio, *captions, **case.options)
    return object_region_isolation_loss(visual, *captions, **case.options)


def measure(case: Case, rounds: int, channels: int = CHANNELS) -> Row:
    """Times, memory and convergence in this process."""
    tensors = inputs_of(case, channels)

    def value(*arguments: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = terms_of(case, arguments).loss
        return loss

    row: Row = {}
    call = both(torch.compile(value, fullgraph=True) if case.compiled else value, tensors)
    before = _processor_seconds()
    call()  # compiles; in an eager case, kernels that numba keeps on disk
    if case.compiled:
        row["compiling"] = _processor_seconds() - before
    memory = Memory("cpu")
    row["times"] = [timed(call, "cpu")[1] for _ in range(rounds)]
    row["mib"] = memory.peak()
    if case.loss == "ORI":
        with torch.no_grad():
            terms = terms_of(case, tensors)
        row |= {"converged": bool(terms.converged), "marginal_error": float(terms.marginal_error)}
    return row


def _processor_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure_in_process(index: int, rounds: int) -> Row:
    """As :func:`measure`, in a process with an empty cache of compiled graphs."""
    command = [sys.executable, __file__, "--case", str(index), "--rounds", str(rounds)]
    with tempfile.TemporaryDirectory() as cache:
        variables = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache, "OMP_WAIT_POLICY": "passive"}
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def table(results: Results) -> str:
    """One row per case."""
    lines = [
        (
            row["loss"],
            row["title"],
            seconds(statistics.median(row["times"])),
            f"{row['mib']:.0f}",
            _convergence(row),
            seconds(row["compiling"]) if "compiling" in row else "",
        )
        for row in map(results.rows.get, map(_key, CASES))
        if row
    ]
    columns = ("loss", "setting", "processor time of a step", "peak MiB", "marginal error", "compiling, processor time")
    setting = (
        f"Maps of 14 × 14, 2 sources. OCA has {CHANNELS} channels; ORI has 32 channels and 64 samples, which are 192 "
        "problems of 196 × 196."
    )
    return f"{machine_and_command(results.runs)}\n{setting}\n\n{markdown(columns, lines)}"


def _key(case: Case) -> str:
    return f"{case.loss}, {case.title}"


def _convergence(row: Row) -> str:
    if "converged" not in row:
        return ""
    return f"{row['marginal_error']:.2g}{'' if row['converged'] else ', not reached'}"


def main(arguments: list[str] | None = None) -> None:
    parser = study_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="steps per case; default: 5")
    parser.add_argument("--case", type=int, help="print the row of one case and write nothing")
    parser.add_argument("--table", action="store_true", help="write the table of the file and measure nothing")
    options = parser.parse_args(arguments)
    if options.case is not None:
        print(json.dumps(measure(CASES[options.case], options.rounds)))
        return
    results = Results(options.output / "settings.json", environment("cpu", torch.get_num_threads()))
    if options.table:
        results.runs.pop()
    for index, case in enumerate(CASES):
        key = _key(case)
        if key in results.rows or options.table:
            continue
        row = {"loss": case.loss, "title": case.title, **measure_in_process(index, options.rounds)}
        results.put(key, row)
        print(key)
    write_text(options.output / "settings.md", table(results))


if __name__ == "__main__":
    main()
