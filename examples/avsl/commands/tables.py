"""The command ``reproduce_tables.py``: runs what the paper's tables need, then writes tables, plots and pictures."""

from __future__ import annotations

import argparse
import logging
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from ..config import RESUMABLE_CHANGES, add_options, chosen_options
from ..evaluation.held_out import load_held_out
from ..model.checkpoints import pick_device
from ..tables.collect import collect
from ..tables.cost import measure_cost, write_cost
from ..tables.pictures import caption_sheet, compare_maps
from ..tables.runs import Plan, Run, complete_runs
from ..tables.specification import SETS, Row, Table, TestSet, numbers, read_table
from ..tables.ways import write_ways
from ..tables.writing import markdown, write_all
from ..training.data_location import open_data
from ..training.model_setup import set_up_training
from ..training.run import run_notes
from .arguments import at_least_one, print_plain
from .exit_status import exit_status

log = logging.getLogger(__name__)
CAPTIONS, COST = 6, 9  # numbers of tables that need more than runs
#: What the note of a table says of the identification of its sources.
EXPLANATIONS = {
    "iterative": "Sources by the iterative identification of the paper.",
    "clustering": "Sources by clustering, which is this library's and not the paper's.",
    "repeat": "The same map, that of the sound, for every source of a mixture.",
    "single": "The map of the sound for one source of a mixture; the others have none, which counts as 0.",
    "own": "Each method's own map per source.",
    "given": "Each method's own maps of the classes of the sources, which it is given at test time.",
}
RunsByRow = dict[tuple[Row, TestSet], list[Run]]


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
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
    for table in tables:
        by_row = runs_by_table[table.number]
        if any(run.complete for runs in by_row.values() for run in runs):
            _write_table(table, plan, by_row, options, console)
        else:
            log.warning("Table %d has no complete run and is left out.", table.number)
    if COST in options.table:
        _write_cost(plan, options, console)
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


def _write_table(table: Table, plan: Plan, by_row: RunsByRow, options: argparse.Namespace, console: Console) -> None:
    sets = list(dict.fromkeys(test_set for _, test_set in by_row))
    runs = [run for runs in by_row.values() for run in runs if run.complete]
    told = [plan.title] if plan.title else []
    told += [note for run in runs for note in run_notes(run.metrics)]
    note = " ".join([*dict.fromkeys(told), _note(table, plan, options)])
    paths, results = [], []
    for identification, explanation in EXPLANATIONS.items():
        result = collect(table, sets, by_row, identification)
        if not result.has_values:
            continue
        results.append(result)
        paths += write_all(result, options.out, f"{note} {explanation}", plan.title)
        print_plain(console, markdown(result, f"{note} {explanation}"))
    paths += write_ways(results, options.out, note)
    paths += _draw_pictures(table, plan, by_row, options.out)
    print_plain(console, "written: " + ", ".join(map(str, paths)))


def _draw_pictures(table: Table, plan: Plan, by_row: RunsByRow, out: Path) -> list[Path]:
    """Draws the maps of all rows on the same scenes, from the runs of the first seed.

    The table about captions also gets a sheet with captions beside their frames.
    """
    paths = []
    for test_set in dict.fromkeys(test_set for _, test_set in by_row):
        first_runs = [
            (row.name, runs[0])
            for (row, row_set), runs in by_row.items()
            if row_set == test_set and runs and not row.untrained  # a run's model is the trained one
        ]
        drawable = [(name, run) for name, run in first_runs if run.complete and run.checkpoint.is_file()]
        if not drawable:
            continue
        config = drawable[0][1].configuration
        folder = open_data(plan.location(test_set.dataset), config)
        path = out / f"table{table.number}-{test_set.name}.png"
        held_out = load_held_out(folder, test_set.subset, config.image_size)
        runs = [(name, run.folder) for name, run in drawable]
        compare_maps(path, runs, held_out, plan.title)
        paths.append(path)
        if table.number == CAPTIONS:
            paths.append(out / f"captions-{test_set.dataset}.png")
            caption_sheet(paths[-1], folder, folder.training_pool(test_set.subset).clips)
    return paths


def _write_cost(plan: Plan, options: argparse.Namespace, console: Console) -> None:
    test_set = SETS["MUSIC-Duet" if plan.roots and "vggsound" not in plan.roots else "VGGSound-Duet"]
    run, location = Run(plan, test_set.dataset, test_set.subsets, None, 0), plan.location(test_set.dataset)
    config = run.configuration
    folder = open_data(location, config)
    model, training = set_up_training(location, config, folder)
    held_out = load_held_out(folder, test_set.subset, config.image_size)
    cost = measure_cost(model.to(pick_device("auto")), training, held_out, config)
    command = f"python examples/reproduce_tables.py --table {COST}{' --quick' if options.quick else ''}"
    data = "composed data" if plan.base else test_set.name
    note = f"Configuration {', '.join(run.base)}, {data}. Made by `{command}`."
    note = f"{plan.title} {note}" if plan.title else note
    paths = write_cost({"smoke_test": plan.smoke_test, **cost}, options.out, note)
    print_plain(console, paths[1].read_text(encoding="utf-8"))


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


def _note(table: Table, plan: Plan, options: argparse.Namespace) -> str:
    """The text below the title: units, spread and the command that makes the table."""
    command = f"python examples/reproduce_tables.py --table {table.number}"
    command += " --quick" if options.quick else ""
    command += f" --seeds {' '.join(map(str, options.seeds))}" if options.seeds != [0] else ""
    command += f" --only {' '.join(options.only)}" if options.only else ""
    command += f" --rows {shlex.join(options.rows)}" if options.rows else ""
    for name, root in plan.roots.items():
        command += f" --{name} {root.name}"
    command += f" -- {' '.join(plan.options)}" if plan.options else ""
    seeds = len(options.seeds)
    spread = f"mean ± 95 % confidence interval over {seeds} seeds" if seeds > 1 else "one seed: no spread is known"
    composed = ""
    if plan.base and not plan.smoke_test:
        composed = " Composed data, so compare the order of the rows with the paper's, not the numbers."
    return f"In percent, {spread}.{composed} Made by `{command}`."
