"""Compilers' cache folders: without one, damaged, full, shared by processes; and packages that can't be imported."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest
import torch

import sslosses
from sslosses import _caches, _numba, _optional
from sslosses._optional import MissingDependencyError
from sslosses.transport import _foreign, available, solve

pytest.importorskip("numba")


def start_python(code: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    path = os.pathsep.join(filter(None, [str(Path(sslosses.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    inherited = {name: value for name, value in os.environ.items() if name not in ("KEOPS_CACHE_FOLDER", "HOME")}
    return subprocess.Popen(
        [sys.executable, "-W", "always::RuntimeWarning", "-c", textwrap.dedent(code), *arguments],
        env=inherited | {"PYTHONPATH": path, "HOME": "/proc/nohome"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    process = start_python(code, **environment)
    output, errors = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


# numba finds no folder, whoever runs the tests.
NO_FOLDER = """
from numba.core import caching
caching.CacheImpl._locator_classes = []
"""


@pytest.mark.slow
def test_the_default_solver_runs_without_a_writable_folder_and_says_so_once() -> None:
    code = """
    import torch
    from sslosses.metrics.functional import average_precision
    from sslosses.transport import available, solve

    print(available()["fused"])
    print(solve(torch.rand(2, 9, 9), epsilon=0.1).solver)
    print(float(average_precision(torch.ones(600, 600), torch.ones(600, 600))))
    """
    done = run_python(NO_FOLDER + textwrap.dedent(code))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ready (epsilon > 0)\nfused\n1.0\n"
    assert done.stderr.count("RuntimeWarning") == 1
    assert "set the environment variable NUMBA_CACHE_DIR to a writable folder" in done.stderr


def add(x: float, y: float) -> float:
    return x + y


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Makes a compiled function with a cache in tmp_path."""
    import numba.core.config

    monkeypatch.setattr(numba.core.config, "CACHE_DIR", str(tmp_path))
    _numba._warn_once.cache_clear()
    return lambda: _numba.cached_njit()(add)


def test_a_damaged_cache_is_compiled_anew(compiled: object, tmp_path: Path) -> None:
    assert compiled()(1.0, 2.0) == 3
    (data,) = tmp_path.rglob("*.nbc")
    data.write_bytes(data.read_bytes()[:100])
    with pytest.warns(RuntimeWarning, match="numba can't read its cache in .*, so it compiles anew"):
        assert compiled()(1.0, 2.0) == 3
    again = compiled()
    assert again(1.0, 2.0) == 3  # it has been replaced
    assert sum(again.stats.cache_hits.values()) == 1


def test_a_damaged_index_is_replaced(compiled: object, tmp_path: Path) -> None:
    assert compiled()(1.0, 2.0) == 3
    (index,) = tmp_path.rglob("*.nbi")
    index.write_bytes(index.read_bytes()[:30])
    with pytest.warns(RuntimeWarning, match="numba can't read its cache in .*, so it compiles anew"):
        assert compiled()(1.0, 2.0) == 3
    again = compiled()
    assert again(1.0, 2.0) == 3
    assert sum(again.stats.cache_hits.values()) == 1


def test_a_full_disk_does_not_stop_a_compiled_function(compiled: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile.save", fail)
    with pytest.warns(RuntimeWarning, match="can't write its cache .* No space left on device"):
        assert compiled()(1.0, 2.0) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="no lock there")
def test_one_process_at_a_time_has_a_folder(tmp_path: Path) -> None:
    code = f"""
    import fcntl, os
    file = os.open({str(tmp_path / ".sslosses.lock")!r}, os.O_WRONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        print("free")
    except BlockingIOError:
        print("locked")
    """
    with _caches.locked(tmp_path):
        assert run_python(code).stdout == "locked\n"
    assert run_python(code).stdout == "free\n"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no lock there")
def test_processes_that_compile_at_once_lose_none_of_their_kernels(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text(
        "import sslosses._numba\n\n\n@sslosses._numba.cached_njit()\ndef add(x, y):\n    return x + y\n"
    )
    code = f"""
    import itertools, pathlib, sys, time
    import numpy as np
    sys.path.insert(0, {str(tmp_path)!r})
    from kernel import add

    mine, others = (np.int32, np.int64), (np.float32, np.float64)
    pathlib.Path({str(tmp_path)!r}, f"ready{{sys.argv[1]}}").touch()
    while len(list(pathlib.Path({str(tmp_path)!r}).glob("ready*"))) < 2:
        time.sleep(0.001)
    kinds = mine if sys.argv[1] == "0" else others
    if sys.argv[1] == "2":
        kinds = mine + others
    for x, y in itertools.product(kinds, mine + others):
        add(x(1), y(1))
    print(sum(add.stats.cache_hits.values()), sum(add.stats.cache_misses.values()))
    """
    processes = [start_python(code, str(number), NUMBA_CACHE_DIR=str(tmp_path / "cache")) for number in range(2)]
    for process in processes:
        assert process.communicate() == ("0 8\n", "")
    assert start_python(code, "2", NUMBA_CACHE_DIR=str(tmp_path / "cache")).communicate() == ("16 0\n", "")


def test_a_folder_that_cannot_be_locked_is_used_without(tmp_path: Path) -> None:
    with _caches.locked(tmp_path / "missing"):
        pass


def test_an_empty_folder_of_keops_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEOPS_CACHE_FOLDER", "")
    assert "KEOPS_CACHE_FOLDER is set, but empty" in str(_foreign.find_keops_problem())


KEOPS = pytest.mark.skipif(not _optional.is_installed("pykeops"), reason="needs pykeops")


@KEOPS
@pytest.mark.parametrize(
    ("folder", "reason"),
    [("/proc/nohome/keops", "is not writable"), ("{tmp}/my home", "has spaces or other characters")],
)
def test_a_folder_that_keops_cannot_use_is_named_with_the_way_round(
    folder: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder.format(tmp=tmp_path)
    monkeypatch.setenv("KEOPS_CACHE_FOLDER", folder)
    status = available()["geomloss-keops"]
    assert not status
    assert folder in str(status)
    assert reason in str(status)
    assert "Set the environment variable KEOPS_CACHE_FOLDER to a writable folder, without spaces" in str(status)
    with pytest.raises(MissingDependencyError) as raised:
        solve(torch.rand(2, 2), solver="geomloss-keops")
    assert str(raised.value) == str(status)


def test_the_folder_of_keops_is_in_the_home_unless_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEOPS_CACHE_FOLDER", raising=False)
    monkeypatch.setenv("HOME", "/somewhere")
    assert _foreign.keops_folder().parent == Path("/somewhere/.cache")
    assert _foreign.keops_folder().name.startswith("keops")
    monkeypatch.setenv("KEOPS_CACHE_FOLDER", "/elsewhere")
    assert _foreign.keops_folder() == Path("/elsewhere")


@pytest.mark.parametrize(("solver", "epsilon"), [("geomloss", 0.1), ("pot", 0.1), ("pot-batch", 0.1), ("exact", 0)])
def test_packages_that_import_keops_do_without_its_folder(solver: str, epsilon: float) -> None:
    code = f"""
    import sys, torch
    from sslosses.transport import solve

    print(solve(torch.rand(2, 3), epsilon={epsilon}, solver={solver!r}).converged, sys.modules.get("pykeops"))
    """
    done = run_python(code)
    assert done.stdout == "tensor(True) None\n", done.stderr


def test_what_keops_raises_gets_the_name_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEOPS_CACHE_FOLDER", str(tmp_path))
    with (
        pytest.raises(MissingDependencyError, match=f"from {tmp_path}: .*file too short.* Delete this folder"),
        _foreign.compiling_keops("geomloss-keops"),
    ):
        raise ImportError("file too short")


@KEOPS
@pytest.mark.slow
@pytest.mark.skipif(not available()["geomloss-keops"], reason="KeOps can't run")
def test_processes_that_start_at_once_compile_each_formula_once(tmp_path: Path) -> None:
    code = """
    import torch
    from sslosses.transport import grid_positions, pointcloud_cost, solve

    positions = grid_positions(2, 2)
    values = torch.rand(2, 4)
    print(solve(pointcloud_cost(values, values, positions, positions), solver="geomloss-keops").value().shape)
    """
    path = os.pathsep.join(filter(None, [str(Path(sslosses.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "KEOPS_CACHE_FOLDER": str(tmp_path)}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    printed = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    assert "".join(out for out, _ in printed).count("Compiling") == 2


def test_a_faster_package_that_cannot_be_imported_is_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_package.py").write_text("raise ImportError('needs NumPy 2.2 or less')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(RuntimeWarning, match=r"`broken_package` is installed, but can't be imported.*NumPy 2.2 or less"):
        assert not _optional.can_import("broken_package")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not _optional.can_import("broken_package")
    with pytest.raises(MissingDependencyError, match="This can't import the package `broken_package`: needs NumPy"):
        _optional.require("broken_package", extra=None, purpose="This")


@pytest.mark.parametrize(("package", "solvers"), [("numba", ["fused"]), ("ot", ["pot", "pot-batch", "exact"])])
def test_a_solver_whose_package_cannot_be_imported_is_not_available(
    package: str, solvers: list[str], tmp_path: Path
) -> None:
    (tmp_path / f"{package}.py").write_text("raise ValueError('built for another NumPy')", encoding="utf-8")
    code = f"""
    import sys
    sys.path.insert(0, {str(tmp_path)!r})
    from sslosses.transport import available

    for name, status in available().items():
        if "can't import the package" in str(status):
            print(name, bool(status), str(status).partition(": ")[2])
    """
    done = run_python(code)
    assert done.stdout == "".join(f"{name} False built for another NumPy\n" for name in solvers), done.stderr


def test_without_numba_that_works_auto_takes_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["sslosses.transport.solve"], "can_import", lambda _: False)
    assert solve(torch.rand(3, 3), epsilon=0.1).solver == "dense"
