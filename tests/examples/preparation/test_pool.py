"""Workers that crash, raise and continue. ``eval`` is a function that any process can import."""

from __future__ import annotations

import os

import pytest
from avsl.preparation.pool import Crash, run


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_all_jobs_are_done(workers: int) -> None:
    jobs = [f"{number} * 2" for number in range(7)]
    assert sorted(run(eval, jobs, workers)) == [(job, 2 * number) for number, job in enumerate(jobs)]
    assert list(run(eval, [], workers)) == []


def test_a_crash_is_named_and_the_others_go_on() -> None:
    jobs = ["1", "__import__('os').abort()", "2", "__import__('os')._exit(7)", "3", "4"]
    answers = dict(run(eval, jobs, 2))
    assert [answers[job] for job in ("1", "2", "3", "4")] == [1, 2, 3, 4]
    assert str(answers[jobs[1]]) == "SIGABRT"
    assert answers[jobs[3]] == Crash(7)
    assert str(answers[jobs[3]]) == "exit code 7"


def test_the_last_job_crashes() -> None:
    assert list(run(eval, ["__import__('os').abort()"], 1)) == [("__import__('os').abort()", Crash(-6))]


def test_workers_are_processes_that_serve_many_jobs() -> None:
    jobs = [f"(__import__('os').getpid(), {number})" for number in range(6)]
    processes = {pid for _, (pid, _) in run(eval, jobs, 2)}
    assert 1 <= len(processes) <= 2
    assert os.getpid() not in processes


def test_errors_are_raised_here() -> None:
    with pytest.raises(ZeroDivisionError):
        list(run(eval, ["1", "1 / 0", "2"], 2))


def test_workers_end_with_the_one_who_reads() -> None:
    answers = run(eval, ["__import__('os').getpid()", "__import__('time').sleep(60)"], 2)
    _, pid = next(answers)
    answers.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
