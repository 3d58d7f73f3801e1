"""Chance levels of every protocol on VGG-SS, MUSIC-Solo and MUSIC-Duet: metrics of input-independent maps.

The maps are a centered Gaussian, the whole frame, and random maps of 7×7, scored like the maps of a model; see
``sslosses.metrics.chance_levels``. The folder holds vggss.json, music_solo.json and music_duet.json; by default it is
that of the environment variable SSLOSSES_METADATA.

    python benchmarks/studies/chance.py --metadata DIR

A run resumes where an earlier one stopped; ``--fresh`` measures everything again. Writes benchmarks/results/chance.json
and benchmarks/results/chance.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from study import Results, Row, environment, markdown, metadata_folder, study_parser, write_text

from sslosses.annotations import Annotations, read_music_duet, read_music_solo, read_vggss
from sslosses.metrics import chance_levels, protocols

PREDICTIONS = ("centered Gaussian", "whole frame", "random maps")
#: Why a protocol isn't computed, or a metric isn't shown.
UNION = "one entry per frame, against the union of both sources: it can't tell sources apart"
COUNT = "the predictions are given the number of sources"
CONFIDENCE = "these predictions have no meaningful confidence"


class DataSet(NamedTuple):
    title: str
    file: str
    read: Callable[[Path], Annotations]
    task: str


SETS = (
    DataSet("VGG-SS", "vggss.json", read_vggss, "single"),
    DataSet("MUSIC-Solo", "music_solo.json", read_music_solo, "single"),
    DataSet("MUSIC-Duet", "music_duet.json", read_music_duet, "mixtures"),
)


def no_meaning(protocol: protocols.Protocol, task: str) -> str | None:
    return UNION if task == "mixtures" and protocol.one_entry_per_frame else None


def measure(metadata: Path, step: int, seed: int, done: Results) -> Iterator[tuple[str, Row]]:
    """Rows of all sets and protocols that have none yet."""
    for data in SETS:
        boxes = None
        for name in protocols.available():
            key = f"{data.title} {name}" + (f" every {step}" if step > 1 else "") + (f" seed {seed}" if seed else "")
            if key in done.rows:
                continue
            row: Row = {"set": data.title, "protocol": name, "task": data.task, "seed": seed, "step": step}
            reason = no_meaning(protocols.get(name), data.task)
            if reason:
                yield key, row | {"reason": reason}
                continue
            if boxes is None:
                boxes = [record.boxes for record in data.read(metadata / data.file)][::step]
            levels = chance_levels(boxes, name, task=data.task, seed=seed)
            metrics = protocols.get(name).metrics(data.task)
            yield (
                key,
                row
                | {
                    "entries": int(levels[PREDICTIONS[0]]["entries"]),
                    "frames": len(boxes),
                    "chance": {p: {m: float(levels[p][m]) for m in metrics} for p in PREDICTIONS},
                },
            )


def tables(results: Results) -> str:
    parts = []
    for data in SETS:
        table_rows: list[tuple[str, ...]] = []
        rows = [row for row in results.rows.values() if row["set"] == data.title]
        for row in rows:
            if "reason" in row:
                table_rows.append((f"`{row['protocol']}`", f"no meaning: {row['reason']}", "–", "–", "–", ""))
                continue
            label = f"`{row['protocol']}`" + (" (oracle)" if protocols.get(row["protocol"]).oracle else "")
            for i, metric in enumerate(row["chance"][PREDICTIONS[0]]):
                reason = COUNT if metric == "CountAcc" else CONFIDENCE if metric.startswith(("Det", "MaxF1")) else None
                cells = ["–" if reason else f"{100 * row['chance'][p][metric]:.1f}" for p in PREDICTIONS]
                note = f"{metric}, no meaning: {reason}" if reason else metric
                entries = f"{row['entries']:,}" if i == 0 else ""
                table_rows.append((label if i == 0 else "", note, *cells, entries))
        if table_rows:
            parts.append(
                f"**{data.title}**, {', '.join(sorted({frames_of(row) for row in rows if 'frames' in row}))}\n"
            )
            parts.append(markdown(("protocol", "metric, %", *PREDICTIONS, "entries"), table_rows))
    return "\n".join(parts)


def frames_of(row: Row) -> str:
    return f"{row['frames']:,} frames" + (f" (every {row['step']}th)" if row["step"] > 1 else "")


def main(arguments: list[str] | None = None) -> None:
    parser = study_parser(__doc__, metadata=True)
    parser.add_argument("--step", type=int, default=1, help="take every n-th frame only")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random maps")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    parser.add_argument("--fresh", action="store_true", help="measure again what the file holds")
    options = parser.parse_args(arguments)
    metadata = metadata_folder(parser, options)
    torch.set_num_threads(options.threads)
    path = options.output / "chance.json"
    results = Results(path, environment("cpu", options.threads), fresh=options.fresh)
    for key, row in measure(metadata, options.step, options.seed, results):
        results.put(key, row)
        print(key, row.get("reason") or row["chance"], flush=True)
    text = tables(results)
    write_text(path.with_suffix(".md"), text)
    print(text)


if __name__ == "__main__":
    main()
