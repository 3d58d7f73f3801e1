"""Runs Python code that releases the interpreter's lock on several threads, on torch's own threads if possible.

After each operation, torch's OpenMP threads wait actively for some milliseconds. Threads of our own would compete with
them for the cores. So the work runs on torch's threads, if torch uses GCC's OpenMP runtime.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch


def parallel_for(function: Callable[[int], None], count: int) -> None:
    """Call ``function(0)`` … ``function(count - 1)``, each once, on as many threads as torch uses."""
    counter = itertools.count()

    def work() -> None:
        for i in counter:
            if i >= count:
                return
            function(i)

    run_on_threads(work, max(1, min(torch.get_num_threads(), count)))


def run_on_threads(work: Callable[[], None], threads: int) -> None:
    """Call ``work`` on up to ``threads`` threads at once, including this one, and raise what it raised."""
    openmp = _openmp() if threads > 1 else None
    if threads == 1:
        work()
    elif openmp is None:
        with ThreadPoolExecutor(threads - 1) as pool:
            futures = [pool.submit(work) for _ in range(threads - 1)]
            work()
            for future in futures:
                future.result()
    else:
        failures: list[BaseException] = []

        def guarded(_: Any) -> None:
            # An exception can't pass through the OpenMP runtime.
            try:
                work()
            except BaseException as failure:
                failures.append(failure)

        callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(guarded)
        openmp.GOMP_parallel(ctypes.cast(callback, ctypes.c_void_p), None, threads, 0)
        if failures:
            raise failures[0]


@functools.cache
def _openmp() -> ctypes.CDLL | None:
    """The OpenMP runtime that torch has loaded, if it is GCC's."""
    if sys.platform != "linux":
        return None
    lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    loaded = {line.split(maxsplit=5)[5] for line in lines if "/libgomp" in line}
    # Other packages may have loaded their own copy.
    root = str(Path(torch.__file__).parent)
    torch_paths = [path for path in loaded if path.startswith((root, f"{root}.libs"))]
    for path in torch_paths or (loaded if len(loaded) == 1 else ()):
        try:
            library = ctypes.CDLL(path, mode=os.RTLD_NOW | os.RTLD_NOLOAD)
        except OSError:
            continue
        if hasattr(library, "GOMP_parallel"):
            library.GOMP_parallel.restype = None
            library.GOMP_parallel.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
            return library
    return None
