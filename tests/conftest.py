"""Settings of the test processes."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Threads of several workers on the same cores wait for each other, at several times the cost. Set before torch is
    # imported, this holds for the processes that tests start, too.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)

# Tests of code that is not in the library. Its own tests have to cover it, and a tracer makes these a third slower.
UNTRACED = tuple(Path(__file__).parent / folder for folder in ("benchmarks", "examples"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Pauses the measurement of coverage during tests of code that is not in the library."""
    coverage = sys.modules.get("coverage")
    measured = coverage and coverage.Coverage.current()
    if not measured or not any(item.path.is_relative_to(folder) for folder in UNTRACED):
        return (yield)
    for_processes = os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
    measured.stop()
    try:
        return (yield)
    finally:
        measured.start()
        if for_processes is not None:
            os.environ["COVERAGE_PROCESS_CONFIG"] = for_processes


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Starts the slow tests first: one that starts last keeps a worker busy while the others have nothing to do."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
