"""Table 9: time and memory of training and inference."""

from __future__ import annotations

import itertools
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from ..config import Config
from ..data.loading import SceneBatch, TrainingScenes
from ..evaluation.held_out import HeldOutScenes
from ..evaluation.report import pipe_table
from ..evaluation.timing import measure, resident_peak
from ..files import write_json, write_text
from ..model.localizer import Localizer

STEPS, WARM_UP = 12, 2
GIB = 2**30
#: The paper's values, on its GPUs: seconds and GB per training iteration, seconds per image and GB at inference.
PAPER = {"T-VSL": (1.53, 22.0, 0.051, 0.81), "the paper's": (1.13, 16.63, 0.044, 0.35)}


def measure_cost(model: Localizer, training: TrainingScenes, held_out: HeldOutScenes, config: Config) -> dict[str, Any]:
    """Measures inference with one image at a time, then training steps on batches that are already decoded."""
    inference = measure(model.eval(), held_out, (1,), known=True)
    cuda = model.device.type == "cuda"
    batches = [
        SceneBatch(*(value.to(model.device) for value in batch))
        for batch in itertools.islice(training.train_dataloader(), 4)
    ]
    model.train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], config.rate)
    if cuda:
        torch.cuda.reset_peak_memory_stats(model.device)
    seconds = []
    for step in range(WARM_UP + STEPS):
        start = time.perf_counter()
        optimizer.zero_grad()
        model.method.loss(batches[step % len(batches)], model.encoders)["total"].backward()
        optimizer.step()
        if cuda:
            torch.cuda.synchronize(model.device)
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated(model.device) if cuda else resident_peak()
    return {
        "inference": inference,
        "training": {
            "batch_size": len(batches[0].source_mask),
            "seconds_per_iteration": statistics.median(seconds[WARM_UP:]),
            "peak_bytes": peak,
        },
    }


def write_cost(cost: dict[str, Any], folder: Path, note: str) -> list[Path]:
    """Writes ``table9.json``, ``.md`` and ``.tex`` to ``folder``; returns their paths."""
    training, inference = cost["training"], cost["inference"]
    image = inference["batches"][0]
    ours = (
        training["seconds_per_iteration"],
        (training["peak_bytes"] or 0) / GIB,
        image["seconds_per_image"],
        (image["peak_bytes"] or 0) / GIB,
    )
    header = ["", "training, s per iteration", "training, GB", "inference, s per image", "inference, GB"]
    rows = [[name, *(f"{v:g}" for v in values)] for name, values in PAPER.items()]
    rows.append(["ours", *(f"{v:.3g}" for v in ours)])
    height, width = inference["frame"]
    machine, millions = f"{inference['device']}, {inference['threads']} threads", inference["parameters"] / 1e6
    facts = (
        f"Ours: {machine}, batch {training['batch_size']}, {millions:.2f} million parameters, {height} × {width} "
        "pixels. Memory is the peak of all tensors on a GPU, and the peak of the whole process on a CPU. The paper's "
        "values are for its own GPUs, batch size and networks, so they do not tell which code is faster. Its "
        "multimodal model took 0.92 s per image, once."
    )
    text = f"# Table 9: Cost\n\n{note}\n\n{facts}\n\n" + pipe_table([header, ["---", *["---:"] * 4], *rows])
    body = "\n".join(" & ".join(row) + r" \\" for row in (header, *rows))
    latex = f"% Table 9: Cost. {note} {facts}\n\\begin{{tabular}}{{lrrrr}}\n{body}\n\\end{{tabular}}\n".replace(
        "×", r"$\times$"
    )
    paths = [folder / f"table9{suffix}" for suffix in (".json", ".md", ".tex")]
    write_json(paths[0], cost)
    write_text(paths[1], text)
    write_text(paths[2], latex)
    return paths
