"""Time and memory of a training step with AudioCLIP's frozen towers, with features from the disk and without.

A step is forward, OCA and ORI, backward and AdamW of both heads, on random frames and sounds of 3 s. The weights are
random and have the published sizes, so they cost the same as trained ones. In scenes of several clips, only the
features of frames are kept, since the features of mixed sounds are not those of the sounds. Reading the features is not
part of the time. Processor time adds up all threads, and other programs hardly change it. Elapsed time depends on what
else ran on the machine. Each case has its own process, whose peak memory includes the networks (0.26 GB).

    python benchmarks/towers.py --batch 8
    python benchmarks/towers.py --table
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import warnings
from typing import Any

from result_files import (
    ROOT,
    Results,
    add_run_options,
    machine_and_command,
    markdown,
    open_results,
    seconds,
    spread,
    timed,
    write_text,
)

sys.path.insert(0, str(ROOT / "examples"))

import torch
from avsl.config import Config
from avsl.data.loading import SceneBatch
from avsl.evaluation.timing import resident_peak
from avsl.model.encoders import Features
from avsl.model.encoders.audioclip.sizes import FULL, SMALL, Sizes
from avsl.model.localizer import Localizer
from torch import Tensor

#: Clips per scene, and what is read from the disk.
CASES: dict[str, tuple[int, tuple[str, ...]]] = {
    "one clip per scene, nothing kept": (1, ()),
    "one clip per scene, features of frames and sounds kept": (1, ("frames", "sounds")),
    "two clips per scene, nothing kept": (2, ()),
    "two clips per scene, features of frames kept": (2, ("frames",)),
}


def _model(sizes: Sizes) -> Localizer:
    torch.manual_seed(0)
    config = Config(backbone="audioclip", embedding_dim=sizes.embedding)
    architecture = {"sizes": sizes._asdict()}
    return Localizer(config.as_dict(), sizes.embedding, {"visual": architecture, "audio": architecture}).train()


def _batch(model: Localizer, scenes: int, clips: int, kept: tuple[str, ...]) -> SceneBatch:
    """Random scenes with as many sources as clips."""
    width = model.visual.trunk_channels
    frames: Tensor | Features = torch.randint(256, (scenes, 3, 224, 224 * clips), dtype=torch.uint8)
    waveforms: Tensor | Features = 0.1 * torch.randn(scenes, 48_000)
    if "frames" in kept:
        frames = Features(torch.randn(scenes, width, 7, 7 * clips).half())
    if "sounds" in kept:
        waveforms = Features(torch.rand(scenes, model.audio.trunk_channels, 11, 8).half())
    present = torch.ones(scenes, clips, dtype=torch.bool)
    captions = torch.randn(scenes, clips, width), torch.randn(scenes, width)
    numbers = torch.zeros(scenes, clips, dtype=torch.long)
    return SceneBatch(frames, waveforms, *captions, present, present[:, 0], numbers, numbers)


def measure(name: str, scenes: int, rounds: int, device: str, sizes: Sizes = FULL) -> dict[str, Any]:
    """Elapsed and processor seconds of each round after the first, and the peak memory of the process in MB."""
    clips, kept = CASES[name]
    model = _model(sizes).to(device)
    batch = SceneBatch(*(value.to(device) for value in _batch(model, scenes, clips, kept)))
    optimizer = model.configure_optimizers()

    def step() -> None:
        optimizer.zero_grad()
        model.method.loss(batch, model.encoders)["total"].backward()
        optimizer.step()

    step()
    times = [timed(step, device) for _ in range(rounds)]
    memory = torch.cuda.max_memory_allocated() if device.startswith("cuda") else resident_peak() or 0
    return {"elapsed": [t for t, _ in times], "processor": [t for _, t in times], "memory": memory / 1e6}


def table(results: Results) -> str:
    """One row per case."""
    lines = [
        (
            row["case"],
            seconds(row["processor"]["median"]),
            f"{seconds(row['elapsed']['median'])} ({seconds(row['elapsed']['range'][0])})",
            f"{row['memory'] / 1000:.2f} GB",
        )
        for row in results.rows.values()
    ]
    scenes = next(iter(results.rows.values()))["scenes"]
    columns = (f"step of {scenes} scenes", "processor time", "elapsed (fastest)", "peak memory")
    return f"{machine_and_command(results.runs)}\n{markdown(columns, lines)}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--batch", type=int, default=8, help="scenes per step; default: 8")
    parser.add_argument("--rounds", type=int, default=5, help="steps per case after the first; default: 5")
    parser.add_argument("--small", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    add_run_options(parser)
    options = parser.parse_args(arguments)
    if options.case:
        torch.set_num_threads(options.threads)
        warnings.simplefilter("ignore")  # of transport, which need not converge on random maps
        sizes = SMALL if options.small else FULL
        print(json.dumps(measure(options.case, options.batch, options.rounds, options.device, sizes)))
        return
    results = open_results(options, "towers")
    for name in CASES if not options.table else ():
        if name in results.rows:
            continue
        command = [sys.executable, __file__, "--case", name, "--batch", str(options.batch)]
        command += ["--rounds", str(options.rounds), "--device", options.device, "--threads", str(options.threads)]
        command += ["--small"] if options.small else []
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        times = {kind: spread(found[kind]) for kind in ("elapsed", "processor")}
        results.put(name, {"case": name, "scenes": options.batch, **times, "memory": found["memory"]})
    text = table(results)
    print(text)
    write_text(results.path.with_suffix(".md"), text)


if __name__ == "__main__":
    main()
