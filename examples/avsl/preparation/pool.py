"""A pool of worker processes that survives crashes and reports the job on which a worker crashed.

``ProcessPoolExecutor`` aborts all jobs if one worker dies, and does not report which job caused it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, TypeVar

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")


class Crash(NamedTuple):
    """A worker exited without an answer. For a signal, ``exitcode`` is its negative number."""

    exitcode: int

    def __str__(self) -> str:
        if self.exitcode < 0:
            with contextlib.suppress(ValueError):
                return signal.Signals(-self.exitcode).name
        return f"exit code {self.exitcode}"


class _Worker:
    def __init__(self, function: Callable[[Any], Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, worker_end = context.Pipe()
        self.process = context.Process(target=_serve, args=(worker_end, function), daemon=True)
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
            return Crash(self.process.exitcode or 0)

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


class _Raised(NamedTuple):
    error: Exception


def _serve(connection: Connection, function: Callable[[Any], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent stops the workers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that temporary files are deleted
    with contextlib.suppress(EOFError, BrokenPipeError):  # the parent has exited
        while True:
            job = connection.recv()
            try:
                answer = function(job)
            except Exception as error:
                answer = _Raised(error)
            connection.send(answer)
