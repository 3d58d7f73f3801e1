"""The command that evaluates a trained model on test sets."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from sslosses.metrics import LocalizationResult, protocols

from ..config import SUBSETS
from ..data.folders import ClipFolder
from ..evaluation.held_out import HeldOutScenes, load_held_out
from ..evaluation.predict import Prediction, frame_resolution, predict, save_maps
from ..evaluation.report import draw_sheet, pipe_table, rich_table
from ..evaluation.score import protocol_result, source_counts
from ..evaluation.timing import measure
from ..files import write_json, write_text
from ..model.checkpoints import recorded_data, run_name
from ..model.localizer import Localizer
from ..training.run import open_data
from .arguments import THRESHOLDS, add_model, at_least_one, chosen_model, say
from .exit_status import exit_status

Results = Mapping[str, LocalizationResult]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of ``evaluate.py``; its exit status."""
    options = parse_arguments(arguments)
    return exit_status(lambda: evaluate(options, Console()), resumes=False)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What to evaluate, on what, and how."""
    parser = argparse.ArgumentParser(
        description="Evaluate a trained model on test sets of MUSIC or VGGSound, by any protocols, beside chance."
    )
    add_model(parser)
    add = parser.add_argument
    add("--data-root", type=Path, help="folder with frames/, audio/, metadata/ (default: the one it was trained on)")
    add("--dataset", choices=SUBSETS, help="layout of the folder (default: that of the training)")
    add("--subsets", nargs="+", help="test sets (default: those of the training, or all of another dataset)")
    known = ", ".join(protocols.available())
    add("--protocol", default="paper", metavar="NAMES", help=f"one or more, with commas: {known} (paper)")
    add(
        "--sources",
        choices=("known", "found"),
        default="known",
        help="whether the number of a mixture's sources is given to the model, or is for it to find (known)",
    )
    add("--time", action="store_true", help="measure inference time and memory too")
    add("--no-chance", action="store_true", help="leave out the chance levels")
    add("--seed", type=int, default=0, help="seed of the chance levels' random maps (0)")
    add("--batch-size", type=at_least_one, default=50)
    add("--workers", type=int, help="processes that decode (default: as in training)")
    add("--out", type=Path, help="folder of the results (default: evaluation/<name of the run>-<dataset>)")
    add("--data", type=Path, default=Path("data"), help="where composed scenes are kept, without --data-root")
    parsed = parser.parse_args(arguments)
    parsed.media = None
    return parsed


def evaluate(options: argparse.Namespace, console: Console) -> None:
    """Predict, score, and write everything below ``options.out``."""
    chosen = [protocols.get(name.strip()) for name in options.protocol.split(",")]
    model = chosen_model(options)
    folder, tests = _open_tests(options, model)
    dataset = options.dataset or model.config.dataset
    out = options.out or Path("evaluation") / f"{run_name(options.model)}-{dataset}"
    known = options.sources == "known"
    content: dict[str, Any] = {
        "model": str(options.model.resolve()),
        "dataset": dataset,
        "data": str(folder.root.resolve()),
        "sources": options.sources,
        "thresholds": {name: getattr(model.config, name) for name in THRESHOLDS},
        "seed": options.seed,
        "subsets": {},
    }
    if options.time:  # first: on a CPU the peak is that of all the process has done so far
        content["timing"] = {test.subset: measure(model, test, (1, options.batch_size), known=known) for test in tests}
    workers = model.config.workers if options.workers is None else options.workers
    pages = []
    for test in tests:
        prediction = predict(model, test, options.batch_size, workers, known=known)
        results = {
            p.name: protocol_result(test, prediction, p, chance=not options.no_chance, seed=options.seed)
            for p in chosen
        }
        counts = None if known or test.task == "single" else source_counts(test, prediction)
        name = f"{dataset}-{test.subset}"
        save_maps(out / "maps" / f"{name}.npz", test, prediction)
        for protocol, result in results.items():
            write_text(out / f"{name}-{protocol}.tex", result.to_latex() + "\n")
        content["subsets"][test.subset] = _as_dict(test, prediction, results, counts)
        pages.append(_page(f"{dataset} {test.subset}", results, counts))
        draw_sheet(out / f"{name}.png", [(test, _drawn(test, prediction))])
        _show(console, f"{dataset} {test.subset}", results, counts)
    write_text(out / "table.md", "\n".join(pages))
    write_json(out / "metrics.json", content)
    for subset, timing in content.get("timing", {}).items():
        _show_timing(console, f"{dataset} {subset}", timing)
    say(console, f"Tables, metrics, pictures and maps are in {out}/")


def _open_tests(options: argparse.Namespace, model: Localizer) -> tuple[ClipFolder, list[HeldOutScenes]]:
    trained = model.config
    dataset = options.dataset or trained.dataset
    subsets = options.subsets or (trained.subsets if dataset == trained.dataset else SUBSETS[dataset])
    config = dataclasses.replace(trained, dataset=dataset, subsets=tuple(subsets))
    options.data_root = options.data_root or _trained_on(options.model)
    folder = open_data(options, config)
    return folder, [load_held_out(folder, subset, config.image_size) for subset in config.subsets]


def _trained_on(model: Path) -> Path | None:
    """The data folder of a model's run; None where the scenes that its configuration describes are to be composed."""
    data = recorded_data(model)
    if data is None or data.is_dir():
        return data
    if data.name.startswith("drawn-"):
        return None
    raise FileNotFoundError(f"Expected `data_root`, since the data of this run, {data}, are not there")


def _drawn(test: HeldOutScenes, prediction: Prediction) -> Prediction:
    """The maps that the sheet shows: of found sources, as many as its scenes have."""
    most = max(test.num_sources, int(prediction.valid[:6].sum(1).max()))
    return prediction._replace(maps=prediction.maps[:, :most], valid=prediction.valid[:, :most])


def _as_dict(
    test: HeldOutScenes, prediction: Prediction, results: Results, counts: dict[str, Any] | None
) -> dict[str, Any]:
    content: dict[str, Any] = {
        "scenes": len(test.test.scenes),
        "layout": test.layout,
        "resolution": list(frame_resolution(test, prediction)),
        "protocols": {name: result.to_dict() for name, result in results.items()},
    }
    return content | ({"counting": counts} if counts else {})


def _page(title: str, results: Results, counts: dict[str, Any] | None) -> str:
    """The tables of one set as Markdown, the metrics by size below each."""
    parts = [f"## {title}\n"]
    if counts:
        parts.append(f"{_counted(counts)}\n")
    for result in results.values():
        parts.append(f"{result.to_markdown()}\n")
        if result.per_size:
            names = [name for name in next(iter(result.per_size.values())) if name != "entries"]
            lines = [["size, %", *names, "entries"], ["---", *["---:"] * (len(names) + 1)]]
            for size, metrics in result.per_size.items():
                values = [f"{100 * metrics[name]:.1f}" if metrics[name] == metrics[name] else "–" for name in names]
                lines.append([size, *values, f"{metrics['entries']:,.0f}"])
            parts.append(pipe_table(lines))
    return "\n".join(parts)


def _counted(counts: dict[str, Any]) -> str:
    found = ", ".join(f"{number} in {scenes:,}" for number, scenes in counts["found"].items())
    return f"Right number of sources: {100 * counts['accuracy']:.1f} % (sources found: {found})"


def _show(console: Console, title: str, results: Results, counts: dict[str, Any] | None) -> None:
    rows: dict[str, dict[str, float]] = {}
    for protocol, result in results.items():
        for row, metrics in {"model": result.metrics, **result.chance}.items():
            rows.setdefault(row, {}).update({f"{protocol} {n}": 100 * value for n, value in metrics.items()})
    console.print(rich_table(rows, title))
    for result in results.values():
        tallies = (f"{value:,} {name.replace('_', ' ')}" for name, value in result.counts.items())
        say(console, f"{result.protocol}: {', '.join(tallies)}")
    if counts:
        say(console, _counted(counts))


def _show_timing(console: Console, title: str, timing: Mapping[str, Any]) -> None:
    say(console, f"{title}: {timing['parameters']:,} parameters, on {timing['device']}")
    for batch in timing["batches"]:
        peak = "" if batch["peak_bytes"] is None else f", peak memory {batch['peak_bytes'] / 1e6:,.0f} MB"
        say(console, f"  batch {batch['batch_size']}: {1000 * batch['seconds_per_image']:.1f} ms an image{peak}")
