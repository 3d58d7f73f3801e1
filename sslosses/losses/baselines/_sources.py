"""Checks of the classes of sources, for losses that know which classes a sample has."""

from __future__ import annotations

import torch
from torch import Tensor

from sslosses._checks import check_dense, check_mask, check_shapes
from sslosses._torch import has_values


def check_sources(
    sources: Tensor, source_mask: Tensor | None, arguments: dict[str, tuple[Tensor, str]], classes: str
) -> tuple[Tensor, Tensor]:
    """Check all shapes and the classes, and return the classes (0 for padding) and which sources exist.

    Args:
        sources: (B, N), integer.
        source_mask: (B, N) bool; None if all sources exist.
        arguments: the other arguments, as for :func:`~sslosses._checks.check_shapes`.
        classes: name of the argument whose M is the number of classes.
    """
    check_dense("sources", sources)
    if sources.is_floating_point() or sources.is_complex() or sources.dtype == torch.bool:
        raise TypeError(f"Expected `sources` to have an integer dtype, but got {sources.dtype}")
    if source_mask is None:
        source_mask = torch.ones(sources.shape, dtype=torch.bool, device=sources.device)
    check_mask("source_mask", source_mask)
    sizes = check_shapes(**arguments, sources=(sources, "B N"), source_mask=(source_mask, "B N"))
    if sizes["M"] == 0:
        value, letters = arguments[classes]
        shape = ", ".join(letters.split())
        raise ValueError(f"Expected `{classes}` to have shape ({shape}) with M >= 1, but got {tuple(value.shape)}")
    sources = sources.long().where(source_mask, 0)
    if has_values(sources):
        unknown = sources[(sources < 0) | (sources >= sizes["M"])]
        if unknown.numel():
            raise ValueError(f"Expected `sources` to be classes in [0, {sizes['M']}), but got {int(unknown[0])}")
    return sources, source_mask
