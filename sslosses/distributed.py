"""Gather and sum over processes, with gradient.

One convention: every process returns the loss of the whole batch, and gradients that arrive from several processes are
added. So what a process gets for its own rows is the gradient of the *sum* of the copies, with W processes W times the
gradient of the loss. DistributedDataParallel averages parameter gradients, that is, it adds the shares of the processes
and divides by W: it ends with the gradient of one process holding the whole batch. Without it, divide yourself.

Without a process group, or with one process, these functions return their argument.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from sslosses._checks import check_dimensions, check_floating


class Gathered(NamedTuple):
    """Rows of all processes, and the index of this process's first row."""

    rows: Tensor
    offset: int


def process_count() -> int:
    """Number of processes of the default group; 1 without one.

    Example:
        >>> process_count()
        1
    """
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_rows(rows: Tensor) -> Gathered:
    """Concatenate the rows of all processes in rank order, with gradient.

    Numbers of rows may differ between processes (shorter ones are padded on the way); the other sizes must agree. All
    processes have to call this, and all have to run backward if one does.

    Args:
        rows: (B, ...), floating.

    Returns:
        :class:`Gathered`: (sum of all B, ...) and where this process's rows begin.

    Raises:
        TypeError: if ``rows`` is no floating tensor.
        ValueError: if it is a scalar.

    Example:
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
    """Sum of ``value`` over all processes, with gradient.

    Raises:
        TypeError: if ``value`` is no floating tensor.

    Example:
        >>> sum_over_processes(torch.tensor(2.0))
        tensor(2.)
    """
    check_floating("value", value)
    if process_count() == 1:
        return value
    total: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
    return total


def _sizes(rows: Tensor) -> list[int]:
    own = torch.tensor([rows.shape[0]], device=rows.device)
    sizes = [torch.empty_like(own) for _ in range(process_count())]
    dist.all_gather(sizes, own)
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
        # A sum followed by a cut instead of reduce_scatter, which gloo lacks and which wants equal parts.
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
