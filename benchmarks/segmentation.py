"""Scoring AVSBench's masks: the library against the plain loop over frames and thresholds.

Both compute M_J and M_F of generated videos of 5 frames of 224 × 224. The loop is the plain form of the definition: for
each frame with an object, precision and recall at each of 255 thresholds, in torch. First both score a few videos, and
M_J and M_F have to agree. Then they are timed in turns; the loop scores ``--loop-videos`` videos only, as its time per
frame is constant. Memory is measured in separate processes, which score all videos once and eight times.

    python benchmarks/segmentation.py --threads 2
    python benchmarks/segmentation.py --videos 20 --no-memory

A run resumes where an earlier one stopped; ``--fresh`` measures everything again. Writes
benchmarks/results/segmentation.json and benchmarks/results/segmentation.md.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator

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
from torch import Tensor
from torch.nn.functional import interpolate

from sslosses.metrics import AVSBenchSegmentation

FRAMES, SIDE = 5, 224
STEP = 4  # videos of one update
Video = tuple[Tensor, Tensor]


def videos(count: int, device: str) -> Iterator[Video]:
    """Logits and masks of smooth random objects, (F, H, W); about one frame in ten has no object."""
    generator = torch.Generator().manual_seed(0)

    def smooth() -> Tensor:
        coarse = torch.randn(FRAMES, 1, 8, 8, generator=generator)
        return interpolate(coarse, (SIDE, SIDE), mode="bicubic", align_corners=False)[:, 0]

    for _ in range(count):
        field = smooth()
        masks = (field > 0.5) & (torch.rand(FRAMES, 1, 1, generator=generator) > 0.1)
        logits = 4 * (field - 0.5) + 2 * smooth() + 0.3 * torch.randn(FRAMES, SIDE, SIDE, generator=generator)
        yield logits.to(device), masks.to(device)


def library(data: list[Video], device: str) -> dict[str, float]:
    metric = AVSBenchSegmentation(scale="logits").to(device)
    for i in range(0, len(data), STEP):
        maps, masks = (torch.stack(column) for column in zip(*data[i : i + STEP], strict=True))
        metric.update(maps, masks)
    result = metric.compute()
    return {name: float(result[name]) for name in ("M_J", "M_F (oracle)")}


def frame_iou(marked: Tensor, mask: Tensor) -> float:
    if mask.sum() == 0:
        return float((1 - marked).sum() / marked.numel())
    return float((marked * mask).sum() / (torch.maximum(marked, mask).sum() + 1e-7))


def frame_curve(probabilities: Tensor, mask: Tensor) -> Tensor:
    thresholds = torch.linspace(0, 1 - 1e-10, 255)
    scores = torch.zeros(255)
    for i, threshold in enumerate(thresholds):
        marked = (probabilities >= threshold).float()
        hits = (marked * mask).sum()
        precision, recall = hits / (marked.sum() + 1e-20), hits / (mask.sum() + 1e-20)
        scores[i] = 1.3 * precision * recall / (0.3 * precision + recall)
    return scores.nan_to_num(0.0)


def loop(data: list[Video]) -> dict[str, float]:
    ious, scores = [], []
    for logits, masks in data:  # a batch of one video
        curves = []
        for frame, mask in zip(logits, masks.float(), strict=True):
            probabilities = frame.sigmoid()
            ious.append(frame_iou((probabilities > 0.5).float(), mask))
            if mask.any():
                curves.append(frame_curve(probabilities, mask))
        scores.append(float(torch.stack(curves).mean(0).max()) if curves else 0.0)
    return {"M_J": sum(ious) / len(ious), "M_F (oracle)": sum(scores) / len(scores)}


def peak_mib(options: argparse.Namespace, times: int) -> float:
    """Peak memory of a process that scores the videos ``times`` times with one metric."""
    command = [sys.executable, __file__, "--memory-of", str(times), "--videos", str(options.videos)]
    command += ["--threads", str(options.threads)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def score_and_print_peak(count: int, times: int) -> None:
    metric = AVSBenchSegmentation(scale="logits")
    for _ in range(times):
        for logits, masks in videos(count, "cpu"):
            metric.update(logits[None], masks[None])
    metric.compute()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def measure(options: argparse.Namespace) -> Row:
    data = list(videos(options.videos, options.device))
    few = data[: options.loop_videos]
    fast, slow = library(few, options.device), loop(few)
    difference = max(abs(fast[name] - slow[name]) for name in slow)
    if not difference < 1e-5:
        raise SystemExit(f"metrics differ by {difference}: {fast} {slow}")
    work: dict[str, Callable[[], object]] = {
        "library": lambda: library(data, options.device),
        "loop": lambda: loop(few),
    }
    times = interleaved(work, dict.fromkeys(work, options.rounds), options.device)
    frames = {"library": FRAMES * len(data), "loop": FRAMES * len(few)}
    row: Row = {"videos": len(data), "threads": options.threads, "difference": difference} | fast
    for name, (pairs, failure) in times.items():
        if failure:
            raise SystemExit(f"{name}: {failure}")
        for i, clock in enumerate(("elapsed", "processor")):
            row[f"{name} ms, {clock}"] = spread([1e3 * pair[i] / frames[name] for pair in pairs])
    if not options.no_memory:
        row["peak MiB"] = [peak_mib(options, times) for times in (1, 8)]
    return row


def table(results: Results) -> str:
    def cells(row: Row) -> list[str]:
        elapsed, processor = times_faster(row)
        once, more = row.get("peak MiB", (float("nan"),) * 2)
        return [
            f"{FRAMES * row['videos']:,}",
            str(row["threads"]),
            f"{row['library ms, elapsed']['median']:.2f}",
            f"{row['loop ms, elapsed']['median']:.1f}",
            f"{elapsed:.0f}",
            f"{processor:.0f}",
            f"{row['difference']:.0e}",
            f"{once:.0f}, {more:.0f}",
        ]

    columns = ("frames", "threads", "library, ms per frame", "loop, ms per frame", "× elapsed", "× processor time")
    columns += ("largest difference of a metric", "peak MiB, frames once and 8 times")
    return machine_and_command(results.runs) + "\n" + markdown(columns, map(cells, results.rows.values()))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--videos", type=int, default=64, help="videos of 5 frames to score (default: 64, as in MS3)")
    parser.add_argument("--loop-videos", type=int, default=4, help="videos that the loop scores and is timed on")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--no-memory", action="store_true", help="do not measure memory")
    add_run_options(parser)
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.memory_of:
        score_and_print_peak(options.videos, options.memory_of)
        return
    results = open_results(options, "segmentation")
    key = f"avsbench {options.videos} t{options.threads}"
    if not options.table and key not in results.rows:
        results.put(key, measure(options))
    text = table(results)
    print(text)
    write_text(results.path.with_suffix(".md"), text)


if __name__ == "__main__":
    main()
