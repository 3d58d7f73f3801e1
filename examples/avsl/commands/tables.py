"""The command ``reproduce_tables.py``: runs what the paper's tables need, then writes tables, plots and pictures."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from ..config import RESUMABLE_CHANGES, add_options, chosen_options
from ..tables.runs import Plan, Run, RunsByRow, complete_runs
from ..tables.specification import COST, Table, TestSet, numbers, read_table
from .arguments import at_least_one
from .exit_status import exit_status

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of the command."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description="Execute the training runs that the paper's tables need, and write the tables, the paper's metrics "
        "beside ours. Complete runs are not repeated, interrupted runs are resumed.",
        epilog="Options after -- are passed to every training run, for example: -- --devices 2 --precision bf16-mixed.",
    )
    add = parser.add_argument
    add("--table", type=int, nargs="+", default=[*numbers(), COST], help="numbers of the tables (default: all)")
    add("--music", type=Path, help="prepared MUSIC folder (default: composed data)")
    add("--vggsound", type=Path, help="prepared VGGSound folder (default: composed data)")
    add("--quick", action="store_true", help="smoke test at a tenth of the size: the numbers mean nothing")
    add("--seeds", type=int, nargs="+", default=[0], help="seeds of the runs (default: 0)")
    add("--only", nargs="+", metavar="SET", help="test sets to restrict the tables to (default: all of a table)")
    add("--rows", nargs="+", metavar="ROW", help="rows to restrict the tables to (default: all of a table)")
    add("--jobs", type=at_least_one, default=1, help="number of runs at the same time; they share the CPU (default: 1)")
    add("--runs", type=Path, default=Path("runs"), help="folder of all runs (default: runs)")
    add("--data", type=Path, default=Path("data"), help="folder of composed scenes and of features (default: data)")
    add("--out", type=Path, default=Path("tables"), help="folder of the tables (default: tables)")
    add("--write-only", action="store_true", help="write the tables from the runs that are complete, and run nothing")
    add("options", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.options and options.options[0] != "--":
        parser.error(f"unrecognized arguments: {' '.join(options.options)}")
    if len(set(options.seeds)) < len(options.seeds):
        parser.error(f"Expected each of `--seeds` once, but got {' '.join(map(str, options.seeds))}")
    if (options.music or options.vggsound) and options.quick:
        parser.error("--quick applies to composed data")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the tables; returns 0 on success, 1 if a run failed, 2 for a wrong argument, 130 if interrupted."""
    options = parse_arguments(arguments)
    return exit_status(lambda: 1 if reproduce(options, Console()) else 0)


def reproduce(options: argparse.Namespace, console: Console) -> list[Run]:
    """Completes the runs and writes the tables; returns the runs that failed."""
    plan = _plan(options)
    tables = [_with_rows(read_table(number), options.rows) for number in options.table if number != COST]
    runs_by_table = {table.number: _runs(table, plan, options) for table in tables}
    all_runs = [run for by_row in runs_by_table.values() for runs in by_row.values() for run in runs]
    _check_options(plan.options, all_runs)
    for run in all_runs:
        run.check()
    failed = [] if options.write_only else complete_runs(all_runs, options.jobs)
    from ..tables.job import write_cost_table, write_table  # imports torch and more, which takes seconds

    for table in tables:
        by_row = runs_by_table[table.number]
        if any(run.complete for runs in by_row.values() for run in runs):
            write_table(table, plan, by_row, options, console)
        else:
            log.warning("Table %d has no complete run and is left out.", table.number)
    if COST in options.table:
        write_cost_table(plan, options, console)
    return failed


def _plan(options: argparse.Namespace) -> Plan:
    roots = {name: root for name, root in (("music", options.music), ("vggsound", options.vggsound)) if root}
    base = None if roots else "quick" if options.quick else "composed"
    return Plan(base, roots, options.runs, options.data, tuple(options.options[1:]))


def _with_rows(table: Table, names: Sequence[str] | None) -> Table:
    """The table with the named rows only.

    Raises:
        ValueError: if it lacks one of them.
    """
    if names is None:
        return table
    known = [row.name for row in (*table.rows, *table.others)]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(
            f"Expected `rows` out of {', '.join(known)} for table {table.number}, but got {', '.join(unknown)}"
        )
    rows, others = (tuple(row for row in part if row.name in names) for part in (table.rows, table.others))
    contrasts = tuple(c for c in table.contrasts if all(name in names for pair in c.pairs for name in pair))
    return replace(table, rows=rows, others=others, contrasts=contrasts)


def _check_options(options: Sequence[str], runs: Sequence[Run]) -> None:
    """Checks that the options for all runs leave the values alone in which the runs differ, and which affect them.

    Raises:
        ValueError: naming the first option that does not.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_options(parser)
    chosen, unknown = parser.parse_known_args(options)
    if unknown:
        raise ValueError(f"Expected options of the configuration after --, but got {' '.join(unknown)}")
    different = {"dataset", "subsets", "seed"}.union(*(run.changes() for run in runs))
    different -= set(RESUMABLE_CHANGES)
    if taken := sorted(different & chosen_options(chosen).keys()):
        raise ValueError(f"Expected options for all runs after --, but the runs differ in {', '.join(taken)}")


def _runs(table: Table, plan: Plan, options: argparse.Namespace) -> RunsByRow:
    """The runs per row and test set, one per seed; none for rows that the data do not suit.

    Of rows that lack a file, only complete runs, which do not need it any more.
    """
    kind = "composed" if plan.base else "real"
    suited = [row for row in table.rows if row.data in ("any", kind)]
    lacking = [row for row in suited if row.needs and not Path(row.needs).is_file()]
    for file in dict.fromkeys(row.needs for row in lacking):
        names = ", ".join(f"“{row.name}”" for row in lacking if row.needs == file)
        log.warning("Table %d: rows that are not run, since there is no file %s here: %s.", table.number, file, names)
    by_row = {
        (row, test_set): [
            Run(plan, test_set.dataset, test_set.subsets, row.config_on(composed=plan.base is not None), seed)
            for seed in options.seeds
            if row in suited
        ]
        for row in table.rows
        for test_set in _test_sets(table, plan, options.only)
    }
    return {key: [run for run in runs if key[0] not in lacking or run.complete] for key, runs in by_row.items()}


def _test_sets(table: Table, plan: Plan, only: Sequence[str] | None) -> list[TestSet]:
    """The table's test sets for which there are data.

    Raises:
        ValueError: if there are none, or ``only`` names others.
    """
    test_sets = [s for s in (*table.sets, *table.also) if plan.base or s.dataset in plan.roots]
    if only:
        unknown = set(only) - {s.name for s in test_sets}
        if unknown:
            raise ValueError(
                f"Expected `only` out of {', '.join(s.name for s in test_sets)} for table {table.number}, "
                f"but got {', '.join(sorted(unknown))}"
            )
        test_sets = [s for s in test_sets if s.name in only]
    if not test_sets:
        raise ValueError(f"Table {table.number} needs {' or '.join(s.name for s in table.sets)}: give the folder")
    return test_sets
