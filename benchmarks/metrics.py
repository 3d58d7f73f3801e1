"""Scoring the 5,158 frames of VGG-SS from 14×14 maps: the library against a loop in NumPy, OpenCV and scikit-learn.

Both compute all figures of a protocol for one source a frame. First both score a part of the frames, and the figures
have to agree; then the library scores all of them, and the loop as many as ``--loop-frames`` says, as its time a frame
is constant. The loop is plain: OpenCV resizes, NumPy sorts, ``sklearn.metrics.average_precision_score`` scores.

    python benchmarks/metrics.py --annotations vggss.json --output benchmarks/results/metrics.json
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import sklearn
import torch
from sklearn.metrics import auc, average_precision_score

from sslosses.metrics import SoundLocalization, protocols

SIDE, RESOLUTION = 224, 14
THRESHOLDS = [i / 20 for i in range(21)]
Boxes = list[list[list[float]]]


def synthetic_boxes(count: int, generator: np.random.Generator) -> list[Boxes]:
    """One source of one or two boxes a frame, large in the middle as in VGG-SS."""
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
    return *first, entry_paper(x, g)[1]  # the summed map of PIAP is prepared and scored like any other


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


LOOPS: dict[str, Callable[[np.ndarray, np.ndarray], tuple[float, ...]]] = {
    "paper": entry_paper,
    "noprior": entry_noprior,
    "lvs": entry_lvs,
    "tvsl": entry_tvsl,
    "clean": entry_clean,
}


def loop(protocol: str, maps: np.ndarray, frames: list[Boxes]) -> dict[str, float]:
    rows = []
    for x, (boxes,) in zip(maps, frames, strict=True):
        truth = truth_of(boxes)
        if protocol != "clean" or truth.any():
            rows.append(LOOPS[protocol](x, truth))
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    cious, rates = columns[0], [np.mean(columns[0] >= t) for t in THRESHOLDS]
    figures = {f"{kind}@{t}": np.mean(cious >= t) for kind in ("CIoU", "IoU") for t in (0.3, 0.5)}
    figures |= {"AUC": auc(THRESHOLDS, rates), "mCIoU": cious.mean(), "CIoU": cious.mean(), "CountAcc": 1.0}
    if len(columns) > 1:
        figures |= {"AP": columns[1].mean(), "CAP": columns[1].mean()}
    if len(columns) > 2:
        figures["IoU" if protocol == "tvsl" else "PIAP"] = columns[2].mean()
    return {name: float(value) for name, value in figures.items()}


def library(protocol: str, maps: torch.Tensor, frames: list[Boxes]) -> dict[str, float]:
    metric = SoundLocalization(protocol, task="single")
    metric.update(maps[:, None], frames)
    return {name: float(value) for name, value in metric.compute().items()}


def timed(work: Callable[[], object], device: str) -> float:
    """Processor time of all threads, which other programs on the machine do not lengthen; on a GPU, elapsed time."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    start = clock()
    work()
    return clock() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--annotations", type=Path, help="vggss.json; synthetic boxes without")
    parser.add_argument("--frames", type=int, default=5158)
    parser.add_argument("--check-frames", type=int, default=300)
    parser.add_argument("--loop-frames", type=int, default=1000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    if options.annotations:
        entries = json.loads(options.annotations.read_text(encoding="utf-8"))[: options.frames]
        frames = [[entry["bbox"]] for entry in entries]
    else:
        frames = synthetic_boxes(options.frames, generator)
    maps = generator.normal(size=(len(frames), RESOLUTION, RESOLUTION)).astype(np.float32)
    tensor = torch.tensor(maps, device=options.device)

    def memory() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    rows = []
    for protocol in LOOPS:
        part = slice(0, options.check_frames)
        ours, theirs = library(protocol, tensor[part], frames[part]), loop(protocol, maps[part], frames[part])
        difference = max(abs(ours[name] - theirs[name]) for name in protocols.get(protocol).single_figures)
        if difference > 1e-5:
            raise SystemExit(f"{protocol}: figures differ by {difference}: {ours} {theirs}")
        before = memory()
        seconds = min(timed(lambda p=protocol: library(p, tensor, frames), options.device) for _ in range(2))
        grown = memory() - before
        part = slice(0, options.loop_frames)
        each = min(timed(lambda p=protocol, s=part: loop(p, maps[s], frames[s]), "cpu") for _ in range(2))
        each /= min(options.loop_frames, len(frames))
        rows.append(
            {
                "protocol": protocol,
                "largest difference of a figure": difference,
                "library seconds": round(seconds, 3),
                "loop ms a frame": round(1000 * each, 3),
                "loop seconds for all": round(each * len(frames), 2),
                "speedup": round(each * len(frames) / seconds, 1),
                "peak memory grown MiB": round(grown, 1),
            }
        )
        print(rows[-1], flush=True)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        setting = {
            "frames": len(frames),
            "annotations": options.annotations.name if options.annotations else "synthetic",
            "maps": f"{RESOLUTION}x{RESOLUTION}, normal, float32, seed 0",
            "loop frames timed": min(options.loop_frames, len(frames)),
            "device": torch.cuda.get_device_name() if options.device != "cpu" else platform.machine(),
            "torch threads": torch.get_num_threads(),
            "clock": "processor time" if options.device == "cpu" else "elapsed, library; processor time, loop",
            "versions": {m.__name__: m.__version__ for m in (torch, np, sklearn, cv2)}
            | {"python": platform.python_version()},
        }
        options.output.write_text(json.dumps({"setting": setting, "rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
