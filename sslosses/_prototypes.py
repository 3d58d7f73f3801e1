"""Prototypes of sounding objects and their groups, which identification and a loss share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sslosses._objects import rows
from sslosses._torch import has_values
from sslosses.similarity import unit


class Prototypes(NamedTuple):
    """The T prototypes of each sample, in the order in which they were found: by decreasing similarity.

    Attributes:
        pixels: (B, T), the pixel of each prototype.
        valid: (B, T) bool, False after a sample's last prototype.
        maps: (B, T, N), minus the distance of every pixel from the prototype.
    """

    pixels: Tensor
    valid: Tensor
    maps: Tensor


def find_prototypes(
    features: Tensor, similarity: Tensor, background: Tensor, peak_threshold: float, max_iterations: int | None
) -> Prototypes:
    """Find the prototypes of all samples in parallel, from features (B, N, C) and similarity (B, N).

    A prototype claims the pixels that are nearer to it than to ``background`` (B, C). A sample with NaN or inf has no
    prototypes.
    """
    pixels = similarity.shape[1]
    to_background = torch.linalg.vector_norm(features - background[:, None], dim=-1)
    unclaimed = torch.ones_like(similarity, dtype=torch.bool)
    active = features.isfinite().flatten(1).all(1)
    indices, valid, maps = [], [], []
    for iteration in range(pixels if max_iterations is None else min(pixels, max_iterations)):
        peak, index = similarity.masked_fill(~unclaimed, -torch.inf).max(1)
        if iteration > 0:
            active = active & (peak >= peak_threshold)
        if has_values(active) and not active.any():
            break
        distance = torch.linalg.vector_norm(features - rows(features, index[:, None]), dim=-1)
        indices.append(index)
        valid.append(active)
        maps.append(-distance)
        claimed = (distance < to_background) & unclaimed
        unclaimed = unclaimed & ~claimed
        active = active & claimed.any(1)
    if not maps:
        none = torch.zeros_like(similarity[:, :0], dtype=torch.int64)
        return Prototypes(none, none > 0, similarity.new_zeros(similarity.shape[0], 0, pixels))
    return Prototypes(*(torch.stack(values, 1) for values in (indices, valid, maps)))


def group_prototypes(
    prototypes: Tensor,
    valid: Tensor,
    background: Tensor,
    background_threshold: float,
    merge_threshold: float,
    *,
    link_through_background: bool,
) -> Tensor:
    """Drop background prototypes, and merge linked ones into the slot of the first, which has the largest peak.

    Returns:
        (B, T, T) bool, True where the prototype of the column is in the group of the row. The rows that stand for no
        group are False.
    """
    directions = unit(prototypes, -1)
    # Rounding can make the cosine of equal directions larger than 1, but it must not exceed a threshold of 1.
    to_background = (directions @ unit(background, -1)[..., None])[..., 0].clamp(max=1)
    kept = valid & ~(to_background > background_threshold)
    count = kept.shape[1]
    alike = (directions @ directions.mT).clamp(max=1) > merge_threshold
    # Like the public code: a background prototype links to none, but later ones may link to it.
    link = (alike & kept[..., None]).tril(-1)
    if not link_through_background:
        link = link & kept[:, None]
    linked = link | link.mT | torch.eye(count, dtype=torch.bool, device=kept.device)
    for _ in range(max(count - 1, 0).bit_length()):  # each squaring doubles the length of the chains
        linked = (linked.to(directions.dtype) @ linked.to(directions.dtype)) > 0
    linked = linked & kept[:, None] & kept[..., None]
    return linked & (linked.cumsum(1) == 1)  # the first linked row per column


def shares(member: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights (B, T, T) that average over the members of each group; 0 for a row without members."""
    weights = member.to(dtype)
    return weights / weights.sum(-1, keepdim=True).clamp(min=1)
