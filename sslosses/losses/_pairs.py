"""Transport between all pairs of a sample's similarity maps, which ORI and the separation loss share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sslosses._checks import check_option, find_non_finite
from sslosses._torch import at_least_float32, check_no_transform, has_values
from sslosses.losses._inputs import Present, check_references
from sslosses.similarity import similarity_map
from sslosses.transport import KINDS, PointcloudCost, solve

Potentials = tuple[Tensor, Tensor]


class PairProblems(NamedTuple):
    """Arguments of :func:`~sslosses.transport.solve` for P pairs of maps with N pixels.

    Attributes:
        cost: the ground cost, (P, N, N) or (N, N).
        a: (P, N), the masses of the first maps; None for 1/N each.
        b: (P, N), the masses of the second maps.
        self_costs: the costs of the first and of the second maps against themselves.
    """

    cost: PointcloudCost
    a: Tensor | None
    b: Tensor | None
    self_costs: tuple[PointcloudCost, PointcloudCost]


class PairDistances(NamedTuple):
    """Distances between all maps of a batch, and how the solver ended.

    Attributes:
        distances: (B, S, S), 0 for pairs with a missing map and on the diagonal.
        converged: scalar bool, whether every pair of present maps converged.
        marginal_error: scalar without gradient, the largest marginal error of these pairs.
        potentials: f and g, (B, pairs, N) without gradient, 0 for pairs with a missing map.
    """

    distances: Tensor
    converged: Tensor
    marginal_error: Tensor
    potentials: Potentials


def reference_maps(
    visual: Tensor,
    foreground: Tensor,
    background: Tensor,
    source_mask: Tensor | None,
    background_mask: Tensor | None,
    gradient: str,
) -> tuple[Tensor, Tensor]:
    """Check the inputs and compute the similarity maps of all references, the background last.

    Returns:
        Maps (B, K + 1, H, W), and which of the references are present, (B, K + 1) bool.
    """
    present = check_references(visual, foreground, background, source_mask, background_mask)
    arguments = {"visual": visual, "foreground": foreground, "background": background}
    masks = {"source_mask": present.foreground, "background_mask": present.background}
    for name, value in (arguments | masks).items():
        check_no_transform(name, value, differentiable=gradient == "unrolled")
    visual, foreground, background = at_least_float32(visual, foreground, background)
    references, exists = stack_references(foreground, background, present)
    return similarity_map(visual, references), exists


def stack_references(foreground: Tensor, background: Tensor, present: Present) -> tuple[Tensor, Tensor]:
    """All references of a sample (B, K + 1, C), the background last, and which of them are present, (B, K + 1) bool."""
    exists = torch.cat([present.foreground, present.background[:, None]], dim=1)
    # Zeros keep whatever padding holds, NaN included, out of the gradient.
    return torch.cat([foreground, background[:, None]], dim=1).where(exists[..., None], 0), exists


def has_pair(present: Tensor) -> Tensor:
    """Which samples have at least two maps: (B, S) bool → (B,) bool."""
    return present.sum(1) >= 2


def transport_pairs(
    maps: Tensor,
    present: Tensor,
    make_problems: Callable[[Tensor, Tensor], PairProblems],
    *,
    symmetric: bool,
    kind: str,
    epsilon: float,
    init: Potentials | None,
    **options: Any,
) -> PairDistances:
    """Compute the distances between all pairs of maps.

    Args:
        maps: (B, S, H, W).
        present: (B, S) bool, True for the maps to compare.
        make_problems: turns the first and the second maps of P pairs, both (P, H·W), into transport problems.
        symmetric: whether the distances of (n, m) and (m, n) are equal, so that only one of them is solved.
        kind: as in :meth:`~sslosses.transport.TransportResult.value`.
        epsilon: as in :func:`~sslosses.transport.solve`.
        init: potentials to start from, as in :class:`PairDistances`.
        options: further options of :func:`~sslosses.transport.solve`.
    """
    check_option("kind", kind, KINDS)
    batch, count, *size = maps.shape
    first, second, index = enumerate_pairs(count, symmetric, maps.device)
    shape = (batch, first.shape[0], size[0] * size[1])
    counted = (present[:, first] & present[:, second]).flatten()
    flat = maps.flatten(2)
    sources, targets = flat[:, first].flatten(0, 1), flat[:, second].flatten(0, 1)
    init = _flat_potentials(init, shape)
    # Eagerly, only pairs of present maps are solved. Sizes in a compiled graph can't depend on values: it solves all.
    rows = counted.nonzero()[:, 0] if has_values(maps) else None
    if rows is not None:
        sources, targets = sources[rows], targets[rows]
        init = init and (init[0][rows], init[1][rows])

    cost, a, b, self_costs = make_problems(sources, targets)
    debiased = kind == "divergence" and epsilon != 0
    result = solve(cost, a, b, epsilon=epsilon, self_costs=self_costs if debiased else None, init=init, **options)
    # At ε = 0 the self problems have the value 0.
    values = result.value("transport" if kind == "divergence" and not debiased else kind)
    converged, errors = result.converged, result.marginal_error.detach()
    for self_result in result.self_results or ():
        converged, errors = converged & self_result.converged, errors.maximum(self_result.marginal_error.detach())
    f, g = (potential.detach() for potential in result.potentials)
    if rows is not None:
        values = maps.new_zeros(counted.shape).index_put((rows,), values)
        f, g = (maps.new_zeros(counted.shape[0], shape[2]).index_put((rows,), x) for x in (f, g))
    else:
        values, errors = values.where(counted, 0), errors.where(counted, 0)
        f, g = (x.where(counted[:, None], 0) for x in (f, g))
        converged = converged | ~counted

    # The extra column of zeros is the diagonal.
    distances = torch.cat([values.view(shape[:2]), values.new_zeros(batch, 1)], dim=1)[:, index]
    largest_error = torch.cat([errors, errors.new_zeros(1)]).max()
    return PairDistances(distances, converged.all(), largest_error, (f.view(shape), g.view(shape)))


def explain_failure(
    name: str,
    terms: Any,
    inputs: tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None],
    *,
    epsilon: float,
    max_iter: int,
    tol: float,
) -> str:
    """Says why transport problems of a loss did not converge, and what to change.

    Args:
        name: the loss.
        terms: its terms, with the last three fields of :class:`PairDistances`.
        inputs: its inputs, as for :func:`reference_maps`.
        epsilon: as in :func:`~sslosses.transport.solve`.
        max_iter: as in :func:`~sslosses.transport.solve`.
        tol: as in :func:`~sslosses.transport.solve`.
    """
    error = float(terms.marginal_error)
    if math.isnan(error):
        where = find_non_finite(**_without_padding(*inputs)) or "features of this size overflow"
        return f"{name} got NaN or inf: {where}. The loss of such a sample is NaN."
    begin = f"Transport problems of {name} did not converge"
    if not epsilon:
        return f"{begin}: the exact solver stopped before it had found the optimum."
    f, g = terms.potentials
    # Half of the cost is in f, half in g.
    rounding = torch.finfo(f.dtype).eps / epsilon * float(torch.cat([f.flatten(), g.flatten()]).abs().max())
    if not rounding <= tol:
        precision = str(f.dtype).removeprefix("torch.")
        remedy = "float64 features, " if f.dtype == torch.float32 else ""
        return (
            f"{begin}: epsilon ({epsilon:g}) is below what {precision} resolves of their costs. The marginal error is "
            f"up to {error:.2g} by rounding, tol is {tol:g}. More iterations don't help. Pass {remedy}a larger epsilon "
            "or a larger tol."
        )
    return (
        f"{begin} within max_iter={max_iter}: the marginal error is up to {error:.2g}, tol is {tol:g}. Raise max_iter "
        "or epsilon, or accept the error by raising tol. The option's documentation says what an error costs."
    )


def _without_padding(
    visual: Tensor,
    foreground: Tensor,
    background: Tensor,
    source_mask: Tensor | None,
    background_mask: Tensor | None,
) -> dict[str, Tensor]:
    """The features, with zeros in those that the loss does not look at."""
    present = check_references(visual, foreground, background, source_mask, background_mask)
    return {
        "visual": visual,
        "foreground": foreground.where(present.foreground[..., None], 0),
        "background": background.where(present.background[:, None], 0),
    }


def pair_count(count: int, symmetric: bool) -> int:
    """Number of pairs n < m, or n ≠ m, of ``count`` maps."""
    return count * (count - 1) // (2 if symmetric else 1)


def enumerate_pairs(count: int, symmetric: bool, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """List the pairs n < m, or n ≠ m, of ``count`` maps in lexical order, with the same operations for any count.

    Returns:
        n and m of each pair, and the index of the pair of every (n, m), (count, count). The diagonal holds the number
        of pairs.
    """
    maps = torch.arange(count, device=device)
    n, m = maps[:, None], maps
    pair = torch.arange(pair_count(count, symmetric), device=device)
    if symmetric:
        begin = maps * (2 * count - 1 - maps) // 2  # index of the first pair of each n
        first = (pair[:, None] >= begin[1:]).sum(1)
        second = pair - begin[first] + first + 1
        low, high = torch.minimum(n, m), torch.maximum(n, m)
        index = begin[low] + high - low - 1
    else:
        first, rest = pair // (count - 1), pair % (count - 1)
        second = rest + (rest >= first)
        index = n * (count - 1) + m - (m > n).long()
    return first, second, index.where(n != m, pair.shape[0])


def _flat_potentials(init: Potentials | None, shape: tuple[int, int, int]) -> Potentials | None:
    if init is None:
        return None
    f, g = init
    if f.shape != shape or g.shape != shape:
        raise ValueError(
            f"Expected `init` to hold potentials of shape {shape}, but got {tuple(f.shape)} and {tuple(g.shape)}"
        )
    return f.flatten(0, 1), g.flatten(0, 1)
