"""Reduction of a loss over the valid samples of a batch."""

from __future__ import annotations

from torch import Tensor

from sslosses.distributed import sum_over_processes

REDUCTIONS = ("mean", "sum", "none")


def reduce_samples(values: Tensor, valid: Tensor, reduction: str, *, all_processes: bool = False) -> Tensor:
    """Mean or sum of ``values`` (B,) over the ``valid`` samples, or ``values`` with 0 for the other samples.

    Without a valid sample the mean is a zero that keeps its graph. With ``all_processes`` the mean and the sum are over
    the samples of all processes.
    """
    values = values.where(valid, 0)
    if reduction == "none":
        return values
    if reduction == "mean":
        count = valid.sum().to(values.dtype)
        if all_processes:
            count = sum_over_processes(count)
        values = values / count.clamp(min=1)  # before the sum, which could overflow
    total = values.sum()
    return sum_over_processes(total) if all_processes else total
