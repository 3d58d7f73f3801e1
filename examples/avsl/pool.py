"""A pool of worker processes that survives crashes, says on which job a worker crashed, and ends with its parent.

``ProcessPoolExecutor`` aborts all jobs if one worker dies, and does not report which job caused it. Its workers live on
if their parent is killed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, TypeVar

from tqdm import tqdm

from .parent_process import end_with

_TERMINATED = 128 + 15  # exit code after SIGTERM
#: How a decoder ends its own process. Other signals come from outside: from the kernel, a limit or a person.
_CRASHES = ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS")
JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")


def cores() -> int:
    """Number of workers that keep this machine busy."""
    return os.cpu_count() or 1


class Crash(NamedTuple):
    """A worker exited without an answer. For a signal, ``exitcode`` is its negative number."""

    exitcode: int

    @property
    def by_others(self) -> bool:
        """Whether another process, or the kernel, ended the worker."""
        return self.exitcode == _TERMINATED or (self.exitcode < 0 and str(self) not in _CRASHES)

    def __str__(self) -> str:
        if self.exitcode < 0:
            with contextlib.suppress(ValueError):
                return signal.Signals(-self.exitcode).name
        return "SIGTERM" if self.exitcode == _TERMINATED else f"exit code {self.exitcode}"


class _Worker:
    def __init__(self, function: Callable[[Any], Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, worker_end = context.Pipe()
        self.process = context.Process(target=_serve, args=(worker_end, function, os.getpid()), daemon=True)
        self.process.start()
        worker_end.close()
        self.job: Any = None

    def send(self, job: Any) -> None:
        self.job = job
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # dead already: `answer` reports it
            self.connection.send(job)

    def answer(self) -> Any:
        try:
            return self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            crash = Crash(self.process.exitcode or 0)
            if crash.by_others:
                # The kernel kills a process when memory runs out. No decoder does this to itself.
                guess = ", probably because this machine ran out of memory" if str(crash) == "SIGKILL" else ""
                raise (MemoryError if guess else ChildProcessError)(
                    f"A worker process was killed ({crash}){guess}. Run the same command again to resume. "
                    f"The worker was at {str(self.job)[:200]}"
                ) from None
            if crash.exitcode == 1:  # Python's own, after an error outside of the job. Decoders don't end so.
                raise ChildProcessError(
                    "A worker process could not start or go on, for the reason that is printed above"
                ) from None
            return crash

    def stop(self, *, idle: bool) -> None:
        self.connection.close()  # makes an idle worker exit
        if idle:
            self.process.join(timeout=10)
        self.process.terminate()
        self.process.join(timeout=10)
        self.process.kill()  # in case a decoder hangs
        self.process.join()


def run(
    function: Callable[[JobT], ResultT], jobs: Sequence[JobT], workers: int
) -> Iterator[tuple[JobT, ResultT | Crash]]:
    """Calls ``function`` on each job in ``workers`` processes and yields each job with its result, in any order.

    With 0 workers, the calls run in this process.

    Raises:
        Exception: the exception that ``function`` raised.
        MemoryError: if a worker was killed, as the kernel does when memory runs out.
        ChildProcessError: if a worker was ended from outside in another way, or could not start.
    """
    if workers == 0:
        for job in jobs:
            yield job, function(job)
        return
    waiting = iter(jobs)
    busy: dict[Connection, _Worker] = {}

    def start(worker: _Worker | None, job: JobT) -> None:
        worker = worker or _Worker(function)
        worker.send(job)
        busy[worker.connection] = worker

    try:
        for job in islice(waiting, workers):
            start(None, job)
        while busy:
            for connection in wait(list(busy)):
                worker = busy[connection]
                answer = worker.answer()
                if isinstance(answer, _Raised):
                    raise answer.error
                finished = worker.job
                del busy[connection]
                next_job = next(waiting, None)
                if next_job is None or isinstance(answer, Crash):
                    worker.stop(idle=True)
                    worker = None
                if next_job is not None:
                    start(worker, next_job)
                yield finished, answer
    finally:
        for worker in busy.values():
            worker.stop(idle=False)


def run_all(
    function: Callable[[JobT], ResultT], jobs: Sequence[JobT], workers: int, *, title: str, unit: str
) -> list[ResultT]:
    """Calls ``function`` on each job as :func:`run` does, with a progress bar; returns the results in order.

    Raises:
        Exception: as :func:`run`; ChildProcessError if a worker crashed.
    """
    results: dict[int, ResultT] = {}
    numbered = list(enumerate(jobs))
    for (number, job), result in tqdm(run(_Numbered(function), numbered, workers), title, len(jobs), unit=unit):
        if isinstance(result, Crash):
            raise ChildProcessError(f"A worker process crashed ({result}) at {str(job)[:200]}")
        results[number] = result
    return [results[number] for number in range(len(jobs))]


class _Numbered(NamedTuple):
    """Calls a function on the job of a numbered job; jobs need not be hashable."""

    function: Callable[[Any], Any]

    def __call__(self, numbered: tuple[int, Any]) -> Any:
        return self.function(numbered[1])


class _Raised(NamedTuple):
    error: Exception

    @classmethod
    def of(cls, error: Exception) -> _Raised:
        """The error, or one with its text if it can't be sent to another process."""
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            return cls(RuntimeError(f"{type(error).__name__}: {error}"))
        return cls(error)


def _serve(connection: Connection, function: Callable[[Any], Any], parent: int) -> None:
    end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent stops the workers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))  # so that temporary files are deleted
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent has exited
        while True:
            job = connection.recv()
            try:
                answer = function(job)
            except Exception as error:
                answer = _Raised.of(error)
            connection.send(answer)
