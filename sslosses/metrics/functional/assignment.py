"""Assignment of predicted maps to sources."""

from __future__ import annotations

from itertools import permutations
from math import perm
from typing import NamedTuple

import torch
from torch import Tensor

from sslosses._checks import check_mask, check_shapes
from sslosses.metrics.functional._inputs import check_scores


class GreedyAssignment(NamedTuple):
    """Result of :func:`greedy_assignment`: one row per sample, one column per map."""

    source: Tensor  #: the chosen source, (B, M), int64; −1 for padding
    score: Tensor  #: score with that source, (B, M); 0 if it was taken before, and for padding
    fresh: Tensor  #: whether that source was not taken before, (B, M), bool; False for padding


def greedy_assignment(scores: Tensor, valid: Tensor | None = None) -> GreedyAssignment:
    """Computes the assignment of maps to sources in the order of the maps, as NoPrior's evaluation code does.

    Each map takes the source with the largest score, the first one on ties. A taken source has score 0 for the
    following maps. If all remaining scores of a map are 0, it takes source 0, taken or not, exactly as the published
    code's argmax over blanked ground truths does.

    Args:
        scores: cIoU of each map with each source, (B, M, S), floating, finite, non-negative, S ≥ 1.
        valid: True for maps that exist, False for padding, (B, M), bool; None: all exist.

    Returns:
        The chosen sources, their scores, and whether they were taken for the first time.

    Raises:
        TypeError: if ``scores`` is not floating or ``valid`` is not boolean.
        ValueError: if shapes or devices do not fit, S is 0, or a score is negative or not finite.

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import greedy_assignment
        >>> result = greedy_assignment(torch.tensor([[[0.2, 0.6], [0.1, 0.7]]]))
        >>> result.source, result.score
        (tensor([[1, 0]]), tensor([[0.6000, 0.1000]]))
    """
    check_scores("scores", scores)
    sizes = check_shapes(scores=(scores, "B M S"))
    if sizes["S"] == 0:
        raise ValueError(f"Expected `scores` to have shape (B, M, S) with S >= 1, but got {tuple(scores.shape)}")
    if valid is None:
        valid = torch.ones(scores.shape[:2], dtype=torch.bool, device=scores.device)
    check_mask("valid", valid)
    check_shapes(scores=(scores, "B M S"), valid=(valid, "B M"))
    return _greedy_assignment(scores, valid)


def _greedy_assignment(scores: Tensor, valid: Tensor) -> GreedyAssignment:
    batch, maps, sources = scores.shape
    source = torch.full(valid.shape, -1, dtype=torch.int64, device=scores.device)
    score = torch.zeros_like(scores[..., 0])
    fresh = torch.zeros_like(valid)
    taken = torch.zeros(batch, sources, dtype=torch.bool, device=scores.device)
    slots = torch.arange(sources, device=scores.device)
    for m in range(maps):  # each choice depends on the previous ones
        best, chosen = scores[:, m].masked_fill(taken, 0).max(-1)
        here = (slots == chosen[:, None]) & valid[:, m, None]
        source[:, m] = torch.where(valid[:, m], chosen, -1)
        score[:, m] = torch.where(valid[:, m], best, 0)
        fresh[:, m] = (here & ~taken).any(-1)
        taken = taken | here
    return GreedyAssignment(source, score, fresh)


_MOST_CANDIDATES = 50_000


def optimal_assignment(scores: Tensor, allowed: Tensor | None = None) -> Tensor:
    r"""Computes the assignment of maps to sources, each at most once, with the largest total score.

    .. math:: \max_\pi \sum_s \mathrm{scores}_{\pi(s), s}

    where π(s) is the map of source s (the Hungarian assignment). Ties within 1e-9 go to the assignment with the most
    pairs, then to the one whose maps, read source by source, come first; a source without a map comes last. All
    candidates of all samples are compared at once, which is exact, and fast for the few sources of a scene. Their
    number max(M, S)! / (max(M, S) − S)! is limited to 50,000, for example 8 maps for 6 sources.

    Args:
        scores: score of each map for each source, (B, M, S), floating, finite, non-negative, S ≥ 1.
        allowed: which pairs may be assigned, (B, M, S), bool; None: all.

    Returns:
        The map of each source, (B, S), int64; −1 without a map.

    Raises:
        TypeError: if ``scores`` is not floating or ``allowed`` is not boolean.
        ValueError: if shapes or devices do not fit, S is 0, a score is negative or not finite, or there are too many
            candidates.

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import optimal_assignment
        >>> optimal_assignment(torch.tensor([[[0.6, 0.5], [0.5, 0.1]]]))  # greedy would take 0.6 and 0.1
        tensor([[1, 0]])
    """
    check_scores("scores", scores)
    sizes = check_shapes(scores=(scores, "B M S"))
    if sizes["S"] == 0:
        raise ValueError(f"Expected `scores` to have shape (B, M, S) with S >= 1, but got {tuple(scores.shape)}")
    if allowed is None:
        allowed = torch.ones_like(scores, dtype=torch.bool)
    check_mask("allowed", allowed)
    check_shapes(scores=(scores, "B M S"), allowed=(allowed, "B M S"))
    return _optimal_assignment(scores, allowed)


def _optimal_assignment(scores: Tensor, allowed: Tensor) -> Tensor:
    """Checks nothing but the limit on the number of candidates."""
    maps, sources = scores.shape[1:]
    slots = max(maps, sources)  # empty slots for missing maps make every candidate a permutation
    if perm(slots, sources) > _MOST_CANDIDATES:
        raise ValueError(
            f"Expected at most {_MOST_CANDIDATES} ways to assign maps to sources, but got {perm(slots, sources)} of "
            f"{maps} maps and {sources} sources"
        )
    candidates = torch.tensor(list(permutations(range(slots), sources)), device=scores.device)
    padding = (0, 0, 0, slots - maps)
    values = torch.nn.functional.pad(torch.where(allowed, scores, 0).to(torch.float64), padding)
    usable = torch.nn.functional.pad(allowed, padding)
    column = torch.arange(sources, device=scores.device)
    totals = values[:, candidates, column].sum(-1)
    made = usable[:, candidates, column]
    pairs = torch.where(totals >= totals.amax(-1, keepdim=True) - 1e-9, made.sum(-1), -1)
    best = pairs == pairs.amax(-1, keepdim=True)
    # The candidate as a number with one digit per source; a source without a map has the largest digit.
    digits = torch.where(made, candidates, slots) * (slots + 1) ** column.flip(0)
    order = torch.where(best, digits.sum(-1), (slots + 1) ** sources)
    chosen = candidates[order.argmin(-1)]
    return torch.where(usable.gather(1, chosen[:, None])[:, 0], chosen, -1)
