"""Chance levels of every protocol on VGG-SS, MUSIC-Solo and MUSIC-Duet: metrics of maps that don't look at the frame.

A centered Gaussian, the whole frame, and random maps of 7×7 with a seed, scored like a model's maps; see
``sslosses.metrics.chance_levels``. The folder holds vggss.json, music_solo.json and music_duet.json, by default it is
that of the environment variable SSLOSSES_METADATA.

    python benchmarks/studies/chance.py --metadata DIR

A run goes on where an earlier one stopped; ``--fresh`` starts anew. Results: chance.json and
chance.md in benchmarks/results/.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from result_files import ROOT, Results, Row, environment, markdown

from sslosses.annotations import Annotations, read_music_duet, read_music_solo, read_vggss
from sslosses.metrics import chance_levels, protocols

PREDICTIONS = ("centered Gaussian", "whole frame", "random maps")
#: Why a protocol isn't computed, or a metric of it isn't shown.
UNION = "one entry a frame, against the union of both sources: it can't tell sources apart"
COUNT = "the predictions are given the number of sources"
CONFIDENCE = "the confidence of these predictions is no confidence"


class Set(NamedTuple):
    title: str
    file: str
    read: Callable[[Path], Annotations]
    task: str


SETS = (
    Set("VGG-SS", "vggss.json", read_vggss, "single"),
    Set("MUSIC-Solo", "music_solo.json", read_music_solo, "single"),
    Set("MUSIC-Duet", "music_duet.json", read_music_duet, "mixtures"),
)


def no_meaning(protocol: protocols.Protocol, task: str) -> str | None:
    return UNION if task == "mixtures" and protocol.assignment == "one per frame" else None


def measure(metadata: Path, step: int, seed: int, done: Results) -> Iterator[tuple[str, Row]]:
    """A row for every set and protocol that there is none of yet."""
    for each in SETS:
        boxes = None
        for name in protocols.available():
            key = f"{each.title} {name}" + (f" every {step}" if step > 1 else "") + (f" seed {seed}" if seed else "")
            if key in done.rows:
                continue
            row: Row = {"set": each.title, "protocol": name, "task": each.task, "seed": seed, "step": step}
            reason = no_meaning(protocols.get(name), each.task)
            if reason:
                yield key, row | {"reason": reason}
                continue
            if boxes is None:
                boxes = [record.boxes for record in each.read(metadata / each.file)][::step]
            levels = chance_levels(boxes, name, task=each.task, seed=seed)
            metrics = protocols.get(name).metrics(each.task)
            yield (
                key,
                row
                | {
                    "entries": int(levels[PREDICTIONS[0]]["entries"]),
                    "frames": len(boxes),
                    "chance": {p: {f: float(levels[p][f]) for f in metrics} for p in PREDICTIONS},
                },
            )


def tables(results: Results) -> str:
    parts = []
    for each in SETS:
        lines: list[tuple[str, ...]] = []
        rows = [row for row in results.rows.values() if row["set"] == each.title]
        for row in rows:
            if "reason" in row:
                lines.append((f"`{row['protocol']}`", f"no meaning: {row['reason']}", "–", "–", "–", ""))
                continue
            for i, metric in enumerate(row["chance"][PREDICTIONS[0]]):
                reason = COUNT if metric == "CountAcc" else CONFIDENCE if metric.startswith("Det") else None
                cells = ["–" if reason else f"{100 * row['chance'][p][metric]:.1f}" for p in PREDICTIONS]
                note = f"{metric}, no meaning: {reason}" if reason else metric
                entries = f"{row['entries']:,}" if i == 0 else ""
                lines.append((f"`{row['protocol']}`" if i == 0 else "", note, *cells, entries))
        if lines:
            parts.append(
                f"**{each.title}**, {', '.join(sorted({frames_of(row) for row in rows if 'frames' in row}))}\n"
            )
            parts.append(markdown(("protocol", "metric, %", *PREDICTIONS, "entries"), lines))
    return "\n".join(parts)


def frames_of(row: Row) -> str:
    return f"{row['frames']:,} frames" + (f" (every {row['step']}th)" if row["step"] > 1 else "")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--metadata", type=Path, default=os.environ.get("SSLOSSES_METADATA"), help="folder of the files"
    )
    parser.add_argument("--step", type=int, default=1, help="take every so many frames only")
    parser.add_argument("--seed", type=int, default=0, help="of the random maps")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--fresh", action="store_true", help="measure again what the file holds")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results", help="folder")
    options = parser.parse_args(arguments)
    if options.metadata is None:
        parser.error("name the folder of the annotation files: --metadata DIR, or SSLOSSES_METADATA")
    torch.set_num_threads(options.threads)
    path = options.output / "chance.json"
    results = Results(path, environment("cpu", options.threads), fresh=options.fresh)
    for key, row in measure(options.metadata, options.step, options.seed, results):
        results.put(key, row)
        print(key, row.get("reason") or row["chance"], flush=True)
    text = tables(results)
    aside = path.with_suffix(".md.tmp")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path.with_suffix(".md"))
    print(text)


if __name__ == "__main__":
    main()
