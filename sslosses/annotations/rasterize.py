"""Boxes to masks, as the published evaluation codes do it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sslosses._checks import check_count


def rasterize(boxes: Sequence[Sequence[float]] | Tensor, size: int = 224) -> Tensor:
    """Mask of the union of the boxes of one source.

    Each corner v becomes ``int(size * v)``, truncated and clipped below at 0; the pixels ``[ymin:ymax, xmin:xmax]`` are
    set. A box that is empty or inverted after that sets none.

    Args:
        boxes: corners (xmin, ymin, xmax, ymax) as fractions of the frame, one row a box; a sequence of fours or (n, 4).
        size: side of the frame in pixels.

    Returns:
        (size, size), bool.

    Raises:
        TypeError: if ``size`` is no integer.
        ValueError: if a box does not hold 4 finite numbers, or ``size`` is below 1.

    Reference:
        Chen et al., Localizing Visual Sounds the Hard Way, CVPR 2021, evaluation code.

    Example:
        >>> from sslosses.annotations import rasterize
        >>> rasterize([(0.0, 0.3, 0.74, 0.5)], size=4).int()
        tensor([[0, 0, 0, 0],
                [1, 1, 0, 0],
                [0, 0, 0, 0],
                [0, 0, 0, 0]], dtype=torch.int32)
    """
    check_count("size", size)
    mask = torch.zeros(size, size, dtype=torch.bool)
    rows = boxes.tolist() if isinstance(boxes, Tensor) else boxes
    for row in rows:
        if not isinstance(row, Sequence) or len(row) != 4 or not all(math.isfinite(v) for v in row):
            raise ValueError(f"Expected a box to hold 4 finite numbers (xmin, ymin, xmax, ymax), but got {row!r}")
        xmin, ymin, xmax, ymax = (max(int(size * v), 0) for v in row)
        mask[ymin:ymax, xmin:xmax] = True
    return mask
