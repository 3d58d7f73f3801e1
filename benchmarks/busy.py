"""What one busy core costs: losses, transport, scoring and a training step beside another program, by how threads wait.

After a parallel operation, the idle threads of torch wait actively for milliseconds (GCC's OpenMP: GOMP_SPINCOUNT).
If another program wants the core, the scheduler takes a waiting thread off it. The next operation then stands still
until that thread gets its slice again. A step of many small operations takes many times as long, although most of the
machine is free. Threads that wait shortly and then sleep are woken at once.

Each way to wait has a process of its own, since the variables are read when torch is loaded. The busy program is an
endless loop in a session of its own, as another user's job. The ways take turns. The case's results are compared with
a plain reference first, where watch.py has one.

    python benchmarks/busy.py
    python benchmarks/busy.py --table
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import losses
import torch
import watch
from result_files import (
    Results,
    Row,
    add_run_options,
    machine_and_command,
    markdown,
    open_results,
    seconds,
    spread,
    write_text,
)

from sslosses import ORILoss

VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
WAYS: dict[str, dict[str, str]] = {
    "default": {},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
Work = Callable[[], object]


def _checked(case: watch.Case) -> Work:
    for result, expected in zip(case.library(), case.reference(), strict=True):
        torch.testing.assert_close(result, expected, rtol=0, atol=case.atol)
    return case.library


def _isolation(batch: int) -> Work:
    return losses.both(losses.without_audio(ORILoss()), losses.inputs(batch, 512, 7, 7, 2, "cpu"))


def _step(batch: int) -> Work:
    torch.manual_seed(0)
    model = losses.Encoders()
    frames, spectrograms = torch.randn(batch, 3, 224, 224), torch.randn(batch, 1, 257, 200)

    def run() -> None:
        visual, audio = model(frames, spectrograms)
        (visual.mean() + audio.mean()).backward()

    return run


CASES: dict[str, Callable[[], Work]] = {
    "ORI, 24 samples (72 problems of 49 × 49), forward and gradient": lambda: _isolation(24),
    "OCA, 128 samples, 7 × 7, forward and gradient": lambda: _checked(watch.object_aware(128, 512, 7, 7)),
    "fused, 192 problems of 98 × 98, forward and gradient": lambda: _checked(watch.transport("fused", 192, 14, 7)),
    "scoring, 256 frames, paper": lambda: _checked(watch.scoring("paper", 256)),
    "plain torch: two ResNet-18, 4 samples, forward and gradient": lambda: _step(4),
}


@contextmanager
def busy(programs: int) -> Iterator[None]:
    """Keeps ``programs`` cores busy from other sessions."""
    loop = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(loop, start_new_session=True) for _ in range(programs)]
    try:
        # The scheduler takes about this long to spread the programs over the cores.
        time.sleep(0.5 if running else 0)
        yield
    finally:
        for program in running:
            program.kill()
            program.wait()


def times_of(work: Work, rounds: int, budget: float) -> list[float]:
    """Seconds of each round, at most ``rounds`` of them and no new one after ``budget`` seconds."""
    work()
    times: list[float] = []
    end = time.perf_counter() + budget
    while len(times) < 3 or (len(times) < rounds and time.perf_counter() < end):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times


def measure(name: str, rounds: int, budget: float, programs: int) -> dict[str, list[float]]:
    """Times of one case, on a free machine and beside ``programs`` busy programs."""
    work = CASES[name]()
    times = {}
    for state, count in (("free", 0), ("busy", programs)):
        with busy(count):
            times[state] = times_of(work, rounds, budget)
    return times


def _in_process(name: str, way: str, options: argparse.Namespace) -> dict[str, list[float]]:
    environment = {key: value for key, value in os.environ.items() if key not in VARIABLES} | WAYS[way]
    command = [sys.executable, __file__, "--case", name, "--rounds", str(options.rounds)]
    command += ["--budget", str(options.budget), "--programs", str(options.programs)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    times: dict[str, list[float]] = json.loads(done.stdout)
    return times


def table(results: Results) -> str:
    """One row per case and way to wait, and what the busy program makes of the time."""
    lines = []
    for row in results.rows.values():
        free, loaded = row["free"], row["busy"]
        lines.append(
            (
                row["case"],
                row["way"],
                f"{seconds(free['median'])} ({seconds(free['quartiles'][0])}–{seconds(free['quartiles'][1])})",
                f"{seconds(loaded['median'])} ({seconds(loaded['quartiles'][0])}–{seconds(loaded['quartiles'][1])})",
                f"{loaded['median'] / free['median']:.1f}",
            )
        )
    columns = ("case", "threads wait", "free (quartiles)", "busy (quartiles)", "busy ÷ free")
    return f"{machine_and_command(results.runs)}\n{markdown(columns, lines)}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--rounds", type=int, default=15, help="rounds per case, way and turn; default: 15")
    parser.add_argument("--budget", type=float, default=3, help="seconds for the rounds; default: 3")
    parser.add_argument("--turns", type=int, default=2, help="processes per case and way; default: 2")
    parser.add_argument("--programs", type=int, default=1, help="busy programs; default: 1")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    add_run_options(parser)
    options = parser.parse_args(arguments)
    if options.case:
        print(json.dumps(measure(options.case, options.rounds, options.budget, options.programs)))
        return
    results = open_results(options, "busy")
    for name in CASES if not options.table else ():
        times: dict[str, dict[str, list[float]]] = {way: {"free": [], "busy": []} for way in WAYS}
        for way in [*WAYS] * options.turns:
            for state, measured in _in_process(name, way, options).items():
                times[way][state] += measured
        for way, by_state in times.items():
            row: Row = {"case": name, "way": way}
            results.put(f"{name}, {way}", row | {state: spread(values) for state, values in by_state.items()})
            medians = {state: seconds(statistics.median(values)) for state, values in by_state.items()}
            print(name, way, medians, flush=True)
    text = table(results)
    print(text)
    write_text(results.path.with_suffix(".md"), text)


if __name__ == "__main__":
    main()
