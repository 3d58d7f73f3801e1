"""Processes that tests start. They are forked from a server that has imported the modules of these tests.

A new interpreter takes longer to import torch and torchmetrics than most of these processes take for their work.
"""

from __future__ import annotations

import datetime
import gc
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
#: A process that fails leaves the other one waiting; the tests then fail after this time.
LIMIT = datetime.timedelta(minutes=2)
_preloaded: list[str] = []


def preload(*modules: str) -> None:
    """Has the server import modules. A test file calls this when it is read, which is before the server starts."""
    _preloaded.extend(modules)
    multiprocessing.set_forkserver_preload(_preloaded)


def start(function: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Starts ``function(*arguments)`` in a process."""
    _start_server()
    process = multiprocessing.get_context(METHOD).Process(target=_call, args=(dict(os.environ), function, *arguments))
    process.start()
    return process


def run_script(script: Path, arguments: list[str], out: Path, errors: Path | None = None) -> None:
    """In a process that was started: runs a program. It prints to ``out``, and errors to ``errors`` or to ``out``."""
    for descriptor, path in ((1, out), (2, errors or out)):
        with path.open("a") as file:
            os.dup2(file.fileno(), descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # commands in the background of a shell ignore it
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.parent))
    runpy.run_path(str(script), run_name="__main__")


def run(function: Callable[..., Any], *arguments: Any, processes: int = 2) -> list[Any]:
    """Returns ``function(rank, *arguments)`` of several processes at once, and raises what one of them raises."""
    _start_server()
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(_ranked, (folder, dict(os.environ), function, *arguments), processes, start_method=METHOD)
        return [torch.load(Path(folder, f"{rank}.pt"), weights_only=False) for rank in range(processes)]


def run_group(function: Callable[..., Any], *arguments: Any, processes: int = 2) -> list[Any]:
    """As ``run``, in processes that are a process group of torch.distributed."""
    with tempfile.TemporaryDirectory() as folder:
        return run(_member, f"file://{folder}/store", processes, function, *arguments, processes=processes)


def _start_server() -> None:
    """Starts the server unless it is up: it has one thread, as forks need, and no part in the measured coverage."""
    if METHOD != "forkserver":
        return
    path = os.pathsep.join([str(Path.cwd()), *filter(None, sys.path)])
    with mock.patch.dict(os.environ, {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}):
        os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
        forkserver.ensure_running()


def _call(environment: dict[str, str], function: Callable[..., Any], *arguments: Any) -> Any:
    os.environ.clear()  # the server's are those of the test that started it
    os.environ.update(environment)
    with _measured():
        return function(*arguments)


def _ranked(rank: int, folder: str, environment: dict[str, str], function: Callable[..., Any], *arguments: Any) -> None:
    torch.save(_call(environment, function, rank, *arguments), Path(folder, f"{rank}.pt"))


def _member(rank: int, store: str, processes: int, function: Callable[..., Any], *arguments: Any) -> Any:
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=processes, timeout=LIMIT)
    result = function(rank, *arguments)
    # DistributedDataParallel has to be gone before the group: as its last owner it would wait, holding the
    # interpreter's lock, for the group's thread, which may be waiting for that lock.
    gc.collect()
    dist.destroy_process_group()
    return result


@contextmanager
def _measured() -> Iterator[None]:
    """Measures coverage if the tests are measured: a forked process is not a new one, where this happens by itself."""
    if METHOD != "forkserver" or "COVERAGE_PROCESS_CONFIG" not in os.environ:
        yield
        return
    import coverage

    coverage.process_startup(force=True)
    measured = coverage.Coverage.current()
    try:
        yield
    finally:
        measured.stop()
        measured.save()
