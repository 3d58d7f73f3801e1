"""Shared by the benchmarks: results that survive an interruption, clocks, Markdown tables, the machine in words."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import io
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]
ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
FIGURES = ROOT / "docs" / "figures"
PACKAGES = ("torch", "numpy", "POT", "geomloss", "pykeops", "numba", "triton", "transformers")


def to_json(content: Mapping[str, Any]) -> str:
    """JSON with one row per line: every value of the top level stands on one line, but a table has one line per row.

    A table is a list or an object that holds lists or objects, such as ``runs`` and ``rows``.
    """
    return "{\n" + ",\n".join(f"{_compact(key)}: {_value(value)}" for key, value in content.items()) + "\n}\n"


def _value(value: Any) -> str:
    if isinstance(value, list) and any(isinstance(row, (dict, list)) for row in value):
        return "[\n" + ",\n".join(map(_compact, value)) + "\n]"
    if isinstance(value, dict) and value and all(isinstance(row, (dict, list)) for row in value.values()):
        return "{\n" + ",\n".join(f"{_compact(key)}: {_compact(row)}" for key, row in value.items()) + "\n}"
    return _compact(value)


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes :func:`to_json` of a result; an existing file stays intact until it is replaced."""
    write_text(path, to_json(content))


def write_text(path: Path, text: str) -> None:
    """Writes to a temporary file, which then replaces ``path``."""
    write_bytes(path, text.encode())


def write_figure(figure: Figure, path: Path, **options: Any) -> None:
    """Writes a figure as PNG. It is encoded in memory, since encoders that get a path may ignore a full disk."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", **options)
    write_bytes(path, buffer.getvalue())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes to a temporary file, which then replaces ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def environment(device: str, threads: int) -> Row:
    """Machine, versions and command of a run."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if device.startswith("cuda") else None,
        "device": device,
        "threads": threads,
        "versions": versions,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", *sys.argv]),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


class Results:
    """Rows by key in a JSON file, written after every change, so that a run resumes where another was interrupted.

    Attributes:
        path: the file.
        rows: rows by key. ``run`` of a row is the place in ``runs`` of the run that measured it.
        runs: environments of all runs that wrote to the file, the present one last.
    """

    def __init__(self, path: Path, setting: Row, *, fresh: bool = False) -> None:
        self.path = path
        self.rows: dict[str, Row] = {}
        self.runs: list[Row] = []
        if path.exists() and not fresh:
            content = json.loads(path.read_bytes())
            self.rows, self.runs = content["rows"], content["runs"]
        self.runs.append(setting)

    def put(self, key: str, row: Row) -> None:
        self.rows[key] = row | {"run": len(self.runs) - 1}
        write_json(self.path, {"runs": self.runs, "rows": self.rows})


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options of every program that measures."""
    parser.add_argument("--device", default="cpu", help="default: cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    parser.add_argument("--fresh", action="store_true", help="measure again what the file holds")
    parser.add_argument("--table", action="store_true", help="print the tables of the file and measure nothing")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")


def open_results(options: argparse.Namespace, name: str) -> Results:
    """The results of a program, in a file of their own for each kind of device; with ``--table`` without a new run."""
    suffix = "" if options.device == "cpu" else f"-{options.device.split(':')[0]}"
    path = options.output / f"{name}{suffix}.json"
    if options.table and not path.exists():
        raise SystemExit(f"{path} does not exist: measure first")
    results = Results(path, environment(options.device, options.threads), fresh=options.fresh and not options.table)
    if options.table:
        results.runs.pop()
    return results


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def timed(work: Callable[[], object], device: str) -> tuple[float, float]:
    """Elapsed seconds of a call, and processor seconds of all threads, which a busy machine hardly changes."""
    synchronize(device)
    elapsed, processor = time.perf_counter(), time.process_time()
    work()
    synchronize(device)
    return time.perf_counter() - elapsed, time.process_time() - processor


def interleaved(
    work: Mapping[str, Callable[[], object]], rounds: Mapping[str, int], device: str
) -> dict[str, tuple[list[tuple[float, float]], str]]:
    """(elapsed, processor) of every round of every contestant, and the error that stopped it.

    Contestants take turns, so that a drift of the machine affects all of them.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
    failed: dict[str, str] = {}
    for i in range(max(rounds.values(), default=0)):
        for name, call in work.items():
            if i < rounds[name] and name not in failed:
                try:
                    times[name].append(timed(call, device))
                except Exception as error:
                    failed[name] = reason(error)
    return {name: (times[name], failed.get(name, "")) for name in work}


def reason(error: BaseException) -> str:
    """An error on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def spread(times: Sequence[float]) -> Row:
    """Median, quartiles, extremes and number."""
    quartiles = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else [times[0]] * 3
    return {
        "median": statistics.median(times),
        "quartiles": [quartiles[0], quartiles[2]],
        "range": [min(times), max(times)],
        "rounds": len(times),
    }


def times_faster(row: Row) -> tuple[float, float]:
    """How many times as fast as the plain loop the library is, elapsed and in processor time."""
    elapsed, processor = (
        row[f"loop ms, {clock}"]["median"] / row[f"library ms, {clock}"]["median"] for clock in ("elapsed", "processor")
    )
    return elapsed, processor


def seconds(value: float | None) -> str:
    """A time with three digits and its unit."""
    if value is None:
        return "–"
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if value * scale >= 1:
            return f"{value * scale:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}g}"


def markdown(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def machine_and_command(runs: Sequence[Row]) -> str:
    """Machine, versions and command of the last run in one sentence."""
    last = runs[-1]
    versions = ", ".join(f"{name} {version}" for name, version in last["versions"].items())
    device = f"{last['gpu']}; host {last['cpu']}" if last["gpu"] else f"{last['cpu']}, {last['cores']} cores"
    return f"{device}, {last['threads']} threads; {versions}; {last['date'][:10]}; `{last['command']}`.\n"
