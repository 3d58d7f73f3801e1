"""Pixel average precision in compiled code: a map's pixels are sorted by radix in buffers that stay in the cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from sslosses._threads import parallel_for

_BITS = 11
_DIGITS = 3  # of 11 bits each, more than the 32 of a key


@njit(nogil=True, error_model="numpy", cache=True)
def _sorted(keys: Any, other: Any, counts: Any) -> Any:
    """The keys ascending, in one of the two buffers; ``counts`` has a row of 2¹¹ a digit."""
    counts[:] = 0
    for key in keys:
        for digit in range(_DIGITS):
            counts[digit, (key >> np.uint32(_BITS * digit)) & np.uint32((1 << _BITS) - 1)] += 1
    for digit in range(_DIGITS):
        shift, row = np.uint32(_BITS * digit), counts[digit]
        if len(keys) and row[(keys[0] >> shift) & np.uint32((1 << _BITS) - 1)] == len(keys):
            continue  # all have the same
        first = 0
        for value in range(len(row)):
            first, row[value] = first + row[value], first
        for key in keys:
            value = (key >> shift) & np.uint32((1 << _BITS) - 1)
            other[row[value]] = key
            row[value] += 1
        keys, other = other, keys
    return keys


@njit(nogil=True, error_model="numpy", cache=True)
def _precision(bits: Any, positive: Any, space: Any, counts: Any) -> float:
    """AP of one map, see ``average_precision``; the scores' float32 bits as integers."""
    size = len(bits)
    right = 0
    wrong = size
    for i in range(size):
        # Unsigned integers in the order of the scores: of negative ones all bits are flipped, of others the sign.
        key = np.uint32(bits[i])
        if key == np.uint32(0x80000000):  # -0.0 is 0.0
            key = np.uint32(0)
        key ^= np.uint32(0xFFFFFFFF) if key & np.uint32(0x80000000) else np.uint32(0x80000000)
        if positive[i]:
            space[0, right] = key
            right += 1
        else:
            wrong -= 1
            space[0, wrong] = key
    if right == 0:
        return 0.0
    yes = _sorted(space[0, :right], space[1, :right], counts)
    no = _sorted(space[0, right:], space[1, right:], counts)
    total, below, i = 0.0, len(no), right - 1
    while i >= 0:
        level, before = yes[i], i
        while i >= 0 and yes[i] == level:
            i -= 1
        while below > 0 and no[below - 1] >= level:
            below -= 1
        hits = right - 1 - i
        total += (before - i) * (hits / (hits + len(no) - below))
    return total / right


def average_precision_of_rows(scores: Tensor, positive: Tensor) -> Tensor:
    """Pixel average precision of rows of pixels on the CPU, on torch's threads.

    Args:
        scores: (R, N), float32, free of NaN.
        positive: (R, N), bool.

    Returns:
        (R,), float64.
    """
    bits = scores.detach().contiguous().view(torch.int32).numpy().view(np.uint32)
    labels, out = positive.contiguous().numpy(), np.zeros(len(bits))

    def do(row: int) -> None:
        space, counts = np.empty((2, bits.shape[1]), np.uint32), np.empty((_DIGITS, 1 << _BITS), np.int32)
        out[row] = _precision(bits[row], labels[row], space, counts)

    parallel_for(do, len(bits))
    return torch.from_numpy(out)
