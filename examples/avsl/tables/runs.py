"""The training runs that tables need: named after what they change, shared between tables, resumed and not repeated."""

from __future__ import annotations

import argparse
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

from ..config import Config, add_options, given_options

log = logging.getLogger(__name__)
SCRIPTS = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Plan:
    """Where runs take their data and put their results.

    Args:
        base: configuration of all runs: ``quick`` or ``composed`` for composed data, ``None`` for the user's folders.
        roots: the user's folder of each dataset; without one its data are composed.
        runs: folder of all runs.
        data: where composed data and features are kept.
        options: further options of the training command, the same for every run.
    """

    base: str | None
    roots: dict[str, Path]
    runs: Path
    data: Path
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """One training run: ``configs`` over each other, on ``subsets`` of ``dataset``, with ``seed``."""

    plan: Plan
    dataset: str
    subsets: tuple[str, ...]
    config: str | None
    seed: int

    @property
    def base(self) -> list[str]:
        """Configurations of the table's other rows, too."""
        root = self.plan.roots.get(self.dataset)
        if root or self.plan.base is None:
            return [self.dataset]
        return [self.plan.base] if self.dataset == "music" else [self.plan.base, self.dataset]

    @property
    def name(self) -> str:
        """The dataset, the subsets, each value that differs from the base configuration, and the seed."""
        changed = self._changes()
        values = [f"{key}={value}" for key, value in sorted(changed.items())] or ["default"]
        place = "" if self.plan.base is None else f"{self.plan.base}-"
        return "-".join([f"{place}{self.dataset}", "+".join(self.subsets), *values, f"seed{self.seed}"])

    def _changes(self) -> dict[str, Any]:
        base = Config.load(self.base, {"subsets": list(self.subsets)}).as_dict()
        if not self.config:
            return {}
        ours = Config.load([*self.base, self.config], {"subsets": list(self.subsets)}).as_dict()
        return {key: value for key, value in ours.items() if value != base[key]}

    @property
    def folder(self) -> Path:
        """Where the run is."""
        return self.plan.runs / self.name

    @property
    def complete(self) -> bool:
        """Whether its metrics are there."""
        return self.metrics.is_file()

    @property
    def metrics(self) -> Path:
        """Where they are."""
        return self.folder / "metrics.json"

    @property
    def configuration(self) -> Config:
        """All values, those of the plan's options included."""
        parser = argparse.ArgumentParser(add_help=False)
        add_options(parser)
        given = given_options(parser.parse_known_args(self.plan.options)[0])
        configs = [*self.base, self.config] if self.config else self.base
        return Config.load(configs, {"subsets": list(self.subsets), "seed": self.seed} | given)

    def command(self) -> list[str]:
        """The command that does it, or goes on with it."""
        root = self.plan.roots.get(self.dataset)
        configs = [*self.base, self.config] if self.config else self.base
        line = [
            sys.executable,
            str(SCRIPTS / f"train_{self.dataset}.py"),
            "--config",
            *configs,
            "--subsets",
            *self.subsets,
        ]
        line += ["--seed", str(self.seed), "--name", self.name, "--runs", str(self.plan.runs)]
        line += ["--data", str(self.plan.data), *(["--data-root", str(root)] if root else []), *self.plan.options]
        return line


def complete_runs(runs: Iterable[Run], jobs: int) -> list[Run]:
    """Do what is missing of ``runs``, ``jobs`` at a time; returns those that failed, each with a log beside it."""
    wanted = {run.name: run for run in runs}
    # One seed after the other, so that whatever stops it leaves rows with the same seeds.
    missing = sorted((run for run in wanted.values() if not run.complete), key=lambda run: run.seed)
    failed = []
    with (
        ThreadPoolExecutor(jobs) as pool,
        tqdm(total=len(missing), desc="runs", unit="run", disable=not missing) as bar,
    ):
        futures = {pool.submit(_do, run, jobs): run for run in missing}
        try:
            for future in as_completed(futures):
                run = futures[future]
                if future.result():
                    failed.append(run)
                    log.error("failed: %s, see %s", run.name, _log_of(run))
                bar.update()
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)  # Ctrl-C stops the runs under way as well, each at its last checkpoint
            raise
    return failed


def _log_of(run: Run) -> Path:
    return run.plan.runs / f"{run.name}.log"


def _do(run: Run, jobs: int) -> int:
    run.plan.runs.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ)
    if jobs > 1:
        environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    with _log_of(run).open("a", encoding="utf-8") as out:
        return subprocess.run(
            run.command(), stdout=out, stderr=subprocess.STDOUT, env=environment, check=False
        ).returncode
