"""Rasterizes many boxes at once."""

from __future__ import annotations

import torch
from torch import Tensor

from sslosses._checks import FARTHEST_CORNER, IN_PIXELS, check_floating
from sslosses.metrics.functional._inputs import check_side, check_values


def boxes_to_truths(boxes: Tensor, size: int = 224, *, add: bool = False) -> Tensor:
    """Computes the masks of the boxes of many sources, with truncated corners as in all published code of this field.

    Each corner v becomes ``int(size * v)``, clipped to the frame, and the pixels ``[ymin:ymax, xmin:xmax]`` are set. A
    box that is then empty or inverted sets no pixel, nor does a row of NaN, which is padding.

    Args:
        boxes: corners (xmin, ymin, xmax, ymax) as fractions of the frame, n boxes per source, (..., n, 4), floating.
        size: side T of the frame in pixels.
        add: whether overlapping boxes of a source add up to 2, 3, …, as in AVGN's mixtures, instead of counting once.

    Returns:
        (..., T, T), bool, or with ``add`` counts as float32.

    Raises:
        TypeError: if ``boxes`` is not floating or ``size`` is not an integer.
        ValueError: if the last dimension is not 4, boxes are in pixels, or ``size`` is outside [1, 16384].

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import boxes_to_truths
        >>> boxes_to_truths(torch.tensor([[0.0, 0.3, 0.74, 0.5]]), size=4).int()
        tensor([[0, 0, 0, 0],
                [1, 1, 0, 0],
                [0, 0, 0, 0],
                [0, 0, 0, 0]], dtype=torch.int32)
    """
    check_floating("boxes", boxes)
    check_values("boxes", boxes)
    size = check_side("size", size)
    if boxes.ndim < 2 or boxes.shape[-1] != 4:
        raise ValueError(f"Expected `boxes` to have shape (..., n, 4), but got {tuple(boxes.shape)}")
    if bool((boxes > FARTHEST_CORNER).any()):
        raise ValueError(
            f"Expected `boxes` as fractions of the frame, but got {float(boxes.nan_to_num().max()):g}, {IN_PIXELS}"
        )
    covered = rasterize_corners(pixel_corners(boxes, size), (size, size))
    return covered if add else covered > 0


def pixel_corners(boxes: Tensor, size: int) -> Tensor:
    """Computes the corners in pixels, int64; a row of NaN becomes 0."""
    return (boxes.to(torch.float64) * size).clamp(0, size).nan_to_num(0).long()


def rasterize_corners(corners: Tensor, frame: tuple[int, int]) -> Tensor:
    """Counts the boxes (..., n, 4) that cover each pixel, (..., H, W), float32."""
    down, across = (torch.arange(length, device=corners.device) for length in frame)
    xmin, ymin, xmax, ymax = (corner[..., None] for corner in corners.unbind(-1))
    columns = ((across >= xmin) & (across < xmax)).float()
    rows = ((down >= ymin) & (down < ymax)).float()
    with torch.autocast(corners.device.type, enabled=False):
        return rows.transpose(-2, -1) @ columns
