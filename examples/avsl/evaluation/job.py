"""The work of ``evaluate.py``: predicts the maps of test sets, scores them and writes the results."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from sslosses.metrics import LocalizationResult, protocols
from sslosses.metrics.result import shown_interval

from ..clip_ids import is_public
from ..commands.arguments import THRESHOLDS, print_plain, selected_model
from ..config import SUBSETS
from ..data.flickr import FlickrFolder
from ..data.folders import ClipFolder
from ..files import write_json, write_text
from ..model.localizer import Localizer
from ..model.locations import recorded_data, run_name
from ..model.model_card import COMPOSED
from ..training.data_location import FOLDERS, DataLocation, open_data
from .held_out import HeldOutScenes, load_held_out
from .negative_sounds import NegativeScores, negative_sound_scores
from .predict import Prediction, frame_resolution, predict, save_maps
from .report import SAMPLES, SHARE_OF_LIST, SMOKE_TEST, markdown_table, metric_notes, pipe_table, rich_table
from .score import SALIENCY, protocol_result, saliency_prediction, source_counts
from .sheet import SHEET_ROWS, draw_sheet
from .timing import measure

log = logging.getLogger(__name__)
#: By the name of the protocol.
Results = Mapping[str, LocalizationResult]


def evaluate(options: argparse.Namespace, console: Console) -> None:
    """Predicts and scores all test sets, prints the results and writes them to ``options.out``."""
    chosen = [protocols.get(name.strip()) for name in options.protocol.split(",")]
    model = selected_model(options)
    folder, tests = _open_tests(options, model)
    dataset = options.dataset or model.config.dataset
    out = options.out or Path("evaluation") / f"{run_name(options.model)}-{dataset}"
    known = options.sources == "known"
    content: dict[str, Any] = {
        "model": str(options.model.resolve() if options.model.exists() else options.model),
        "dataset": dataset,
        "data": str(folder.root.resolve()),
        "sources": options.sources,
        "identification": model.config.identification,
        "thresholds": {name: getattr(model.config, name) for name in THRESHOLDS},
        "seed": options.seed,
        "subsets": {},
    }
    if options.time:  # before all else, since on a CPU the peak memory is that of the process so far
        content["timing"] = {test.subset: measure(model, test, (1, options.batch_size), known=known) for test in tests}
    notes = content["notes"] = metric_notes(model.config, _trained_clips(options.model, model, folder), tests)
    for note in notes:
        log.warning("%s", note)
    workers = model.config.workers if options.workers is None else options.workers
    pages = [f"{note}\n" for note in notes]
    head = "".join(f"% {note}\n" for note in notes)
    for test in tests:
        prediction = predict(model, test, options.batch_size, workers, known=known)
        chance = not options.no_chance
        with_saliency = options.saliency or (chance and test.silent)  # only composed scenes know silent objects
        others = {SALIENCY: saliency_prediction(test)} if with_saliency else {}
        results = {
            protocol.name: protocol_result(
                test, prediction, protocol, data_set=dataset, chance=chance, seed=options.seed, others=others
            )
            for protocol in chosen
        }
        counts = None if known or test.task == "single" else source_counts(test, prediction)
        name, title = f"{dataset}-{test.subset}", f"{dataset} {test.subset}"
        save_maps(out / "maps" / f"{name}.npz", test, prediction)
        for protocol, result in results.items():
            write_text(out / f"{name}-{protocol}.tex", f"{head}{result.to_latex()}\n")
        shown = [(test, _without_empty_slots(test, prediction))]
        draw_sheet(out / f"{name}.png", shown, title=SMOKE_TEST if model.config.smoke_test else "")
        content["subsets"][test.subset] = _as_dict(test, prediction, results, counts)
        pages.append(_page(title, test.share, results, counts))
        _print_results(console, title, test.share, results, counts, _remarks(test))
        if options.negative_sounds:
            oracle = options.negative_sounds == "oracle"
            scores = negative_sound_scores(
                model, test, oracle=oracle, seed=options.seed, batch_size=options.batch_size, workers=workers
            )
            if scores:
                content["subsets"][test.subset]["negative_sounds"] = _negative_sounds_as_dict(scores)
                pages.append(f"{scores}\n\n{markdown_table(_negative_sound_rows(scores))}")
                console.print(rich_table(_negative_sound_rows(scores), title))
                print_plain(console, str(scores))
    write_text(out / "table.md", "\n".join(pages))
    write_json(out / "metrics.json", content)
    for subset, timing in content.get("timing", {}).items():
        _print_timing(console, f"{dataset} {subset}", timing)
    print_plain(console, f"{out}/ holds the tables, metrics, pictures and maps")


def _open_tests(options: argparse.Namespace, model: Localizer) -> tuple[ClipFolder, list[HeldOutScenes]]:
    trained = model.config
    dataset = options.dataset or trained.dataset
    subsets = options.subsets or (trained.subsets if dataset == trained.dataset else SUBSETS[dataset])
    config = dataclasses.replace(trained, dataset=dataset, subsets=tuple(subsets))
    folder = open_data(DataLocation(options.data, options.data_root or _training_data(options.model, model)), config)
    return folder, [load_held_out(folder, subset, config.image_size) for subset in config.subsets]


def _training_data(path: Path, model: Localizer) -> Path | None:
    """Returns the folder that the model was trained on; None if its composed scenes have to be made again.

    Of a shared model, only the folder's name is known.

    Raises:
        FileNotFoundError: if the user's folder does not exist: other scenes would give other metrics.
    """
    data = recorded_data(path)
    if data is not None and data.is_dir():
        return data
    name = data.name if data else model.data_name
    if not name or name.startswith(COMPOSED):
        return None
    if data is None:
        raise FileNotFoundError(f"Expected `data_root`, since the data of this model, {name}, are not shared with it")
    raise FileNotFoundError(f"Expected `data_root`, since the data of this run, {data}, do not exist")


def _trained_clips(path: Path, model: Localizer, folder: ClipFolder) -> set[str]:
    """The ids in the training lists of the model's run, as far as they still exist and mean the same in ``folder``."""
    data = recorded_data(path)
    if data is None or not data.is_dir():
        return set()
    trained: set[str] = set()
    for subset in model.config.subsets:
        with contextlib.suppress(FileNotFoundError):
            trained.update(name for name, _ in FOLDERS[model.config.dataset](data).training_list(subset)[1])
    same_ids = model.config.dataset == "flickr" and isinstance(folder, FlickrFolder)  # of the one public archive
    if (
        data.resolve() != folder.root.resolve() and not same_ids
    ):  # in another folder, ids of the user's own may name other clips
        return {name for name in trained if is_public(name)}
    return trained


def _without_empty_slots(test: HeldOutScenes, prediction: Prediction) -> Prediction:
    """Keeps as many map slots as the scenes on the sheet have found sources."""
    slots = max(test.num_sources, int(prediction.valid[:SHEET_ROWS].sum(1).max()))
    return prediction._replace(maps=prediction.maps[:, :slots], valid=prediction.valid[:, :slots])


def _as_dict(
    test: HeldOutScenes, prediction: Prediction, results: Results, counts: dict[str, Any] | None
) -> dict[str, Any]:
    content: dict[str, Any] = {
        "scenes": len(test.test.scenes),
        "scenes_of_public_list": test.listed,
        "layout": test.layout,
        "resolution": list(frame_resolution(test, prediction)),
        "protocols": {name: result.to_dict() for name, result in results.items()},
    }
    return content | ({"counting": counts} if counts else {})


def _negative_sound_rows(scores: NegativeScores) -> dict[str, dict[str, float]]:
    return {scores.result.label: {name: 100 * value for name, value in scores.result.metrics.items()}}


def _negative_sounds_as_dict(scores: NegativeScores) -> dict[str, Any]:
    return scores._asdict() | {"result": scores.result.to_dict()}


def _page(title: str, share: str, results: Results, counts: dict[str, Any] | None) -> str:
    """Writes the tables of one test set as Markdown, each followed by its notes and the metrics by size."""
    parts = [f"## {title}\n", f"{share}\n"]
    if counts:
        parts.append(f"{_count_summary(counts)}\n")
    for result in results.values():
        parts.append(f"{result.to_markdown()}\n")
        parts += [f"Note: {note}.\n" for note in result.notes]
        if result.per_size:
            names = [name for name in next(iter(result.per_size.values())) if name != "entries"]
            rows = [["size, %", *names, "entries"], ["---", *["---:"] * (len(names) + 1)]]
            for size, metrics in result.per_size.items():
                values = [f"{100 * metrics[name]:.1f}" if metrics[name] == metrics[name] else "–" for name in names]
                rows.append([size, *values, f"{metrics['entries']:,.0f}"])
            parts.append(pipe_table(rows))
    return "\n".join(parts)


def _count_summary(counts: dict[str, Any]) -> str:
    found = ", ".join(f"{number} in {scenes:,}" for number, scenes in counts["found"].items())
    return f"Right number of sources: {100 * counts['accuracy']:.1f} % (sources found: {found})"


def _remarks(test: HeldOutScenes) -> dict[str, float]:
    """The number of scored scenes and, of an incomplete list, their share, for the table."""
    count = len(test.test.scenes)
    share = {SHARE_OF_LIST: 100 * count / test.listed} if test.listed and test.listed != count else {}
    return {SAMPLES: float(count), **share}


def _intervals(result: LocalizationResult) -> dict[str, str]:
    """The intervals over videos in words, by the name of the row."""
    if result.videos is None or not result.videos.intervals:
        return {}
    return {f"{result.label} {metric}": shown_interval(result.videos.intervals[metric]) for metric in result.metrics}


def _print_results(
    console: Console,
    title: str,
    share: str,
    results: Results,
    counts: dict[str, Any] | None,
    remarks: Mapping[str, float],
) -> None:
    rows: dict[str, dict[str, float]] = {}
    for result in results.values():
        for name, metrics in {"model": result.metrics, **result.chance}.items():
            cells = {f"{result.label} {metric}": 100 * value for metric, value in metrics.items()}
            rows.setdefault(name, {}).update(cells)
    rows["model"] |= remarks
    intervals = {name: cell for result in results.values() for name, cell in _intervals(result).items()}
    console.print(rich_table(rows, title, {"95 % interval": intervals} if intervals else None))
    print_plain(console, f"{title}: {share}")
    for result in results.values():
        print_plain(console, f"{result.label}: {result.printed_counts}")
        for note in result.notes:
            print_plain(console, f"Note: {note}.")
    if counts:
        print_plain(console, _count_summary(counts))
    elif any("CountAcc" in result.metrics for result in results.values()):
        print_plain(
            console, "CountAcc: the number of sources was given (--sources known), so below 100 % a map was not found."
        )


def _print_timing(console: Console, title: str, timing: Mapping[str, Any]) -> None:
    print_plain(console, f"{title}: {timing['parameters']:,} parameters, on {timing['device']}")
    for batch in timing["batches"]:
        milliseconds, peak = 1000 * batch["seconds_per_image"], batch["peak_bytes"]
        memory = "" if peak is None else f", peak memory {peak / 1e6:,.0f} MB"
        print_plain(console, f"  batch {batch['batch_size']}: {milliseconds:.1f} ms per image{memory}")
