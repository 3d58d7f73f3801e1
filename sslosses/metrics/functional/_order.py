"""Sorting and order statistics of many rows: NumPy's vectorized sort on the CPU, torch's elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslosses._threads import parallel_for


def sort_rows(values: Tensor) -> Tensor:
    """Rows of integers sorted ascending."""
    if values.device.type != "cpu" or values.dtype != torch.int32:
        return values.sort(dim=-1).values
    ordered = torch.empty_like(values, memory_format=torch.contiguous_format)
    # one row at a time torch sorts by radix
    for row, place in zip(values.reshape(-1, values.shape[-1]), ordered.view(-1, values.shape[-1]), strict=True):
        place.copy_(row.sort().values)
    return ordered


def true_places(mask: Tensor) -> Tensor:
    """Indices of the true values of a 1-D mask; NumPy takes a tenth of torch's time for that."""
    if mask.device.type != "cpu":
        return mask.nonzero()[:, 0]
    return torch.from_numpy(np.flatnonzero(mask.numpy()))


def kth_smallest(values: Tensor, k: int) -> Tensor:
    """The value at index ``k`` of each row sorted ascending."""
    if values.device.type != "cpu":
        if torch.are_deterministic_algorithms_enabled():  # kthvalue has no such one
            return values.sort(dim=-1).values[..., k]
        return values.kthvalue(k + 1, dim=-1).values
    known = values.dtype in (torch.float32, torch.float64)  # by NumPy, as quickly
    rows = (values if known else values.float()).detach().reshape(-1, values.shape[-1]).numpy()
    found = np.empty(len(rows), rows.dtype)

    def do(i: int) -> None:
        found[i] = _kth(rows[i], k)

    parallel_for(do, len(rows))
    return torch.from_numpy(found).to(values.dtype).view(values.shape[:-1])


_STRIDE = 61  # coprime to the sides of usual frames, so that the sample is from all columns


def _kth(row: np.ndarray, k: int) -> Any:
    """By a sample: two of its values enclose the wanted one, and only what is between them is sorted out."""
    if len(row) < 100 * _STRIDE:
        return np.partition(row, k)[k]
    sample = np.sort(row[::_STRIDE])
    rank, margin = k // _STRIDE, 4 + len(sample) // 50
    low, high = sample[max(rank - margin, 0)], sample[min(rank + margin, len(sample) - 1)]
    from_low = row >= low
    inside = np.flatnonzero(from_low & (row <= high))
    k_inside = k - (len(row) - np.count_nonzero(from_low))
    if 0 <= k_inside < len(inside):
        return np.partition(row[inside], k_inside)[k_inside]
    return np.partition(row, k)[k]


def mean_of_largest(values: Tensor, count: int) -> Tensor:
    """Mean of the ``count`` largest values of each row."""
    least = kth_smallest(values, values.shape[-1] - count)[..., None]
    above = torch.gt(values, least, out=torch.empty_like(values))
    ties = count - above.sum(-1)
    return ((values * above).sum(-1) + ties * least[..., 0]) / count


def ordered_keys(scores: Tensor, labels: Tensor) -> Tensor:
    """Integers ≥ 0 in the order of float32 ``scores`` whose last bit is the label: int32 for scores in [0, 1], which
    sort several times as fast, else int64. Equal scores have equal bits above the last."""
    bits = (scores + 0.0).view(torch.int32)  # -0.0 becomes 0.0
    if bits.numel() and int(bits.amin()) >= 0 and int(bits.amax()) < 1 << 30:
        return (bits << 1).bitwise_or_(labels)
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(torch.int64) + (1 << 31)
    return (ordered << 1).bitwise_or_(labels)
