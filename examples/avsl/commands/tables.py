"""``reproduce_tables.py``: the runs that the paper's tables need, then the tables, plots and pictures."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ..evaluation.held_out import load_held_out
from ..model.checkpoints import pick_device
from ..tables.collect import collect
from ..tables.cost import measure_cost, write_cost
from ..tables.pictures import caption_sheet, compare_maps
from ..tables.runs import Plan, Run, complete_runs
from ..tables.specification import SETS, Row, Table, TestSet, numbers, read_table
from ..tables.writing import markdown, write_all
from ..training.run import open_data, prepare
from .exit_status import exit_status

log = logging.getLogger(__name__)
CAPTIONS, COST = 6, 9
MOST_ROWS = 6  # that fit a sheet


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Run what the paper's tables need and write them with the paper's metrics and ours side by side.",
        epilog="Options after -- go to every training run, e.g. -- --devices 2 --precision bf16-mixed.",
    )
    parser.add_argument(
        "--table", type=int, nargs="+", default=[*numbers(), COST], help="numbers of tables (default: all)"
    )
    parser.add_argument("--music", type=Path, help="prepared MUSIC folder")
    parser.add_argument("--vggsound", type=Path, help="prepared VGGSound folder")
    parser.add_argument("--quick", action="store_true", help="composed data at a tenth of the size")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of the runs (default: 0)")
    parser.add_argument("--only", nargs="+", metavar="SET", help="of the table's test sets, these only")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, which share the processor")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--data", type=Path, default=Path("data"), help="where composed data and features are kept")
    parser.add_argument("--out", type=Path, default=Path("tables"))
    parser.add_argument("--write-only", action="store_true", help="write what the complete runs give, run nothing")
    parser.add_argument("options", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    if parsed.options and parsed.options[0] != "--":
        parser.error(f"unrecognized arguments: {' '.join(parsed.options)}")
    if parsed.jobs < 1:
        parser.error(f"argument --jobs: expected at least 1, got {parsed.jobs}")
    if (parsed.music or parsed.vggsound) and parsed.quick:
        parser.error("--quick is for composed data")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables; 0 on success, 1 if a run failed, 2 for a wrong argument, 130 if interrupted."""
    options = parse_arguments(arguments)
    return exit_status(lambda: 1 if reproduce(options, Console()) else 0)


def reproduce(options: argparse.Namespace, console: Console) -> list[Run]:
    """All steps; returns the runs that failed."""
    roots = {name: root for name, root in (("music", options.music), ("vggsound", options.vggsound)) if root}
    base = None if roots else "quick" if options.quick else "composed"
    plan = Plan(base, roots, options.runs, options.data, tuple(options.options[1:]))
    tables = [read_table(number) for number in options.table if number != COST]
    wanted = {table.number: _runs(table, _sets(table, plan, options.only), plan, options.seeds) for table in tables}
    everything = [run for runs in wanted.values() for same in runs.values() for run in same]
    failed = [] if options.write_only else complete_runs(everything, options.jobs)
    for table in tables:
        runs = wanted[table.number]
        if not any(run.complete for same in runs.values() for run in same):
            log.warning("Table %d has no complete run and is left out.", table.number)
            continue
        result = collect(table, list(dict.fromkeys(s for _, s in runs)), runs)
        note = _note(table, plan, options)
        paths = write_all(result, options.out, note) + _pictures(table, plan, runs, options)
        console.print(markdown(result, note), markup=False, highlight=False, soft_wrap=True)
        console.print("written: " + ", ".join(map(str, paths)), markup=False, highlight=False, soft_wrap=True)
    if COST in options.table:
        _write_cost(plan, options, console)
    return failed


def _pictures(
    table: Table, plan: Plan, runs: dict[tuple[Row, TestSet], list[Run]], options: argparse.Namespace
) -> list[Path]:
    """The first seed's maps of the rows that the paper has, on the same scenes; for captions, what they say."""
    paths = []
    for s in dict.fromkeys(s for _, s in runs):
        rows = [(row.name, same[0]) for (row, at), same in runs.items() if at == s and same and same[0].complete]
        rows = [(name, run) for name, run in rows if (run.folder / "checkpoints" / "last.ckpt").is_file()][:MOST_ROWS]
        if not rows:
            continue
        config, folder = rows[0][1].configuration, open_data(_place(plan, s), rows[0][1].configuration)
        path = options.out / f"table{table.number}-{s.name}.png"
        held_out = load_held_out(folder, s.subset, config.image_size)
        compare_maps(path, [(name, run.folder) for name, run in rows], held_out)
        paths.append(path)
        if table.number == CAPTIONS:
            paths.append(options.out / f"captions-{s.dataset}.png")
            caption_sheet(paths[-1], folder, folder.training_pool(s.subset).clips)
    return paths


def _place(plan: Plan, test_set: TestSet) -> argparse.Namespace:
    """What the training command knows of its data."""
    return argparse.Namespace(data=plan.data, data_root=plan.roots.get(test_set.dataset), media=None)


def _write_cost(plan: Plan, options: argparse.Namespace, console: Console) -> None:
    test_set = SETS["MUSIC-Duet" if plan.roots and "vggsound" not in plan.roots else "VGGSound-Duet"]
    run, place = Run(plan, test_set.dataset, test_set.subsets, None, 0), _place(plan, test_set)
    config = run.configuration
    folder = open_data(place, config)
    model, training = prepare(place, config, folder)
    held_out = load_held_out(folder, test_set.subset, config.image_size)
    cost = measure_cost(model.to(pick_device("auto")), training, held_out, config)
    made = f"python examples/reproduce_tables.py --table {COST}{' --quick' if options.quick else ''}"
    data = "composed data" if plan.base else test_set.name
    paths = write_cost(cost, options.out, f"Configuration {', '.join(run.base)}, {data}. Made by `{made}`.")
    console.print(paths[1].read_text(encoding="utf-8"), markup=False, highlight=False, soft_wrap=True)


def _sets(table: Table, plan: Plan, only: Sequence[str] | None) -> list[TestSet]:
    """The table's sets that there are data for."""
    sets = [s for s in (*table.sets, *table.also) if plan.base or s.dataset in plan.roots]
    if only:
        unknown = set(only) - {s.name for s in sets}
        if unknown:
            raise ValueError(
                f"Expected `only` out of {', '.join(s.name for s in sets)} for table {table.number}, "
                f"but got {', '.join(sorted(unknown))}"
            )
        sets = [s for s in sets if s.name in only]
    if not sets:
        raise ValueError(f"Table {table.number} needs {' or '.join(s.name for s in table.sets)}: give the folder")
    return sets


def _runs(
    table: Table, sets: Sequence[TestSet], plan: Plan, seeds: Sequence[int]
) -> dict[tuple[Row, TestSet], list[Run]]:
    kind = "composed" if plan.base else "real"
    return {
        (row, s): [Run(plan, s.dataset, s.subsets, row.config, seed) for seed in seeds if row.data in ("any", kind)]
        for row in table.rows
        for s in sets
    }


def _note(table: Table, plan: Plan, options: argparse.Namespace) -> str:
    command = f"python examples/reproduce_tables.py --table {table.number}"
    command += " --quick" if options.quick else ""
    command += f" --seeds {' '.join(map(str, options.seeds))}" if options.seeds != [0] else ""
    command += f" --only {' '.join(options.only)}" if options.only else ""
    for name, root in plan.roots.items():
        command += f" --{name} {root.name}"
    command += f" -- {' '.join(plan.options)}" if plan.options else ""
    seeds = len(options.seeds)
    spread = f"mean ± 95 % confidence interval over {seeds} seeds" if seeds > 1 else "one seed: no spread is known"
    composed = (
        " Composed data, so compare the order of the rows with the paper's, not the metrics." if plan.base else ""
    )
    return f"In percent, {spread}.{composed} Made by `{command}`."
