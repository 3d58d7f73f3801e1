"""The self-test: scores shipped maps by every protocol and compares with stored metrics of independent slow loops."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

import torch

from sslosses.metrics import Protocol, protocols
from sslosses.metrics.localization import QuietLocalization

TOLERANCE = 1e-6


def self_test() -> tuple[str, bool]:
    """Scores the shipped maps by every protocol.

    Returns:
        One line per protocol, and whether all metrics are the stored ones.
    """
    lines, passed = [], True
    for name in protocols.available():
        protocol = protocols.get(name)
        differences = list(_differences(protocol))
        count = sum(len(protocol.metrics(task)) for task in protocols.TASKS)
        state = f"differs: {'; '.join(differences)}" if differences else f"{count} metrics as stored"
        lines.append(f"{protocol.label}: {state}\n")
        passed = passed and not differences
    return "".join(lines), passed


def _differences(protocol: Protocol) -> Iterator[str]:
    """What is not as stored, in words."""
    for task in protocols.TASKS:
        stored = _stored()["expected"].get(protocol.name, {}).get(task)
        if stored is None:
            yield f"{task}: no stored metrics"
            continue
        samples = _stored()["samples"][task]
        if protocol.name not in _stored()["with_negatives"]:
            samples = [sample for sample in samples if sample["boxes"]]
        metric = QuietLocalization(protocol, task=task)
        scale = _stored()["scales"].get(protocol.name, 1)
        maps = [torch.tensor(sample["maps"], dtype=torch.float64).view(-1, 7, 7) for sample in samples]
        metric.update([scale * m for m in maps], [sample["boxes"] for sample in samples])
        values = metric.compute()
        for name, wanted in stored.items():
            value = float(values[name])
            if not abs(value - wanted) <= TOLERANCE:  # NaN differs as well
                yield f"{task}: {name} is {value:.6f} instead of {wanted:.6f}"


@cache
def _stored() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(gzip.decompress(files(__package__).joinpath("self_test.json.gz").read_bytes()))
    return content
