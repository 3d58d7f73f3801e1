"""The training runs that tables need. Runs are named after what they change, and tables share runs of one name."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import logging
import os
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..config import Config, add_options, chosen_options
from ..evaluation.report import SMOKE_TEST
from ..parent_process import VARIABLE
from ..training.data_location import DataLocation
from ..training.run_folder import differing_keys
from .specification import Row, TestSet

log = logging.getLogger(__name__)
_GRACE = 10.0  # s for a run to stop after Ctrl-C
_LONGEST = 255 - len(".log")  # bytes of a name, on common file systems
_HASH = 12  # digits
SCRIPTS = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Plan:
    """Where runs read their data and write their results.

    Args:
        base: configuration of all runs: ``quick`` or ``composed`` for composed data, ``None`` for the user's folders.
        roots: the user's folder by data set; data sets without a folder are composed.
        runs: folder of all runs.
        data: folder for composed scenes and cached features.
        options: further options of the training command, the same for all runs.
    """

    base: str | None
    roots: dict[str, Path]
    runs: Path
    data: Path
    options: tuple[str, ...] = ()

    @property
    def smoke_test(self) -> bool:
        """Whether the runs only check that every step works."""
        return self.base == "quick"

    @property
    def title(self) -> str:
        """What heads all tables and pictures of a smoke test; otherwise empty."""
        return SMOKE_TEST if self.smoke_test else ""

    def location(self, dataset: str) -> DataLocation:
        """Returns where the data of ``dataset`` are."""
        return DataLocation(self.data, self.roots.get(dataset))


@dataclass(frozen=True)
class Run:
    """One training run on ``subsets`` of ``dataset``; ``config`` overrides the base configuration."""

    plan: Plan
    dataset: str
    subsets: tuple[str, ...]
    config: str | None
    seed: int

    @property
    def base(self) -> list[str]:
        """The configurations that all rows of a table share."""
        root = self.plan.roots.get(self.dataset)
        if root or self.plan.base is None:
            return [self.dataset]
        return [self.plan.base] if self.dataset == "music" else [self.plan.base, self.dataset]

    @property
    def name(self) -> str:
        """The data set, the subsets, every value that differs from the base configuration, and the seed.

        A slash, as in names on the Hugging Face hub, becomes "--". Values that are too long for the name of a file end
        in their hash; the run's ``config.yaml`` has all of them.
        """
        changed = [f"{key}={value}" for key, value in sorted(self.changes().items())] or ["default"]
        prefix = "" if self.plan.base is None else f"{self.plan.base}-"
        data, seed = f"{prefix}{self.dataset}-{'+'.join(self.subsets)}-", f"-seed{self.seed}"
        values = "-".join(changed).replace("/", "--").encode()
        room = _LONGEST - len(data) - len(seed)
        if len(values) > room:
            values = values[: room - _HASH - 1] + f"-{hashlib.sha256(values).hexdigest()[:_HASH]}".encode()
        return f"{data}{values.decode(errors='ignore')}{seed}"

    def changes(self) -> dict[str, Any]:
        """The values that differ from the base configuration."""
        subsets = {"subsets": list(self.subsets)}
        base = Config.load(self.base, subsets).as_dict()
        values = Config.load(self._configs, subsets).as_dict()
        return {key: value for key, value in values.items() if value != base[key]}

    @property
    def _configs(self) -> list[str]:
        return [*self.base, self.config] if self.config else self.base

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.plan.runs / self.name

    @property
    def metrics(self) -> Path:
        """File of the run's metrics."""
        return self.folder / "metrics.json"

    @property
    def checkpoint(self) -> Path:
        """File of the run's last checkpoint."""
        return self.folder / "checkpoints" / "last.ckpt"

    @property
    def log(self) -> Path:
        """File of what the run printed."""
        return self.plan.runs / f"{self.name}.log"

    @property
    def complete(self) -> bool:
        """Whether the run has finished."""
        return self.metrics.is_file()

    @property
    def configuration(self) -> Config:
        """The whole configuration, including the options of the plan."""
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        add_options(parser)
        options = chosen_options(parser.parse_known_args(self.plan.options)[0])
        return Config.load(self._configs, {"subsets": list(self.subsets), "seed": self.seed} | options)

    def check(self) -> None:
        """Checks the configuration, and that the run's folder, if it exists, holds this run.

        The folder's name says nothing of options and folders of data.

        Raises:
            ValueError: if it holds another run, or the options of the plan do not suit this run.
        """
        try:
            config = self.configuration
        except ValueError as error:
            raise ValueError(f"The options after -- do not suit the run {self.name}: {error}") from error
        path = self.folder / "config.yaml"
        if not path.is_file():
            return
        root = self.plan.roots.get(self.dataset)
        data = {"data": str(root.resolve())} if root else {}
        differing = [key for key in differing_keys(path, config.as_dict() | data) if root or key != "data"]
        if differing:
            raise ValueError(
                f"{self.folder} holds a run with another {', '.join(differing)}. Choose another --runs, or delete it."
            )

    def command(self) -> list[str]:
        """Returns the command that starts the run, or resumes it."""
        root = self.plan.roots.get(self.dataset)
        return [
            *(sys.executable, str(SCRIPTS / f"train_{self.dataset}.py")),
            *("--config", *self._configs),
            *("--subsets", *self.subsets),
            *("--seed", str(self.seed)),
            *("--name", self.name),
            *("--runs", str(self.plan.runs)),
            *("--data", str(self.plan.data)),
            *(("--data-root", str(root)) if root else ()),
            *self.plan.options,
        ]


#: The runs of a row on a test set, one per seed.
RunsByRow = dict[tuple[Row, TestSet], list[Run]]


def complete_runs(runs: Iterable[Run], jobs: int) -> list[Run]:
    """Executes the runs that are not complete, ``jobs`` at a time; returns those that failed, each with a log file."""
    by_name = {run.name: run for run in runs}
    # Seed by seed, so that all rows have the same seeds after an interruption.
    missing = sorted((run for run in by_name.values() if not run.complete), key=lambda run: run.seed)
    failed = []
    active: set[subprocess.Popen[bytes]] = set()
    with (
        ThreadPoolExecutor(jobs) as pool,
        tqdm(total=len(missing), desc="runs", unit="run", disable=not missing) as bar,
    ):
        futures = {pool.submit(_execute, run, jobs, active): run for run in missing}
        try:
            for future in as_completed(futures):
                run = futures[future]
                if future.result():
                    failed.append(run)
                    log.error("failed: %s, see %s", run.name, run.log)
                bar.update()
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(active):  # Ctrl-C also reaches the active runs, `kill -INT` of this process does not
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_GRACE)
                process.terminate()
            raise
    return failed


def _execute(run: Run, jobs: int, active: set[subprocess.Popen[bytes]]) -> int:
    """Executes the run in a separate process, which is ``active`` for that time; returns the exit status."""
    run.plan.runs.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {VARIABLE: str(os.getpid())}  # kill -9 of this process also ends its runs
    if jobs > 1:
        environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    with (
        run.log.open("a", encoding="utf-8") as out,
        subprocess.Popen(run.command(), stdout=out, stderr=subprocess.STDOUT, env=environment) as process,
    ):
        active.add(process)
        status = process.wait()
        active.remove(process)
        return status
