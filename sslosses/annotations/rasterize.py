"""Rasterizes boxes as the published evaluation code does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sslosses._checks import FARTHEST_CORNER, IN_PIXELS, check_count, check_number
from sslosses.annotations._text import shown

_MOST_SIDE = 16_384  # a mask of this side takes a gigabyte in float32
#: The boxes of one source: rows (xmin, ymin, xmax, ymax) as fractions of the frame.
Boxes = Sequence[Sequence[float]] | Tensor


def rasterize(boxes: Boxes, size: int = 224) -> Tensor:
    """Computes the mask of the union of the boxes of one source.

    Each corner v becomes ``int(size * v)``, and the pixels ``[ymin:ymax, xmin:xmax]`` are set. A box that is then empty
    or inverted sets no pixel. LVS and NoPrior clip the truncated corners below at 0, AVGN and T-VSL clip the fractions
    to [0, 1]. The mask is the same, as both cut off everything outside the frame.

    Args:
        boxes: corners (xmin, ymin, xmax, ymax) as fractions of the frame, one row per box; a sequence of rows, or a
            tensor (n, 4).
        size: side of the frame in pixels.

    Returns:
        (size, size), bool.

    Raises:
        TypeError: if ``boxes`` is not a sequence of boxes or ``size`` is not an integer.
        ValueError: if a box does not hold 4 finite numbers or is in pixels, or ``size`` is outside [1, 16384].

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
    corners = _pixels(boxes, size)
    mask = torch.zeros(size, size, dtype=torch.bool)
    for xmin, ymin, xmax, ymax in corners:
        mask[ymin:ymax, xmin:xmax] = True
    return mask


def rasterize_sum(boxes: Boxes, size: int = 224) -> Tensor:
    """Computes the number of boxes of one source that cover each pixel, AVGN's ground truth of mixtures.

    Args:
        boxes: as for :func:`rasterize`.
        size: as for :func:`rasterize`.

    Returns:
        (size, size), float32, whole numbers.

    Raises:
        TypeError: as for :func:`rasterize`.
        ValueError: as for :func:`rasterize`.

    Example:
        >>> from sslosses.annotations import rasterize_sum
        >>> rasterize_sum([(0, 0, 0.7, 1), (0.4, 0, 1, 1)], size=3)
        tensor([[1., 2., 1.],
                [1., 2., 1.],
                [1., 2., 1.]])
    """
    corners = _pixels(boxes, size)
    count = torch.zeros(size, size)
    for xmin, ymin, xmax, ymax in corners:
        count[ymin:ymax, xmin:xmax] += 1
    return count


def rasterize_annotators(boxes: Boxes, size: int = 224) -> Tensor:
    """Computes the fractional ground truth of several annotators: half the number of boxes per pixel, at most 1.

    A pixel counts in full if two annotators marked it, and half if one did.

    Args:
        boxes: one row per annotator, as for :func:`rasterize`.
        size: as for :func:`rasterize`.

    Returns:
        (size, size), float32, with values 0, 0.5 and 1.

    Raises:
        TypeError: as for :func:`rasterize`.
        ValueError: as for :func:`rasterize`.

    Reference:
        Senocak et al., Learning to Localize Sound Source in Visual Scenes, CVPR 2018.

    Example:
        >>> from sslosses.annotations import rasterize_annotators
        >>> rasterize_annotators([(0, 0, 0.7, 1), (0.4, 0, 1, 1)], size=3)[0]
        tensor([0.5000, 1.0000, 0.5000])
    """
    return rasterize_sum(boxes, size).div(2).clamp(max=1)


def _pixels(boxes: Boxes, size: int) -> list[tuple[int, ...]]:
    """Computes corners in pixels within [0, size]."""
    size = check_count("size", size)
    check_number("size", size, most=_MOST_SIDE)
    rows: Any = boxes.tolist() if isinstance(boxes, Tensor) and not boxes.is_meta else boxes
    if not isinstance(rows, Sequence):
        got = "a tensor on the device meta" if isinstance(boxes, Tensor) else shown(boxes)
        raise TypeError(f"Expected `boxes` to be a sequence of boxes or a tensor (n, 4), but got {got}")
    corners = []
    for row in rows:
        if not isinstance(row, Sequence) or len(row) != 4 or not all(map(_is_finite, row)):
            raise ValueError(f"Expected a box to hold 4 finite numbers (xmin, ymin, xmax, ymax), but got {shown(row)}")
        if max(row) > FARTHEST_CORNER:
            raise ValueError(f"Expected a box as fractions of the frame, but got {shown(row)}, {IN_PIXELS}")
        corners.append(tuple(int(size * min(max(v, 0.0), 1.0)) for v in row))
    return corners


def _is_finite(value: object) -> bool:
    try:
        return math.isfinite(value)  # type: ignore[arg-type]
    except (TypeError, OverflowError):  # not a number, or an integer beyond float
        return False
