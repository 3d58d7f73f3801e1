"""Time and memory of inference, from decoded frames and sounds to maps."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..model.localizer import Localizer
from .held_out import HeldOutScenes

WARM_UP, REPEATS = 3, 10


def measure(model: Localizer, held_out: HeldOutScenes, batch_sizes: tuple[int, ...], *, known: bool) -> dict[str, Any]:
    """Measures seconds per image and peak memory for each batch size, and counts the parameters.

    Frames and sounds are decoded and on the device before the clock starts. For a single source and iterative
    identification, only the map of the sound is computed; otherwise there is also one map per source.
    """
    scenes = held_out.test.scenes
    examples = [held_out.scenes[scenes[i % len(scenes)]] for i in range(max(batch_sizes))]
    frames = torch.stack([e.frame for e in examples]).to(model.device)
    waveforms = torch.stack([e.waveform for e in examples]).to(model.device)
    single = held_out.task == "single"
    one_source = single and model.config.identification == "iterative"
    num_sources = held_out.num_sources if known or single else None
    return {
        "device": _device_name(model.device),
        "threads": torch.get_num_threads(),
        "frame": list(frames.shape[2:]),
        "parameters": sum(p.numel() for part in (model.visual, model.audio) for p in part.parameters()),
        "batches": [
            _time(model, frames[:size], waveforms[:size], one_source, num_sources) for size in sorted(batch_sizes)
        ],
    }


@torch.no_grad()
def _time(
    model: Localizer, frames: Tensor, waveforms: Tensor, one_source: bool, num_sources: int | None
) -> dict[str, Any]:
    cuda = model.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(model.device)
    seconds = []
    for _ in range(WARM_UP + REPEATS):
        start = time.perf_counter()
        encoded = model.encode(frames, waveforms)
        model.sound_map(encoded)
        if not one_source:
            model.source_maps(encoded, num_sources)
        if cuda:
            torch.cuda.synchronize(model.device)
        seconds.append(time.perf_counter() - start)
    return {
        "batch_size": len(frames),
        "seconds_per_image": statistics.median(seconds[WARM_UP:]) / len(frames),
        "peak_bytes": torch.cuda.max_memory_allocated(model.device) if cuda else resident_peak(),
    }


def resident_peak() -> int | None:
    """Returns the peak resident memory of this process in bytes; None if the system does not report it."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
    return 1024 * int(lines["VmHWM"].split()[0]) if "VmHWM" in lines else None


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
