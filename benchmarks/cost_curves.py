"""Time and memory of losses, metrics and commands as sizes grow, with the exponent of each curve.

A curve changes one size and keeps the others. The exponent is the slope of a least-squares line through the upper half
of the points, in logarithms: 1 is linear, 2 is quadratic. Time is processor time of one thread, which a busy machine
changes little, and the median of some rounds; memory is the peak above what was in use. Losses run forward and
backward, ORI with all of its 100 iterations.

Every answer is checked: the losses against plain code in float64, at a small size; the metrics of n frames, which
repeat the same 100 frames, against those of the 100; the joined captions against the captions.

    python benchmarks/cost_curves.py
    python benchmarks/cost_curves.py --curves "ORI, pixels" --fresh
    python benchmarks/cost_curves.py --table

Writes benchmarks/results/cost_curves.json, benchmarks/results/cost_curves.md and docs/figures/cost_curves.png.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from losses import both, differences, inputs, without_audio
from metrics import synthetic_boxes
from probe import Memory
from result_files import (
    FIGURES,
    ROOT,
    Results,
    Row,
    add_run_options,
    machine_and_command,
    markdown,
    open_results,
    seconds,
    spread,
    timed,
    write_figure,
    write_text,
)

from sslosses import ObjectAwareObjective, OCALoss
from sslosses.evaluate import command
from sslosses.losses import object_region_isolation_loss
from sslosses.metrics import SoundLocalization, protocols

sys.path.insert(0, str(ROOT / "examples"))
from avsl.captioning.frames import ClipToCaption
from avsl.captioning.parts import join, part_path
from avsl.captioning.records import provenance_path
from avsl.parts import Part

BASE_FRAMES, SIDE, PROTOCOL = 100, 14, "ez-vsl"
ROUNDS, BUDGET = 5, 3.0  # at most, and seconds after which no further round begins
PARTS = 8
#: A size, and what makes the work for it: called once, outside of the measurement. The work checks its own answer.
Work = Callable[[], object]


class Curve(NamedTuple):
    """What is measured, over which sizes.

    name: with the size that grows. sizes: ascending. work: makes the work of a size in a temporary folder.
    fixed: the sizes that stay, in words.
    """

    name: str
    sizes: tuple[int, ...]
    work: Callable[[int, Path], Work]
    fixed: str


class _Ori(torch.nn.Module):
    """ORI with a fixed number of iterations, so that all sizes do the same; a module would explain what is missing."""

    def forward(self, visual: torch.Tensor, *references: torch.Tensor) -> torch.Tensor:
        options = {"solver": "fused", "epsilon": 0.1, "max_iter": 100, "tol": 1e-30}
        return object_region_isolation_loss(visual, *references, **options).loss


def loss_of(name: str) -> Callable[..., torch.Tensor]:
    """The loss by its name in :data:`CURVES`."""
    ori = _Ori()
    losses = {"OCA": OCALoss(), "ORI": without_audio(ori), "objective": ObjectAwareObjective(ori=ori)}
    return losses[name]


def loss_work(name: str, *, batch: int, channels: int, pixels: int, sources: int) -> Work:
    """Forward and backward of a loss; the map of ``pixels`` is twice as high as wide, or square."""
    width = math.isqrt(pixels if math.isqrt(pixels) ** 2 == pixels else pixels // 2)
    tensors = inputs(batch, channels, pixels // width, width, sources, "cpu")
    return both(loss_of(name), tensors)


def loss_curve(name: str, size: str, sizes: tuple[int, ...], **fixed: int) -> Curve:
    """A curve of a loss over ``size``, which is ``batch``, ``channels``, ``pixels`` or ``sources``."""
    words = {"batch": "B", "channels": "C", "pixels": "N", "sources": "K"}
    kept = ", ".join(f"{words[key]} = {value}" for key, value in fixed.items())
    return Curve(f"{name}, {size}", sizes, lambda value, _: loss_work(name, **{size: value}, **fixed), kept)  # type: ignore[arg-type]


def frames_of(count: int) -> tuple[np.ndarray, list[list[list[list[float]]]]]:
    """Random maps and boxes; from 100 frames on, the same 100 again and again."""
    generator = np.random.default_rng(0)
    maps = generator.normal(size=(BASE_FRAMES, SIDE, SIDE)).astype(np.float32)
    boxes = synthetic_boxes(BASE_FRAMES, generator)
    times = count // BASE_FRAMES
    return np.tile(maps, (times, 1, 1)), boxes * times


def scores(count: int) -> dict[str, float]:
    """The metrics of ``count`` frames."""
    maps, boxes = frames_of(count)
    metric = SoundLocalization(PROTOCOL, task="single")
    for start in range(0, count, 128):
        metric.update(torch.from_numpy(maps[start : start + 128, None]), boxes[start : start + 128])
    values = metric.compute()
    return {name: float(values[name]) for name in protocols.get(PROTOCOL).single_metrics}


def check_same(name: str, found: dict[str, float], expected: dict[str, float]) -> None:
    """Checks metrics.

    Raises:
        SystemExit: if they differ.
    """
    wrong = {key for key, value in expected.items() if not abs(found[key] - value) <= 1e-5}
    if wrong or not expected:
        raise SystemExit(f"{name}: {sorted(wrong)} differ: {found} {expected}")


def metrics_work(count: int, _: Path) -> Work:
    """Scores frames and compares the metrics with those of 100 frames."""
    expected = scores(BASE_FRAMES)
    return lambda: check_same("metrics", scores(count), expected)


def evaluate_work(count: int, folder: Path) -> Work:
    """The command that scores saved maps, with chance levels and intervals, without pictures."""
    maps, boxes = frames_of(count)
    names = [f"{number:011d}_000030" for number in range(count)]
    np.savez(folder / "maps.npz", **dict(zip(names, maps, strict=True)))
    entries = [{"file": n, "class": "a", "bbox": frame[0]} for n, frame in zip(names, boxes, strict=True)]
    (folder / "vggss.json").write_text(json.dumps(entries))
    places = {"--maps": folder / "maps.npz", "--annotations": folder / "vggss.json", "--out": folder / "scores"}
    options = [str(part) for pair in places.items() for part in pair]
    expected = scores(BASE_FRAMES)

    def work() -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            status = command.main([*options, "--format", "vggss", "--protocol", PROTOCOL, "--no-sheet"])
        if status:
            raise SystemExit(f"evaluate ended with {status}")
        found = json.loads((folder / "scores" / "metrics.json").read_text())["protocols"][PROTOCOL]["metrics"]
        check_same("evaluate", found, {name: expected[name] for name in found})

    return work


def join_work(count: int, folder: Path) -> Work:
    """Joins the captions of all parts and compares them with the captions in one file."""
    clips = [ClipToCaption(f"{number:011d}_000030", ("flute",), folder / "x.jpg") for number in range(count)]
    entry = {"foreground": ["an image of a flute"], "background": "an image of a chair"}
    lines = {clip.name: json.dumps({"id": clip.name, **entry}) + "\n" for clip in clips}
    provenance = {"model": "m", "prompt_sha256": "p", "generation": {}}
    out = folder / "captions.jsonl"
    for part in (Part(n + 1, PARTS) for n in range(PARTS)):
        path = part_path(out, part)
        path.write_text("".join(line for name, line in lines.items() if part.holds(name)))
        provenance_path(path).write_text(json.dumps({"origins": [provenance]}))
    expected = "".join(lines.values())

    def work() -> None:
        out.unlink(missing_ok=True)
        join(out, clips, provenance)
        if out.read_text() != expected:
            raise SystemExit("The joined captions differ from the captions")

    return work


def doubled(first: int, count: int) -> tuple[int, ...]:
    """``count`` sizes from ``first`` on, each twice the one before."""
    return tuple(first * 2**i for i in range(count))


CURVES = (
    loss_curve("OCA", "batch", doubled(32, 6), channels=512, pixels=98, sources=2),
    loss_curve("OCA", "channels", doubled(64, 6), batch=32, pixels=98, sources=2),
    loss_curve("OCA", "pixels", doubled(98, 6), batch=32, channels=512, sources=2),
    loss_curve("OCA", "sources", doubled(2, 6), batch=32, channels=512, pixels=98),
    loss_curve("ORI", "batch", doubled(16, 6), channels=512, pixels=98, sources=2),
    loss_curve("ORI", "channels", doubled(64, 6), batch=8, pixels=98, sources=2),
    loss_curve("ORI", "pixels", doubled(49, 6), batch=4, channels=512, sources=2),
    loss_curve("ORI", "sources", doubled(1, 6), batch=4, channels=512, pixels=98),
    loss_curve("objective", "batch", doubled(16, 6), channels=512, pixels=98, sources=2),
    loss_curve("objective", "pixels", doubled(49, 6), batch=4, channels=512, sources=2),
    Curve("metrics, frames", tuple(BASE_FRAMES * 2**i for i in range(6)), metrics_work, f"`{PROTOCOL}`, 14 × 14 maps"),
    Curve(
        "evaluate, clips",
        tuple(BASE_FRAMES * 2**i for i in range(5)),
        evaluate_work,
        f"`{PROTOCOL}`, with chance levels and intervals",
    ),
    Curve("joining captions, clips", doubled(6_250, 6), join_work, f"{PARTS} parts"),
)


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The slope of the least-squares line through the upper half of the points, in logarithms; at least three points.

    Raises:
        ValueError: if there are fewer than three points, or if a number is not above 0.
    """
    if len(sizes) < 3 or min(*sizes, *values) <= 0:
        raise ValueError(f"Expected at least three points above 0, but got {list(zip(sizes, values, strict=True))}")
    first = len(sizes) - max(3, (len(sizes) + 1) // 2)
    x, y = ([math.log(value) for value in series[first:]] for series in (sizes, values))
    mean = statistics.fmean(x)
    return sum((a - mean) * b for a, b in zip(x, y, strict=True)) / sum((a - mean) ** 2 for a in x)


def measure(work: Work, device: str) -> Row:
    """Peak memory of the second call, and the spread of both clocks over the rounds."""
    work()  # compiles kernels and fills caches
    memory = Memory(device)
    times = [timed(work, device)]
    peak = memory.peak()
    while len(times) < ROUNDS and sum(elapsed for elapsed, _ in times) < BUDGET:
        times.append(timed(work, device))
    clocks = zip(("elapsed", "processor"), zip(*times, strict=True), strict=True)
    return {"peak_mib": round(peak, 1), **{name: spread(values) for name, values in clocks}}


def points(results: Results, curve: Curve) -> list[Row]:
    """The measured points of a curve, in the order of their sizes."""
    rows = (results.rows.get(f"{curve.name} {size}") for size in curve.sizes)
    return [row for row in rows if row]


def table(results: Results) -> str:
    """The table of all measured curves."""
    cells = []
    for curve in CURVES:
        rows = points(results, curve)
        if len(rows) < 3:
            continue
        sizes = [row["size"] for row in rows]
        times, peaks = ([value(row) for row in rows] for value in (_time, _peak))
        memory = f"{exponent(sizes, peaks):.2f}" if min(peaks[-3:]) >= 8 else "–"
        cells.append(
            [
                curve.name,
                f"{sizes[0]:,} to {sizes[-1]:,}",
                curve.fixed,
                f"{seconds(times[0])} to {seconds(times[-1])}",
                f"{round(exponent(sizes, times), 2) + 0:.2f}",
                f"{peaks[-1]:,.0f}",
                memory,
            ]
        )
    columns = ("curve", "sizes", "fixed", "time", "exponent of time", "peak MiB at the largest", "exponent of memory")
    checked = ", ".join(f"{name} {value:.0e}" for name, value in results.runs[-1].get("differences", {}).items())
    note = f"Differences between the losses and plain code in float64: {checked}.\n" if checked else ""
    return f"{machine_and_command(results.runs)}{note}\n{markdown(columns, cells)}"


def _time(row: Row) -> float:
    return float(row["processor"]["median"])


def _peak(row: Row) -> float:
    return max(float(row["peak_mib"]), 0.1)


def plot(results: Results, path: Path) -> None:
    """Draws time over size, relative to the smallest size, one panel per loss and one for the others."""
    import matplotlib.pyplot as plt

    groups = ("OCA", "ORI", "objective", "frames and clips")
    figure, axes = plt.subplots(2, 2, figsize=(5.2, 5.6), layout="constrained", sharex=True, sharey=True)
    for axis, group in zip(axes.flat, groups, strict=True):
        for curve in CURVES:
            name, size = curve.name.split(", ")
            rows = points(results, curve)
            if len(rows) < 3 or (name if name in groups else groups[-1]) != group:
                continue
            ratios = [[row["size"] / rows[0]["size"], _time(row) / _time(rows[0])] for row in rows]
            slope = exponent([row["size"] for row in rows], [_time(row) for row in rows])
            label = size if name in groups else name.removesuffix(" captions")
            axis.plot(*zip(*ratios, strict=True), marker="o", markersize=4, label=f"{label}: {round(slope, 1) + 0:.1f}")
        for power in (1, 2):
            axis.plot([1, 32], [1, 32**power], color="0.6", linewidth=1, linestyle=(":", "--")[power - 1], zorder=0)
        axis.set(xscale="log", yscale="log", title=group)
        axis.set_xticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
        axis.set_xticks([], minor=True)
        axis.set_ylim(0.5, 20_000)  # space for the legend
        axis.legend(fontsize=10, frameon=False, loc="upper left", title="exponent", alignment="left")
    figure.supxlabel("size, relative to the smallest")
    figure.supylabel("time, relative to the smallest")
    write_figure(figure, path, dpi=120)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> None:
    """Measures the curves that the file lacks, and writes table and picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    names = [curve.name for curve in CURVES]
    parser.add_argument("--curves", nargs="+", choices=names, default=names, help="default: all")
    parser.add_argument("--figure", type=Path, default=FIGURES / "cost_curves.png", help="the picture to write")
    add_run_options(parser)
    parser.set_defaults(threads=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    results = open_results(options, "cost_curves")
    if not options.table:
        results.runs[-1]["differences"] = differences("fused", 14, 7, 2)
        for curve in CURVES:
            for size in curve.sizes if curve.name in options.curves else ():
                if (key := f"{curve.name} {size}") not in results.rows:
                    with tempfile.TemporaryDirectory() as folder:
                        row = measure(curve.work(size, Path(folder)), options.device)
                    results.put(key, {"curve": curve.name, "size": size, **row})
                    print(key, seconds(_time(results.rows[key])), flush=True)
    text = table(results)
    print(text)
    write_text(results.path.with_suffix(".md"), text)
    plot(results, options.figure)


if __name__ == "__main__":
    main()
