"""Scoring the 5,158 frames of VGG-SS from 14×14 maps: the library against a loop in NumPy, OpenCV and scikit-learn.

Both compute all metrics of a protocol for one source per frame. First both score some of the frames, and the metrics
have to agree. Then they are timed in turns; the loop scores ``--loop-frames`` frames only, as its time per frame is
constant. The loop is plain: OpenCV resizes, NumPy sorts, ``sklearn.metrics.average_precision_score`` scores. Memory is
measured in separate processes, which score all frames once and eight times.

    python benchmarks/metrics.py --annotations vggss.json
    python benchmarks/metrics.py --frames 500 --threads 1

Without ``--annotations`` the boxes come from vggss.json in the folder SSLOSSES_METADATA; if that is not set, they are
synthetic. A run resumes where an earlier one stopped; ``--fresh`` measures everything again. Writes
benchmarks/results/metrics.json and benchmarks/results/metrics.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from result_files import (
    Results,
    Row,
    add_run_options,
    interleaved,
    machine_and_command,
    markdown,
    open_results,
    spread,
    times_faster,
    write_text,
)
from sklearn.metrics import auc, average_precision_score

from sslosses.metrics import SoundLocalization, protocols

SIDE, RESOLUTION = 224, 14
TAU = 0.03
THRESHOLDS = [i / 20 for i in range(21)]
Boxes = list[list[list[float]]]


def synthetic_boxes(count: int, generator: np.random.Generator) -> list[Boxes]:
    """One source of one or two boxes per frame, large and near the middle as in VGG-SS."""
    frames = []
    for _ in range(count):
        corner = generator.random((int(generator.integers(1, 3)), 2)) * 0.5
        frames.append([np.hstack([corner, corner + 0.1 + 0.4 * generator.random(corner.shape)]).tolist()])
    return frames


def truth_of(boxes: list[list[float]]) -> np.ndarray:
    truth = np.zeros((SIDE, SIDE), dtype=np.float32)
    for box in boxes:
        xmin, ymin, xmax, ymax = (max(int(SIDE * v), 0) for v in box)
        truth[ymin:ymax, xmin:xmax] = 1
    return truth


def min_max(x: np.ndarray) -> np.ndarray:
    x = x - x.min()
    return x / x.max() if x.max() > 0 else x


def overlap(b: np.ndarray, g: np.ndarray) -> float:
    below = np.sum(g) + np.sum(b * (g == 0))
    return float(np.sum(b * g) / below) if below > 0 else 0.0


def pixel_ap(score: np.ndarray, label: np.ndarray) -> float:
    return float(average_precision_score(label.ravel(), score.ravel())) if label.any() else 0.0


def entry_paper(x: np.ndarray, g: np.ndarray) -> tuple[float, ...]:
    x = min_max(cv2.resize(x, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC))
    b = x > np.sort(x.ravel())[x.size // 2]
    return overlap(b, g), pixel_ap(b, g)


def entry_noprior(x: np.ndarray, g: np.ndarray) -> tuple[float, ...]:
    first = entry_paper(x, g)
    return *first, entry_paper(x, g)[1]  # PIAP scores the summed map like any other map


def entry_lvs(x: np.ndarray, g: np.ndarray) -> tuple[float, ...]:
    x = min_max(cv2.resize(x, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR))
    return (overlap(x > np.sort(x.ravel())[x.size // 2], g),)


def entry_clean(x: np.ndarray, g: np.ndarray) -> tuple[float, ...]:
    x = min_max(cv2.resize(x, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR))
    return overlap(x >= 0.5, g), pixel_ap(x, g)


def entry_tvsl(x: np.ndarray, g: np.ndarray) -> tuple[float, ...]:
    x = 1 - min_max(cv2.resize(x, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC))
    b = x >= 0.3
    inter = np.sum(b * g)
    return overlap(b, g), pixel_ap(x, g), float((inter + 1e-4) / (np.sum(b) + np.sum(g) - inter + 1e-4))


def entry_ez_vsl(x: np.ndarray, g: np.ndarray) -> tuple[float, ...]:
    aligned = torch.nn.functional.interpolate(
        torch.from_numpy(x)[None, None], (SIDE, SIDE), mode="bilinear", align_corners=True
    )
    x = min_max(aligned[0, 0].numpy())
    return (overlap(x >= np.sort(x.ravel())[x.size // 2], g),)


def entry_avgn(x: np.ndarray, g: np.ndarray) -> tuple[float, ...]:
    x = (cv2.resize(x, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) + 1 / TAU) * TAU / 2
    confidence = np.sort(x.ravel())[-(x.size // 4) :].mean()
    x = min_max(x)
    b = x >= np.sort(x.ravel())[x.size // 2]
    return overlap(b, g), pixel_ap(g, b), float(confidence)


LOOPS: dict[str, Callable[[np.ndarray, np.ndarray], tuple[float, ...]]] = {
    "paper": entry_paper,
    "noprior": entry_noprior,
    "lvs": entry_lvs,
    "tvsl": entry_tvsl,
    "clean": entry_clean,
    "ez-vsl": entry_ez_vsl,
    "avgn": entry_avgn,
}


def detected(cious: np.ndarray, confidences: np.ndarray, level: float) -> tuple[float, float]:
    """Precision and recall at a confidence level as in AVGN's code."""
    confident = confidences >= level
    correct, missed = np.sum(confident & (cious >= 0.3)), np.sum(~confident)
    precision = correct / confident.sum() if confident.any() else 1.0
    return precision, (correct / (correct + missed) if correct + missed else 1.0)


def detection_ap(cious: np.ndarray, confidences: np.ndarray) -> float:
    levels = np.sort(confidences)[:-1][:: -max(1, len(cious) // 200)]
    points = [detected(cious, confidences, level) for level in levels]
    best = [max(p for p, _ in points[i:]) for i in range(len(points))]
    return sum(best[i] * (points[i + 1][1] - points[i][1]) for i in range(len(points) - 1))


def detection_f1(cious: np.ndarray, confidences: np.ndarray) -> float:
    p, r = detected(cious, confidences, 0.5)
    return 2 * p * r / (p + r) if p + r else 0.0


def loop(protocol: str, maps: np.ndarray, frames: list[Boxes]) -> dict[str, float]:
    rows = []
    for x, (boxes,) in zip(maps, frames, strict=True):
        truth = truth_of(boxes)
        if protocol != "clean" or truth.any():
            rows.append(LOOPS[protocol](x, truth))
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    cious, rates = columns[0], [np.mean(columns[0] >= t) for t in THRESHOLDS]
    metrics = {"AP50": np.mean(cious >= 0.5), "Precision@0.3": np.mean(cious > 0.3)}
    metrics |= {f"{kind}@{t}": np.mean(cious >= t) for kind in ("CIoU", "IoU") for t in (0.3, 0.5)}
    metrics |= {"AUC": auc(THRESHOLDS, rates), "mCIoU": cious.mean(), "CIoU": cious.mean(), "CountAcc": 1.0}
    if len(columns) > 1:
        metrics |= {"AP": columns[1].mean(), "CAP": columns[1].mean()}
    if protocol == "avgn":
        metrics |= {"DetAP@0.3": detection_ap(cious, columns[2]), "DetF1@0.3": detection_f1(cious, columns[2])}
    elif len(columns) > 2:
        metrics["IoU" if protocol == "tvsl" else "PIAP"] = columns[2].mean()
    return {name: float(value) for name, value in metrics.items()}


def library(protocol: str, maps: torch.Tensor, frames: list[Boxes]) -> dict[str, float]:
    metric = SoundLocalization(protocol, task="single")
    metric.update(maps[:, None], frames)
    return {name: float(value) for name, value in metric.compute().items()}


def inputs(options: argparse.Namespace, count: int) -> tuple[np.ndarray, list[Boxes]]:
    generator = np.random.default_rng(0)
    if options.annotations:
        entries = json.loads(options.annotations.read_bytes())[:count]
        frames = [[entry["bbox"]] for entry in entries]
    else:
        frames = synthetic_boxes(count, generator)
    return generator.normal(size=(len(frames), RESOLUTION, RESOLUTION)).astype(np.float32), frames


def peak_mib(protocol: str, options: argparse.Namespace, times: int) -> float:
    """Peak memory of a process that scores the frames ``times`` times with one metric."""
    command = [sys.executable, __file__, "--memory-of", protocol, str(times), "--frames", str(options.frames)]
    command += ["--threads", str(options.threads)]
    command += ["--annotations", str(options.annotations)] if options.annotations else []
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def score_and_print_peak(protocol: str, options: argparse.Namespace, times: int) -> None:
    maps, frames = inputs(options, options.frames)
    metric = SoundLocalization(protocol, task="single")
    for _ in range(times):
        for i in range(0, len(frames), 128):
            metric.update(torch.from_numpy(maps[i : i + 128, None]), frames[i : i + 128])
    metric.compute()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def measure(protocol: str, maps: np.ndarray, frames: list[Boxes], options: argparse.Namespace) -> Row:
    tensor = torch.from_numpy(maps).to(options.device)
    part = slice(0, min(options.check_frames, len(frames)))
    fast, slow = library(protocol, tensor[part], frames[part]), loop(protocol, maps[part], frames[part])
    # Detection AP sorts by confidence; entries that differ in the last digit of float32 may change places.
    differences = {name: abs(fast[name] - slow[name]) for name in protocols.get(protocol).single_metrics}
    difference = max(differences.values())
    if any(value > (1e-3 if name.startswith("DetAP") else 1e-5) for name, value in differences.items()):
        raise SystemExit(f"{protocol}: metrics differ by {difference}: {fast} {slow}")
    few = slice(0, min(options.loop_frames, len(frames)))
    work: dict[str, Callable[[], object]] = {
        "library": lambda: library(protocol, tensor, frames),
        "loop": lambda: loop(protocol, maps[few], frames[few]),
    }
    times = interleaved(work, dict.fromkeys(work, options.rounds), options.device)
    scale = {"library": 1e3 / len(frames), "loop": 1e3 / few.stop}
    row: Row = {"protocol": protocol, "frames": len(frames), "threads": options.threads, "difference": difference}
    for name, (pairs, failure) in times.items():
        if failure:
            raise SystemExit(f"{protocol}, {name}: {failure}")
        for i, clock in enumerate(("elapsed", "processor")):
            row[f"{name} ms, {clock}"] = spread([scale[name] * pair[i] for pair in pairs])
    if not options.no_memory:
        row["peak MiB"] = [peak_mib(protocol, options, times) for times in (1, 8)]
    return row


def table(results: Results) -> str:
    def cells(row: Row) -> list[str]:
        elapsed, processor = times_faster(row)
        once, more = row.get("peak MiB", (float("nan"),) * 2)
        return [
            f"`{row['protocol']}`",
            f"{row['frames']:,}",
            str(row["threads"]),
            f"{row['library ms, elapsed']['median']:.2f}",
            f"{row['loop ms, elapsed']['median']:.2f}",
            f"{elapsed:.1f}",
            f"{processor:.1f}",
            f"{row['difference']:.0e}",
            f"{once:.0f}, {more:.0f}",
        ]

    columns = (
        "protocol",
        "frames",
        "threads",
        "library, ms per frame",
        "loop, ms per frame",
        "× elapsed",
        "× processor time",
    )
    columns += ("largest difference of a metric", "peak MiB, frames once and 8 times")
    rows = sorted(results.rows.values(), key=lambda row: (row["frames"], row["threads"]))
    return machine_and_command(results.runs) + "\n" + markdown(columns, map(cells, rows))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    metadata = os.environ.get("SSLOSSES_METADATA")
    known = Path(metadata) / "vggss.json" if metadata else None
    parser.add_argument("--annotations", type=Path, default=known, help="vggss.json; synthetic boxes if not given")
    parser.add_argument("--protocols", nargs="+", choices=LOOPS, default=list(LOOPS), help="default: all")
    parser.add_argument("--frames", type=int, default=5158, help="frames to score")
    parser.add_argument("--check-frames", type=int, default=300, help="frames whose metrics are compared")
    parser.add_argument("--loop-frames", type=int, default=300, help="frames that the loop is timed on")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--no-memory", action="store_true", help="do not measure memory")
    add_run_options(parser)
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.memory_of:
        score_and_print_peak(options.memory_of[0], options, int(options.memory_of[1]))
        return
    results = open_results(options, "metrics")
    if not options.table:
        maps, frames = inputs(options, options.frames)
        source = options.annotations.name if options.annotations else "synthetic"
        for protocol in options.protocols:
            key = f"{protocol} {source} {len(frames)} t{options.threads}"
            if key not in results.rows:
                results.put(key, measure(protocol, maps, frames, options) | {"boxes": source})
                print(key, "done", flush=True)
    text = table(results)
    print(text)
    write_text(results.path.with_suffix(".md"), text)


if __name__ == "__main__":
    main()
