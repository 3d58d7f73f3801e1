"""The folder of a run: locked while in use, and bound to one configuration."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from ..config import RESUMABLE_CHANGES, Config
from ..files import write_text
from ..yaml_files import read_yaml


@contextlib.contextmanager
def claimed(directory: Path, config: Config, data: Path) -> Iterator[None]:
    """Locks the run's folder and writes its configuration.

    Raises:
        ValueError: if another process uses the folder, or if it holds a run with another configuration.
    """
    if _rank() != 0:
        yield
        return
    directory.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(directory / ".lock").acquire(timeout=0)
    except Timeout:
        raise ValueError(f"Another process is using {directory}. Choose another --name, or wait for it.") from None
    with lock:
        for incomplete in directory.glob("**/.*.partial.*"):  # left by a killed process
            incomplete.unlink(missing_ok=True)
        _claim(directory / "config.yaml", config.as_dict() | {"data": str(data.resolve())})
        yield


def _rank() -> int:
    """The number of this process among those of a training; 0 if it is the only one. Lightning reads the same names."""
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
    return next((int(os.environ[name]) for name in names if name in os.environ), 0)


def _claim(path: Path, values: dict[str, object]) -> None:
    # A run that failed at the start, for example by a misspelled solver, leaves only its configuration: overwrite it.
    if not path.is_file() or not any(other.name not in (path.name, ".lock") for other in path.parent.iterdir()):
        write_text(path, yaml.safe_dump(values, sort_keys=False))
        return
    if differing := differing_keys(path, values):
        others = ", ".join(differing)
        raise ValueError(f"{path.parent} holds a run with another {others}. Choose another --name, or delete it.")


def differing_keys(path: Path, values: Mapping[str, object]) -> list[str]:
    """The keys of a run's ``config.yaml`` whose values a run with ``values`` may not have."""
    written = Config().as_dict() | read_yaml(path)  # an older file may lack keys
    keys = (values.keys() | written.keys()) - set(RESUMABLE_CHANGES)
    return sorted(key for key in keys if values.get(key) != written.get(key))
