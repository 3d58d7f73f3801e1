"""Metrics out of the tables that a metric keeps: a row an entry, a row a sample."""

from __future__ import annotations

import torch
from torch import Tensor

from sslosses.metrics.functional import (
    AUC_THRESHOLDS,
    area_under_success,
    detection_average_precision,
    detection_f1,
)
from sslosses.metrics.protocols import parse_metric

#: Columns of the entries' table; the source is -1 for a map beyond the number of sources, the class -1 if unknown.
SOURCE, CIOU, PRECISION, IOU, CONFIDENCE, AREA, CLASS = range(7)
#: Columns of the samples' table; bit j of EMPTY is set where truth j has no pixel.
ENTRIES, FOUND, SOURCES, SUMMED, EMPTY = range(5)
#: AVGN's bounds of the objects' area, 32², 96² and 144² pixels of a frame of 224², as shares of any frame.
SIZES = {"small": 32**2 / 224**2, "medium": 96**2 / 224**2, "large": 144**2 / 224**2, "huge": float("inf")}


def metrics_of(names: tuple[str, ...], entries: Tensor, samples: Tensor, average_positions: bool) -> dict[str, Tensor]:
    """The named metrics as 0-d float64 tensors, NaN where there is nothing to average."""
    if average_positions:
        positions = sorted({p for p in entries[:, SOURCE].tolist() if p >= 0})
        parts = [entries[entries[:, SOURCE] == p] for p in positions] or [entries]
    else:
        parts = [entries]
    return {name: torch.stack([_metric(name, part, samples) for part in parts]).mean() for name in names}


def _metric(name: str, entries: Tensor, samples: Tensor) -> Tensor:
    kind, threshold = parse_metric(name)
    ciou = entries[:, CIOU]
    if kind in ("AP", "CIoU", "IoU"):
        return entries[:, {"AP": PRECISION, "CIoU": CIOU, "IoU": IOU}[kind]].mean()
    if kind == "AUC":
        thresholds = ciou.new_tensor(AUC_THRESHOLDS)
        return area_under_success((ciou[:, None] >= thresholds).double().mean(0))
    if kind == "PIAP":
        return samples[samples[:, FOUND] > 0, SUMMED].mean()
    if kind == "CountAcc":
        return (samples[:, FOUND] == samples[:, SOURCES]).double().mean()
    assert threshold is not None
    if kind == "success":
        return (ciou >= threshold).double().mean()
    if kind == "precision":
        return (ciou > threshold).double().mean()
    detection = detection_average_precision if kind == "DetAP" else detection_f1
    return detection(ciou, entries[:, CONFIDENCE], threshold)


def counts_of(entries: Tensor, samples: Tensor) -> dict[str, Tensor]:
    """What the metrics are over, as 0-d int64 tensors."""
    empty = torch.zeros(len(samples), dtype=torch.int64, device=samples.device)
    for j in range(int(samples[:, SOURCES].max()) if len(samples) else 0):
        empty += (samples[:, EMPTY].long() >> j) & 1
    return {
        "entries": torch.tensor(len(entries), device=entries.device),
        "samples": torch.tensor(len(samples), device=entries.device),
        "samples_without_map": (samples[:, FOUND] == 0).sum(),
        "empty_truths": empty.sum(),
    }


def empty_truths_of(samples: Tensor) -> tuple[tuple[int, int], ...]:
    """Which truths have no pixel, as (sample, source)."""
    return tuple(
        (i, j)
        for i, (bits, sources) in enumerate(samples[:, [EMPTY, SOURCES]].long().tolist())
        for j in range(sources)
        if bits >> j & 1
    )


def by_size(entries: Tensor) -> dict[str, Tensor]:
    """Entries whose object has that size; without the maps that belong to no source."""
    own, low, groups = entries[entries[:, SOURCE] >= 0], -1.0, {}
    for name, high in SIZES.items():
        groups[name] = own[(own[:, AREA] >= low) & (own[:, AREA] < high)]
        low = high
    return groups
