"""One contestant of ``transport.py`` in a separate process: its result, its memory, its first times.

    python benchmarks/probe.py task.pt findings.json

The findings are written after every phase, so that they survive the alarm of the budget, a failed allocation or a
crash.
"""

from __future__ import annotations

import ctypes
import json
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from float64_reference import graded, leaves
from peers import Contestant, contestants
from result_files import Row, reason, synchronize, timed
from transport import MOST, TOL, Case, both_of, errors_of, forward_of, solver_call

GROWTH = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


class Memory:
    """Peak MiB since the start of the measurement, above what was in use."""

    def __init__(self, device: str) -> None:
        self.device = device
        if device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
            self.start = torch.cuda.memory_allocated() / 2**20
        elif sys.platform == "linux":
            # Memory that the allocator kept from earlier phases would hide the peak. `ru_maxrss` does not help: on
            # Linux it includes the peak of the parent process.
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")
            self.start = self._status("VmRSS")
        else:
            self.start = self._most()

    def peak(self) -> float:
        return self._most() - self.start

    def _most(self) -> float:
        if self.device.startswith("cuda"):
            return torch.cuda.max_memory_allocated() / 2**20
        if sys.platform == "linux":
            return self._status("VmHWM")
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    @staticmethod
    def _status(name: str) -> float:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) / 1024
        raise RuntimeError(f"/proc/self/status has no {name}")


def limit_memory(gib: float | None) -> None:
    """Make an allocation beyond ``gib``, or nine tenths of the free memory, fail before other processes suffer."""
    if sys.platform != "linux":
        return
    free = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most = used + int(gib * 2**30 if gib else 0.9 * 1024 * int(free.split()[1]))
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def checked(contestant: Contestant, case: Case, task: Row, iterations: int, tol: float) -> Row:
    pairs = leaves(case.check_problems())
    on_device = pairs._replace(**{name: value.to(task["device"]) for name, value in pairs._asdict().items()})
    values, gradient = graded(contestant.answer(on_device, case.epsilon, iterations, tol), pairs)
    return errors_of(values.cpu(), gradient.double(), task["expected"], contestant) | {"iterations": iterations}


def run_task(task: dict[str, Any], findings: Path) -> None:
    row: Row = {"status": "running", "phase": "warm-up"}

    def write(**more: object) -> None:
        row.update(more)
        findings.write_text(json.dumps(row))

    def begin(phase: str) -> None:
        write(phase=phase)
        signal.setitimer(signal.ITIMER_REAL, task["budget"])

    write()
    torch.set_num_threads(task["threads"])
    case, device, mode = Case(*task["case"]), task["device"], task["mode"]
    contestant = contestants()[task["contestant"]]
    tol = TOL if mode == "tolerance" else 0.0
    iterations = MOST if mode == "tolerance" else task["iterations"]
    count = case.problems
    if contestant.loops and task["loop_problems"]:
        count = min(count, task["loop_problems"])
    write(tol=tol, timed_problems=count, iterations=iterations)
    if device == "cpu":
        limit_memory(task["memory"])

    maps = case.maps(device).requires_grad_()
    # Compiles kernels outside the budget, as compiled kernels stay in a cache.
    both_of(solver_call(contestant, maps, case.epsilon, 5, 0.0, 1), maps)()
    begin("check")
    if mode == "equal":
        target = max(task["expected"]["iterate_error"] or 0.0, 1e-5)
        for factor in GROWTH:
            iterations = factor * task["iterations"]
            errors = checked(contestant, case, task, iterations, tol)
            if errors.get("value_error_converged", 0.0) <= target:
                break
        write(reached=errors.get("value_error_converged", 0.0) <= target)
    else:
        errors = checked(contestant, case, task, iterations, tol)
    write(**errors)

    call = solver_call(contestant, maps, case.epsilon, iterations, tol, count)
    memory = Memory(device)
    for phase, run in (("forward", forward_of(call)), ("both", both_of(call, maps))):
        begin(phase)
        elapsed, _ = timed(run, device)
        synchronize(device)
        write(**{f"first_{phase}": elapsed, f"peak_{phase}_mib": memory.peak()})
    signal.setitimer(signal.ITIMER_REAL, 0)
    write(status="ok")


def main() -> None:
    findings = Path(sys.argv[2])
    task = torch.load(Path(sys.argv[1]), weights_only=True)
    try:
        run_task(task, findings)
    except Exception as error:
        signal.setitimer(signal.ITIMER_REAL, 0)
        row = json.loads(findings.read_text())
        row |= {"status": "failed", "reason": f"in its {row['phase']}: {reason(error)}"}
        findings.write_text(json.dumps(row))


if __name__ == "__main__":
    main()
