"""Worker processes of which one may crash: its job is named and the others go on.

``ProcessPoolExecutor`` ends all jobs if one worker dies, and does not say on which job it was.
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

Job = TypeVar("Job")
Result = TypeVar("Result")


class Crash(NamedTuple):
    """A worker that ended without an answer, and its exit code: of a signal, the negative number."""

    exitcode: int

    def __str__(self) -> str:
        if self.exitcode < 0:
            with contextlib.suppress(ValueError):
                return signal.Signals(-self.exitcode).name
        return f"exit code {self.exitcode}"


class _Worker:
    def __init__(self, function: Callable[[Any], Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, function), daemon=True)
        self.process.start()
        theirs.close()
        self.job: Any = None

    def give(self, job: Any) -> None:
        self.job = job
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # already dead: `answer` will tell
            self.connection.send(job)

    def answer(self) -> Any:
        try:
            return self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            return Crash(self.process.exitcode or 0)

    def stop(self, *, idle: bool) -> None:
        self.connection.close()  # which ends a worker that waits for a job
        if idle:
            self.process.join(timeout=10)
        self.process.terminate()
        self.process.join(timeout=10)
        self.process.kill()  # if a decoder hangs
        self.process.join()


def run(function: Callable[[Job], Result], jobs: Sequence[Job], workers: int) -> Iterator[tuple[Job, Result | Crash]]:
    """Call ``function`` on each of ``jobs`` in ``workers`` processes; yields as they end. 0: in this process.

    Raises:
        Exception: what ``function`` raised.
    """
    if workers == 0:
        for job in jobs:
            yield job, function(job)
        return
    waiting = iter(jobs)
    busy: dict[Connection, _Worker] = {}

    def start(worker: _Worker | None, job: Job) -> None:
        worker = worker or _Worker(function)
        worker.give(job)
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
                done = worker.job
                del busy[connection]
                following = next(waiting, None)
                if following is None or isinstance(answer, Crash):
                    worker.stop(idle=True)
                    worker = None
                if following is not None:
                    start(worker, following)
                yield done, answer
    finally:
        for worker in busy.values():
            worker.stop(idle=False)


class _Raised(NamedTuple):
    error: Exception


def _serve(connection: Connection, function: Callable[[Any], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends the workers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that temporary files are deleted
    with contextlib.suppress(EOFError, BrokenPipeError):  # the parent is gone
        while True:
            job = connection.recv()
            try:
                answer = function(job)
            except Exception as error:
                answer = _Raised(error)
            connection.send(answer)
