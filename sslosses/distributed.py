"""Gathers and sums tensors over processes, with gradient; and the losses' choice of whether to do it.

The losses have an option ``gather_distributed``. With True, a loss is that of the samples of all processes. With False,
it is that of this process's samples: its negatives come from these samples only, and a mean weighs the processes
equally, whatever their number of samples. Its gradient then differs from that of one process with the whole batch. None
stands for a choice that nobody made. It acts as False, with a :class:`NotGatheredWarning` if several processes are up.

Every process returns the loss of the whole batch, and the gradients from all processes are added. So each process gets
the gradient of the *sum* of the W equal losses for its own rows: W times the gradient of the loss. Averaging over the
processes, as DistributedDataParallel does with parameter gradients, gives the gradient of one process that holds the
whole batch. Without DistributedDataParallel, divide by W yourself.

Without a process group, or with one process, these functions return their argument.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from sslosses._checks import check_dimensions, check_floating


class NotGatheredWarning(UserWarning):
    """Several processes are up, and ``gather_distributed`` of a loss was not chosen."""


class Gathered(NamedTuple):
    """The rows of all processes, and the index of this process's first row."""

    rows: Tensor
    offset: int


def process_count() -> int:
    """Computes the number of processes in the default group; 1 if there is no group.

    Example:
        >>> process_count()
        1
    """
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_rows(rows: Tensor) -> Gathered:
    """Computes the concatenation of the rows of all processes in rank order, with gradient.

    The number of rows may differ between processes; the other sizes must agree. All processes have to call this
    function, and if one runs backward, all have to.

    Args:
        rows: (B, ...), floating.

    Returns:
        :class:`Gathered`: the rows, (sum of all B, ...), and the index of this process's first row.

    Raises:
        TypeError: if ``rows`` is not a floating tensor.
        ValueError: if it is a scalar.

    Example:
        >>> import torch
        >>> gather_rows(torch.ones(2, 3)).rows.shape
        torch.Size([2, 3])
    """
    check_floating("rows", rows)
    check_dimensions("rows", rows, "B ...")
    if process_count() == 1:
        return Gathered(rows, 0)
    sizes = _sizes(rows)
    gathered: Tensor = _Gather.apply(rows, sizes)  # type: ignore[no-untyped-call]
    return Gathered(gathered, sum(sizes[: dist.get_rank()]))


def sum_over_processes(value: Tensor) -> Tensor:
    """Computes the sum of ``value`` over all processes, with gradient.

    Args:
        value: (...), floating, of the same shape in all processes.

    Returns:
        (...), the sum.

    Raises:
        TypeError: if ``value`` is not a floating tensor.

    Example:
        >>> import torch
        >>> sum_over_processes(torch.tensor(2.0))
        tensor(2.)
    """
    check_floating("value", value)
    if process_count() == 1:
        return value
    total: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
    return total


def _sizes(rows: Tensor) -> list[int]:
    count = torch.tensor([rows.shape[0]], device=rows.device)
    sizes = [torch.empty_like(count) for _ in range(process_count())]
    dist.all_gather(sizes, count)
    return [int(size) for size in sizes]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        padded = rows.new_zeros((max(sizes), *rows.shape[1:]))
        padded[: rows.shape[0]] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        # Sum and slice instead of reduce_scatter, which gloo does not support and which needs equal parts.
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        start = sum(ctx.sizes[: dist.get_rank()])
        return total[start : start + ctx.sizes[dist.get_rank()]], None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:  # noqa: ARG004
        total = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total
