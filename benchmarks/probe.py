"""One contestant of ``transport.py`` in a process of its own: its answer, its memory, its first times.

    python benchmarks/probe.py given.pt found.json

The findings are written after every phase, so that they outlive what ends the process: the alarm of the budget, a
failed allocation, a crash.
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
from peers import Contestant, contestants
from reference import graded, leaves
from result_files import Row, reason, synchronize, timed
from transport import MOST, TOL, Case, answered, both_of, forward_of, judged

GROWTH = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


class Memory:
    """Peak MiB since the start of the measurement, above what was in use."""

    def __init__(self, device: str) -> None:
        self.device = device
        if device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
            self.start = torch.cuda.memory_allocated() / 2**20
        elif sys.platform == "linux":
            # What the allocator keeps of earlier phases would hide what is needed. The peak of a whole process's life,
            # as `ru_maxrss` has it, includes its parent's on Linux.
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
    """Make an allocation beyond ``gib``, or nine tenths of what is free, fail here before other processes suffer."""
    if sys.platform != "linux":
        return
    free = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most = used + int(gib * 2**30 if gib else 0.9 * 1024 * int(free.split()[1]))
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def checked(contestant: Contestant, case: Case, given: Row, iterations: int, tol: float) -> Row:
    pairs = leaves(case.checked())
    on = pairs._replace(**{key: value.to(given["device"]) for key, value in pairs._asdict().items()})
    values, gradient = graded(contestant.answer(on, case.epsilon, iterations, tol), pairs)
    return judged(values.cpu(), gradient.double(), given["against"], contestant) | {"iterations": iterations}


def findings(given: dict[str, Any], found: Path) -> None:
    row: Row = {"status": "running", "phase": "warm-up"}

    def write(**more: object) -> None:
        row.update(more)
        found.write_text(json.dumps(row))

    def begin(phase: str) -> None:
        write(phase=phase)
        signal.setitimer(signal.ITIMER_REAL, given["budget"])

    write()
    torch.set_num_threads(given["threads"])
    case, device, mode = Case(*given["case"]), given["device"], given["mode"]
    contestant = contestants()[given["contestant"]]
    tol = TOL if mode == "tolerance" else 0.0
    iterations = MOST if mode == "tolerance" else given["iterations"]
    take = case.problems
    if contestant.loops and given["loop_problems"]:
        take = min(take, given["loop_problems"])
    write(tol=tol, timed_problems=take, iterations=iterations)
    if device == "cpu":
        limit_memory(given["memory"])

    maps = case.maps(device).requires_grad_()
    # Compiles kernels, without the budget: what is compiled stays in a cache.
    both_of(answered(contestant, maps, case.epsilon, 5, 0.0, 1), maps)()
    begin("check")
    if mode == "equal":
        target = max(given["against"]["iterate_error"] or 0.0, 1e-5)
        for factor in GROWTH:
            iterations = factor * given["iterations"]
            answer = checked(contestant, case, given, iterations, tol)
            if answer.get("value_error_converged", 0.0) <= target:
                break
        write(reached=answer.get("value_error_converged", 0.0) <= target)
    else:
        answer = checked(contestant, case, given, iterations, tol)
    write(**answer)

    answer_all = answered(contestant, maps, case.epsilon, iterations, tol, take)
    memory = Memory(device)
    for phase, run in (("forward", forward_of(answer_all)), ("both", both_of(answer_all, maps))):
        begin(phase)
        elapsed, _ = timed(run, device)
        synchronize(device)
        write(**{f"first_{phase}": elapsed, f"peak_{phase}_mib": memory.peak()})
    signal.setitimer(signal.ITIMER_REAL, 0)
    write(status="ok")


def main() -> None:
    given_path, found = Path(sys.argv[1]), Path(sys.argv[2])
    given = torch.load(given_path, weights_only=True)
    try:
        findings(given, found)
    except Exception as error:
        signal.setitimer(signal.ITIMER_REAL, 0)
        row = json.loads(found.read_text())
        found.write_text(json.dumps(row | {"status": "failed", "reason": f"in its {row['phase']}: {reason(error)}"}))


if __name__ == "__main__":
    main()
