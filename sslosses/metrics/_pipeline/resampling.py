"""Refuses resampled maps beside ground truth that was not resampled."""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor
from torchmetrics.wrappers import BootStrapper

_DEEPEST = 5  # calls between a wrapper's update and a metric's, also in a collection


def check_not_resampled(arguments: dict[str, Any]) -> None:
    """Raises if ``BootStrapper`` calls ``update`` with an argument that it does not resample.

    It draws samples from tensors and passes everything else on as it is. Maps would then be scored against the ground
    truth of other samples, and nothing in the arguments shows it. Therefore this looks at the calling functions.
    """
    fixed = [name for name, value in arguments.items() if value is not None and not isinstance(value, Tensor)]
    frame = sys._getframe(1) if fixed else None
    for _ in range(_DEEPEST):
        if frame is None:
            return
        if frame.f_globals.get("__name__") == BootStrapper.__module__:
            raise ValueError(
                f"Expected {', '.join(f'`{name}`' for name in fixed)} to be a tensor (B, ...), as BootStrapper "
                "resamples tensors only, but got a sequence"
            )
        frame = frame.f_back
