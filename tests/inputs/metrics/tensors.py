"""Tensors that the input classes of the metrics start from, and checks of their results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from inputs.cases import Check
from sslosses.metrics import SoundLocalization, protocols

NAN, INF = float("nan"), float("inf")
GENERATOR = torch.Generator().manual_seed(0)
MAPS = torch.rand(5, 2, 7, 7, generator=GENERATOR)
TRUTHS = torch.rand(5, 2, 16, 16, generator=GENERATOR) > 0.6
BOXES = [[[(0.0, 0.0, 0.5, 0.5)], [(0.5, 0.5, 1.0, 1.0)]]] * 5
BINARY = torch.rand(3, 6, 5, generator=GENERATOR) > 0.5
HEAT = torch.randn(3, 6, 5, generator=GENERATOR)
NO_TENSORS = (None, 3.0, "maps", [[1.0]], HEAT.numpy())
PAPER = protocols.paper.replace(size=16)


def localization(protocol: str = "paper", **options: Any) -> SoundLocalization:
    return SoundLocalization(protocols.get(protocol).replace(size=16), **options)


def scores(
    maps: Any = MAPS, truths: Any = TRUTHS, make: Callable[[], Metric] = localization, **more: Any
) -> dict[str, float]:
    """All metrics of a new object after one update."""
    metric = make()
    metric.update(maps, truths, **more)
    return computed(metric)


def computed(metric: Metric) -> dict[str, float]:
    result = metric.compute()
    named = result if isinstance(result, dict) else {"value": result}
    return {name: float(value) for name, value in named.items()}


def equal_scores(expected: dict[str, float]) -> Check:
    """Checks for the same metrics with the same values, NaN included."""

    def check(result: dict[str, float]) -> bool:
        return result.keys() == expected.keys() and all(
            abs(result[name] - value) < 1e-9 or (result[name] != result[name] and value != value)
            for name, value in expected.items()
        )

    return check


def close_to(expected: Any, tolerance: float = 1e-6) -> Check:
    """Checks for the same tensor up to an absolute tolerance; of a tuple the first one."""

    def first(result: Any) -> Tensor:
        return (result if isinstance(result, Tensor) else result[0]).double()

    return lambda result: torch.allclose(first(result), first(expected), atol=tolerance, rtol=0)


def no_nan(result: Tensor) -> bool:
    return not result.isnan().any()
