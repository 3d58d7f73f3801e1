"""Writes the tables of ``reproduce_tables.py`` from complete runs."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from rich.console import Console

from ..commands.arguments import print_plain
from ..evaluation.held_out import load_held_out
from ..model.checkpoints import pick_device
from ..training.data_location import open_data
from ..training.model_setup import set_up_training
from ..training.run import run_notes
from .collect import collect
from .cost import measure_cost, write_cost
from .pictures import caption_sheet, compare_maps
from .runs import Plan, Run, RunsByRow
from .specification import CAPTIONS, COST, SETS, Table
from .ways import write_ways
from .writing import markdown, write_all

#: What the note of a table says of the identification of its sources.
EXPLANATIONS = {
    "iterative": "Sources by the iterative identification of the paper.",
    "clustering": "Sources by clustering, which is this library's and not the paper's.",
    "repeat": "The same map, that of the sound, for every source of a mixture.",
    "single": "The map of the sound for one source of a mixture; the others have none, which counts as 0.",
    "own": "Each method's own map per source.",
    "given": "Each method's own maps of the classes of the sources, which it is given at test time.",
}


def write_table(table: Table, plan: Plan, by_row: RunsByRow, options: argparse.Namespace, console: Console) -> None:
    """Writes a table with its plots and pictures, and prints it."""
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


def write_cost_table(plan: Plan, options: argparse.Namespace, console: Console) -> None:
    """Measures what training and inference cost, and writes and prints the table."""
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
