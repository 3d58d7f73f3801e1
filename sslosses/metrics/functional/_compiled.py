"""Pixel average precision as a compiled kernel that radix-sorts the pixels of a map in buffers within the cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslosses._numba import cached_njit
from sslosses._threads import parallel_for

_BITS = 11
_DIGITS = 3  # 3 digits of 11 bits cover the 32 bits of a key


@cached_njit(nogil=True, error_model="numpy")
def _sorted(keys: Any, other: Any, counts: Any) -> Any:
    """Returns the keys in ascending order in one of the two buffers; ``counts`` has a row of 2¹¹ per digit."""
    counts[:] = 0
    for key in keys:
        for digit in range(_DIGITS):
            counts[digit, (key >> np.uint32(_BITS * digit)) & np.uint32((1 << _BITS) - 1)] += 1
    for digit in range(_DIGITS):
        shift, row = np.uint32(_BITS * digit), counts[digit]
        if len(keys) and row[(keys[0] >> shift) & np.uint32((1 << _BITS) - 1)] == len(keys):
            continue  # all keys have the same digit
        first = 0
        for value in range(len(row)):
            first, row[value] = first + row[value], first
        for key in keys:
            value = (key >> shift) & np.uint32((1 << _BITS) - 1)
            other[row[value]] = key
            row[value] += 1
        keys, other = other, keys
    return keys


@cached_njit(nogil=True, error_model="numpy")
def _precision(bits: Any, positive: Any, workspace: Any, counts: Any) -> float:
    """Computes AP of one map, see ``average_precision``; ``bits`` are the bits of the float32 scores as integers."""
    size = len(bits)
    right = 0
    wrong = size
    for i in range(size):
        # Unsigned integers in the order of the scores: negative scores have all bits flipped, others the sign bit.
        key = np.uint32(bits[i])
        if key == np.uint32(0x80000000):  # -0.0 is 0.0
            key = np.uint32(0)
        key ^= np.uint32(0xFFFFFFFF) if key & np.uint32(0x80000000) else np.uint32(0x80000000)
        if positive[i]:
            workspace[0, right] = key
            right += 1
        else:
            wrong -= 1
            workspace[0, wrong] = key
    if right == 0:
        return 0.0
    yes = _sorted(workspace[0, :right], workspace[1, :right], counts)
    no = _sorted(workspace[0, right:], workspace[1, right:], counts)
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
    """Computes the pixel average precision of rows of pixels on the CPU, with as many threads as torch uses.

    Args:
        scores: (R, N), float32, free of NaN.
        positive: (R, N), bool.

    Returns:
        (R,), float64.
    """
    bits = scores.detach().contiguous().view(torch.int32).numpy().view(np.uint32)
    labels, out = positive.contiguous().numpy(), np.zeros(len(bits))

    def compute(row: int) -> None:
        workspace, counts = np.empty((2, bits.shape[1]), np.uint32), np.empty((_DIGITS, 1 << _BITS), np.int32)
        out[row] = _precision(bits[row], labels[row], workspace, counts)

    parallel_for(compute, len(bits))
    return torch.from_numpy(out)
