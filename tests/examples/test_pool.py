"""Workers that crash, raise and continue. ``eval`` is a function that any process can import."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import avsl
import pytest
from avsl.pool import Crash, run, run_all


@contextlib.contextmanager
def as_program(code: str, tmp_path: Path) -> Iterator[subprocess.Popen]:
    """Runs code as a script, which spawned workers can import."""
    script = tmp_path / "program.py"
    script.write_text(code)
    environment = os.environ | {"PYTHONPATH": str(Path(avsl.__file__).parents[1])}
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


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


def test_results_in_order() -> None:
    assert run_all(eval, ["1 + 1", "[]", "'x'"], 2, title="", unit="job") == [2, [], "x"]
    with pytest.raises(ChildProcessError, match=r"A worker process crashed \(SIGABRT\) at __import__"):
        run_all(eval, ["1", "__import__('os').abort()"], 1, title="", unit="job")


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "SIGHUP", "SIGXCPU", "SIGUSR1"])
def test_a_killed_worker_is_not_blamed_on_its_job(how: str) -> None:
    job = f"__import__('os').kill(__import__('os').getpid(), __import__('signal').{how})"
    if how != "SIGKILL":  # a program that was started by nohup ignores SIGHUP
        job = f"__import__('signal').signal(__import__('signal').{how}, 0) and None or {job}"
    with pytest.raises((MemoryError, ChildProcessError)) as caught:
        list(run(eval, ["1", job], 1))
    assert str(caught.value).startswith(f"A worker process was killed ({how})")
    assert "The worker was at __import__" in str(caught.value)
    assert ("memory" in str(caught.value)) == isinstance(caught.value, MemoryError) == (how == "SIGKILL")


def test_a_worker_that_cannot_start_is_not_blamed_on_its_job() -> None:
    with pytest.raises(ChildProcessError, match="could not start or go on"):
        list(run(eval, ["1", "(_ for _ in ()).throw(SystemExit(1))"], 1))


def test_an_error_that_cannot_be_sent_keeps_its_text() -> None:
    with pytest.raises(RuntimeError, match="Odd: text"):
        list(run(eval, ["(_ for _ in ()).throw(type('Odd', (Exception,), {})('text'))"], 1))


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_a_killed_parent(how: signal.Signals, tmp_path: Path) -> None:
    """Also while they work, not only when they ask for the next job."""
    program = (
        "from avsl.pool import run\n"
        "if __name__ == '__main__':\n"
        "    jobs = [\"(print('at work', flush=True), __import__('signal').pause())\"] * 3\n"
        "    list(run(eval, jobs, 3))\n"
    )
    with as_program(program, tmp_path) as process:
        for _ in range(3):
            process.stdout.readline()
        process.send_signal(how)
        # The workers hold the other end of this pipe, so it is closed when the last one has ended.
        assert process.communicate(timeout=60) == ("", None)
