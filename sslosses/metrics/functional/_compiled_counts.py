"""Counts of the pixels that maps mark at their upper median, as a compiled kernel in buffers within the cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslosses._numba import cached_njit
from sslosses._threads import parallel_for

_MAPS = 8  # in a call of the kernel: they share its buffers
_STEPS = 100  # a quarter of them halve: enough for float32, except beside 0


@cached_njit(nogil=True, error_model="numpy")
def _below(values: Any, level: Any) -> Any:
    count = np.int32(0)
    for i in range(len(values)):
        count = np.int32(count + np.int32(values[i] < level))  # int32 throughout, else it is not vectorized
    return count


@cached_njit(nogil=True, error_model="numpy")
def _level(values: Any, strict: bool, low: Any, high: Any) -> Any:
    """Value at or above which the pixels from the upper median are, or with ``strict`` those above it.

    Narrows the range from ``low`` to ``high`` until a value in it has the right number of pixels below, by linear
    interpolation and every fourth time by halves. With ties at the median there is no such value: two neighbors remain,
    the first of which is the median. A range that is guessed wrong may lack both.
    """
    k = len(values) // 2
    rank = k + 1 if strict else k
    under, upto = 0, len(values)
    for step in range(_STEPS):
        if np.nextafter(low, np.float32(np.inf)) >= high:
            if _below(values, low) < rank < _below(values, high):
                return high if strict else low
            break
        share = np.float32(0.5) if step % 4 == 3 else np.float32((rank - under) / (upto - under))
        middle = low + (high - low) * share
        below = _below(values, middle)
        if below == rank:
            return middle
        if below < rank:
            low, under = middle, below
        else:
            high, upto = middle, below
    median = np.partition(values, k)[k]
    return np.nextafter(median, np.float32(np.inf)) if strict else median


@cached_njit(nogil=True, error_model="numpy", fastmath={"contract"})  # fused multiply-add, as in matrix products
def _count(
    maps: Any, bands: Any, strict: bool, keep_maximum: bool, down: Any, across: Any, cells: Any, marked: Any
) -> None:
    """Resizes each map by the weights of its rows and columns, finds its level, and counts the pixels at or above.

    ``bands`` holds the first old pixel and the weights of each new one, down and across; ``down`` and ``across`` are
    the ends of the segments whose cells are counted.
    """
    first_down, weights_down, first_across, weights_across = bands
    height, width = len(first_down), len(first_across)
    wide = np.empty((maps.shape[1], width), np.float32)
    canvas = np.empty((height, width), np.float32)
    pixels = canvas.ravel()
    for m in range(len(maps)):
        low, high = maps[m].min(), maps[m].max()
        for i in range(maps.shape[1]):
            for x in range(width):
                value = np.float32(0)
                for tap in range(weights_across.shape[1]):
                    value += weights_across[x, tap] * (maps[m, i, first_across[x] + tap] - low)
                wide[i, x] = value
        for y in range(height):
            row = canvas[y]
            row[:] = 0
            for tap in range(weights_down.shape[1]):
                weight, old = weights_down[y, tap], wide[first_down[y] + tap]
                for x in range(width):
                    row[x] += weight * old[x]
            for x in range(width):
                row[x] += low  # rounds, which can merge values, as in maps that are drawn
        level = _level(pixels, strict, low, high)
        if keep_maximum and _below(pixels, level) == len(pixels):  # the median is the maximum
            maximum = pixels.max()
            level = maximum if _below(pixels, maximum) > 0 else level
        marked[m] = len(pixels) - _below(pixels, level)
        for s in range(cells.shape[1]):
            for j in range(cells.shape[2]):
                for i in range(cells.shape[3]):
                    start, end = across[m, s, i], across[m, s, i + 1]
                    count = 0
                    for y in range(down[m, s, j], down[m, s, j + 1]):
                        count += end - start - _below(canvas[y, start:end], level)
                    cells[m, s, j, i] = count


def count_marked(
    maps: Tensor,
    down_weights: Tensor,
    across_weights: Tensor,
    *,
    taps: int,
    strict: bool,
    keep_maximum: bool,
    down: Tensor,
    across: Tensor,
) -> tuple[Tensor, Tensor]:
    """Counts the pixels that each map marks at its upper median on the CPU, with as many threads as torch uses.

    Args:
        maps: (R, h, w), float32, finite.
        down_weights: weights of the old rows for each new one, (H, h).
        across_weights: the same for columns, (W, w).
        taps: a row of weights is 0 but for this many neighbors.
        strict: whether pixels have to be above the median, not at it.
        keep_maximum: whether pixels at the median are marked all the same if none is above and some are below.
        down: ends of the segments of each source along the height in pixels, ascending, (R, S, n), int64.
        across: the same along the width, (R, S, m).

    Returns:
        The marked pixels of each source's cells, (R, S, n − 1, m − 1), and of each map, (R,), float32.
    """
    bands = tuple(part for weights in (down_weights, across_weights) for part in _band(weights, taps))
    down_ends, across_ends = (ends.contiguous().numpy() for ends in (down, across))
    rows, sources = down.shape[:2]
    cells = np.zeros((rows, sources, down.shape[2] - 1, across.shape[2] - 1), np.float32)
    marked = np.zeros(rows, np.float32)
    values = maps.detach().contiguous().numpy()

    def compute(block: int) -> None:
        at = slice(block * _MAPS, (block + 1) * _MAPS)
        _count(values[at], bands, strict, keep_maximum, down_ends[at], across_ends[at], cells[at], marked[at])

    parallel_for(compute, -(-rows // _MAPS))
    return torch.from_numpy(cells), torch.from_numpy(marked)


def _band(weights: Tensor, taps: int) -> tuple[Any, Any]:
    """The first old pixel of each new one, (new,), and the weights from there on, (new, taps)."""
    taps = min(taps, weights.shape[1])
    first = (weights != 0).int().argmax(1).clamp(max=weights.shape[1] - taps)
    return first.numpy(), weights.gather(1, first[:, None] + torch.arange(taps)).to(torch.float32).numpy()
