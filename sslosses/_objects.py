"""What identification and clustering of objects share: checks of their inputs, and slots for their results."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from sslosses._checks import check_count, check_dense, check_floating, check_shapes
from sslosses._torch import check_no_transform, has_values


def check_scene(visual: Tensor, audio: Tensor, num_sources: int | Tensor | None) -> int | Tensor | None:
    """Raise unless the arguments fit, and return ``num_sources`` with a Python integer for NumPy's."""
    check_floating("visual", visual)
    check_floating("audio", audio)
    check_shapes(visual=(visual, "B C H W"), audio=(audio, "B C"))
    for name, value in (("visual", visual), ("audio", audio)):
        check_no_transform(name, value, differentiable=True)
    if num_sources is None:
        return None
    if not isinstance(num_sources, Tensor):
        return check_count("num_sources", num_sources)
    check_dense("num_sources", num_sources)
    if num_sources.is_floating_point() or num_sources.is_complex() or num_sources.dtype == torch.bool:
        raise TypeError(f"Expected `num_sources` to have an integer dtype, but got {num_sources.dtype}")
    check_shapes(visual=(visual, "B C H W"), num_sources=(num_sources, "B"))
    if has_values(num_sources) and bool((num_sources < 0).any()):
        raise ValueError(f"Expected `num_sources` to be at least 0, but got {int(num_sources.min())}")
    return num_sources


def select(fields: Iterable[Tensor], valid: Tensor, num_sources: int | Tensor | None) -> list[Tensor]:
    """Move valid rows of the fields (B, N, ...) to the first slots, keep their order, and cut or pad to M slots."""
    order = valid.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    rank = torch.arange(order.shape[1], device=order.device)
    kept = rows(valid, order)
    if isinstance(num_sources, Tensor):
        kept = kept & (rank < num_sources[:, None])
    if isinstance(num_sources, int):
        slots = num_sources
    elif not has_values(kept):
        slots = order.shape[1]  # a size can't depend on values
    elif num_sources is not None:
        slots = int(num_sources.max()) if num_sources.numel() else 0
    else:
        slots = int(kept.sum(1).max()) if kept.numel() else 0
    return [_fit(rows(values, order), kept, slots) for values in fields]


def rows(values: Tensor, index: Tensor) -> Tensor:
    """The rows of values (B, N, ...) at index (B, M). Not ``take_along_dim``, which fixes B in an exported graph."""
    index = index.reshape(*index.shape, *[1] * (values.ndim - 2))
    return values.gather(1, index.expand(-1, -1, *values.shape[2:]))


def _fit(values: Tensor, valid: Tensor, slots: int) -> Tensor:
    values = values.masked_fill(~valid.reshape(valid.shape + (1,) * (values.ndim - 2)), 0)[:, :slots]
    missing = values.new_zeros((values.shape[0], slots - values.shape[1], *values.shape[2:]))
    return torch.cat([values, missing], 1)
