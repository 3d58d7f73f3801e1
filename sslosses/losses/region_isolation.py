"""Object region isolation (ORI), Eq. 7 and Algorithm 1."""

from __future__ import annotations

import warnings
from itertools import combinations, permutations
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sslosses._checks import at_least_float32, check_count, check_number, check_option
from sslosses._precision import autocast_off
from sslosses.losses._inputs import check_references
from sslosses.losses._reduction import REDUCTIONS, reduce_samples
from sslosses.similarity import similarity_map
from sslosses.transport import ConvergenceWarning, check_solver, grid_positions, lazy_grid_cost, pointcloud_cost, solve

FORMULATIONS = ("pointcloud", "distribution")
VALUES = ("transport", "regularised", "divergence")
GRADIENTS = ("exact", "envelope", "unrolled")
NORMALISATIONS = ("softmax", "relu", "shift")


class RegionIsolationTerms(NamedTuple):
    """Terms of the ORI loss.

    Attributes:
        loss: scalar, or (B,) with ``reduction="none"``.
        distances: (B, K + 1, K + 1), D_W(S_n, 1 - S_m) at [n, m], the background last; 0 where a padded source takes
            part and on the diagonal.
        converged: scalar bool, whether the solver reached its tolerance on every pair that counts.
        marginal_error: scalar without gradient, the largest marginal error of these pairs.
    """

    loss: Tensor
    distances: Tensor
    converged: Tensor
    marginal_error: Tensor


class _Options(NamedTuple):
    solver: Any
    epsilon: float
    max_iter: int
    tol: float
    formulation: str
    value: str
    gradient: str
    normalise: str
    value_weight: float
    position_weight: float
    reduction: str

    def check(self) -> None:
        check_number("epsilon", self.epsilon, least=0)
        check_count("max_iter", self.max_iter)
        check_number("tol", self.tol, above=0)
        check_option("formulation", self.formulation, FORMULATIONS)
        check_option("value", self.value, VALUES)
        check_option("gradient", self.gradient, GRADIENTS)
        check_option("normalise", self.normalise, NORMALISATIONS)
        check_number("value_weight", self.value_weight, least=0)
        check_number("position_weight", self.position_weight, least=0)
        check_option("reduction", self.reduction, REDUCTIONS)
        check_solver(self.solver, epsilon=self.epsilon, gradient=self.gradient)


def object_region_isolation_loss(
    visual: Tensor,
    foreground: Tensor,
    background: Tensor,
    source_mask: Tensor | None = None,
    *,
    solver: Any = "auto",
    epsilon: float = 0.05,
    max_iter: int = 100,
    tol: float = 1e-3,
    formulation: str = "pointcloud",
    value: str = "transport",
    gradient: str = "exact",
    normalise: str = "softmax",
    value_weight: float = 1.0,
    position_weight: float = 1.0,
    reduction: str = "mean",
) -> RegionIsolationTerms:
    r"""Push the similarity maps of a sample's references apart, each towards the complement of every other.

    .. math::
        \mathcal{L}_{ori} = \sum_{n \ne m} D_W(S_n, 1 - S_m), \quad S = \mathrm{Sim}(F_v, [F_r^p, l_r^n])

    over the K real foreground references and the background reference. What D_W compares, the paper leaves open:

    - ``formulation="pointcloud"`` (the supplement's description): every pixel is a point of mass 1/N, and
      :math:`C[x, y] = w_v |S_n(x) - (1 - S_m(y))| + w_s \|\mathrm{pos}(x) - \mathrm{pos}(y)\|_2` with positions = pixel
      centres / max(H, W). The distances of (n, m) and (m, n) are equal here: half are solved, all are counted.
    - ``formulation="distribution"``: each map, made non-negative and normalised to mass 1, is a measure on the grid,
      and :math:`C[x, y] = \|\mathrm{pos}(x) - \mathrm{pos}(y)\|_2`. All ordered pairs are solved.

    As printed, constant maps S ≡ 1/2 satisfy every pair: alone the loss does not localise, it is a regulariser beside
    OCA. It does not see the audio.

    Args:
        visual: (B, C, H, W), floating, visual features F_v.
        foreground: (B, K, C), floating, one reference a caption of a sounding object.
        background: (B, C), floating, reference of the background caption.
        source_mask: (B, K) bool, which of the K references are real; all if None. A sample without any has no pair
            and is left out of the reduction.
        solver: a name that :func:`sslosses.transport.available` lists, or an object with the same protocol.
        epsilon: ε of the entropic problem, in the units of the cost; 0 for the exact solver and only there.
        max_iter: bound on the Sinkhorn iterations.
        tol: L1 marginal error at which they stop.
        formulation: ``"pointcloud"`` or ``"distribution"``.
        value: ``"transport"``, Cuturi's Sinkhorn distance ⟨P, C⟩; ``"regularised"``, the minimum itself;
            ``"divergence"``, the debiased Sinkhorn divergence.
        gradient: ``"exact"``, ``"envelope"`` (exact for ``value="regularised"``, an approximation otherwise) or
            ``"unrolled"``; see :mod:`sslosses.transport`.
        normalise: how ``"distribution"`` makes measures of maps: ``"softmax"`` over the pixels, ``"relu"`` or
            ``"shift"`` (minus the least value), both divided by the sum, uniform where that is 0.
        value_weight: w_v of ``"pointcloud"``, at least 0.
        position_weight: w_s of ``"pointcloud"``, at least 0.
        reduction: ``"mean"`` or ``"sum"`` (Eq. 7 as printed) over the samples with a real source, or ``"none"``:
            (B,), 0 for the others.

    Returns:
        :class:`RegionIsolationTerms`; float64 if an input is, else float32. With no pair in the batch the loss is a
        zero that keeps its graph. Whether the solver converged is in the result, nothing warns.

    Raises:
        TypeError: if an input has the wrong type or dtype, or an option has the wrong type.
        ValueError: if shapes or devices do not fit or an option is out of range or unknown.

    Source: Um et al., "Object-aware Sound Source Localization via Audio-Visual Scene Understanding", Eq. 7, Algorithm 1
    and supplement 6.

    Example:
        >>> visual = torch.eye(2).reshape(1, 2, 1, 2)  # the left pixel shows (1, 0), the right one (0, 1)
        >>> left, right = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> apart = object_region_isolation_loss(visual, left[:, None], right, epsilon=0.02)
        >>> print(f"{apart.loss:.3f}")  # S_1 = 1 - S_2: each map is the other's complement
        0.000
        >>> object_region_isolation_loss(visual, left[:, None], left, epsilon=0.02).distances
        tensor([[[0.0000, 0.5000],
                 [0.5000, 0.0000]]])
    """
    options = _Options(
        solver,
        epsilon,
        max_iter,
        tol,
        formulation,
        value,
        gradient,
        normalise,
        value_weight,
        position_weight,
        reduction,
    )
    options.check()
    real = check_references(visual, foreground, background, source_mask)
    visual, foreground, background = at_least_float32(visual, foreground, background)
    with autocast_off(visual):
        # Whatever stands in a padded reference, NaN included, stays out of the gradient.
        references = torch.cat([foreground.where(real[..., None], 0), background[:, None]], dim=1)
        maps = similarity_map(visual, references)
        distances, converged, error = _all_pairs(maps, real, options)
        loss = reduce_samples(distances.sum((1, 2)), real.any(1), reduction)
    return RegionIsolationTerms(loss, distances, converged, error)


def _all_pairs(maps: Tensor, real: Tensor, options: _Options) -> tuple[Tensor, Tensor, Tensor]:
    """D_W(S_n, 1 - S_m) of maps (B, S, H, W) as (B, S, S), whether all solves converged, and their largest error."""
    batch, count, height, width = maps.shape
    symmetric = options.formulation == "pointcloud"
    pairs = list((combinations if symmetric else permutations)(range(count), 2))
    first, second = [n for n, _ in pairs], [m for _, m in pairs]
    present = torch.cat([real, real.new_ones(batch, 1)], dim=1)
    counted = (present[:, first] & present[:, second]).flatten()
    flat = maps.flatten(2)
    source, target = flat[:, first].flatten(0, 1), 1 - flat[:, second].flatten(0, 1)
    # Eagerly only the pairs that count are solved; a compiled graph has no sizes that depend on data.
    rows = None if torch.compiler.is_compiling() else counted.nonzero()[:, 0]
    if rows is not None:
        source, target = source[rows], target[rows]
    solved = _transport(source, target, height, width, options)
    if rows is not None:
        values = maps.new_zeros(batch * len(pairs)).index_put((rows,), solved.values)
        converged, error = solved.converged.all(), solved.errors
    else:
        values = solved.values.where(counted, 0)
        converged, error = (solved.converged | ~counted).all(), solved.errors.where(counted, 0)

    # An extra column of zeros serves the diagonal.
    column = {pair: index for index, pair in enumerate(pairs)}
    if symmetric:
        column.update({(m, n): index for (n, m), index in column.items()})
    place = [[column.get((n, m), len(pairs)) for m in range(count)] for n in range(count)]
    zero = values.new_zeros(batch, 1)
    distances = torch.cat([values.view(batch, len(pairs)), zero], dim=1)[:, place]
    return distances, converged, torch.cat([error.detach(), error.new_zeros(1)]).max()


class _Solved(NamedTuple):
    values: Tensor
    converged: Tensor
    errors: Tensor


def _transport(source: Tensor, target: Tensor, height: int, width: int, options: _Options) -> _Solved:
    """Distances (P,) between the rows of source and target, both (P, height * width)."""
    if source.shape[0] == 0:
        return _Solved(source.sum(1), source.sum(1) >= 0, source.detach().sum(1))
    weights: tuple[Tensor | None, Tensor | None]
    if options.formulation == "pointcloud":
        positions = grid_positions(height, width, dtype=source.dtype, device=source.device)
        cost: Any = pointcloud_cost(source, target, positions, positions, options.value_weight, options.position_weight)
        weights, self_costs = (None, None), cost.self_costs()
    else:
        cost = lazy_grid_cost(height, width, dtype=source.dtype, device=source.device)
        weights, self_costs = (_measure(source, options.normalise), _measure(target, options.normalise)), (cost, cost)
    result = solve(
        cost,
        *weights,
        epsilon=options.epsilon,
        solver=options.solver,
        max_iter=options.max_iter,
        tol=options.tol,
        gradient=options.gradient,
        self_costs=self_costs if options.value == "divergence" else None,
    )
    converged, errors = result.converged, result.marginal_error
    for own in result.self_results or ():
        converged, errors = converged & own.converged, errors.maximum(own.marginal_error)
    return _Solved(result.value(kind=options.value, gradient=options.gradient), converged, errors)


def _measure(values: Tensor, normalise: str) -> Tensor:
    """Make values (P, N) non-negative with sum 1."""
    if normalise == "softmax":
        return values.softmax(-1)
    values = values.relu() if normalise == "relu" else values - values.amin(-1, keepdim=True)
    mass = values.sum(-1, keepdim=True)
    empty = mass == 0
    return (values / mass.masked_fill(empty, 1)).masked_fill(empty, 1 / values.shape[-1])


class ObjectRegionIsolationLoss(nn.Module):
    """Module over :func:`object_region_isolation_loss`; the arguments are its options. Also named ``ORILoss``.

    Warns once per instance if the solver did not converge (not inside ``torch.compile``).

    Raises:
        TypeError: if an option has the wrong type.
        ValueError: if an option is out of range or unknown.

    Example:
        >>> import torch
        >>> ori = ObjectRegionIsolationLoss(epsilon=0.02)
        >>> visual, left = torch.eye(2).reshape(1, 2, 1, 2), torch.tensor([[1.0, 0.0]])
        >>> ori(visual, left[:, None], left)
        tensor(1.0000)
    """

    def __init__(
        self,
        *,
        solver: Any = "auto",
        epsilon: float = 0.05,
        max_iter: int = 100,
        tol: float = 1e-3,
        formulation: str = "pointcloud",
        value: str = "transport",
        gradient: str = "exact",
        normalise: str = "softmax",
        value_weight: float = 1.0,
        position_weight: float = 1.0,
        reduction: str = "mean",
    ) -> None:
        """Check and keep the options."""
        super().__init__()
        _Options(
            solver,
            epsilon,
            max_iter,
            tol,
            formulation,
            value,
            gradient,
            normalise,
            value_weight,
            position_weight,
            reduction,
        ).check()
        self.solver = solver
        self.epsilon = epsilon
        self.max_iter = max_iter
        self.tol = tol
        self.formulation = formulation
        self.value = value
        self.gradient = gradient
        self.normalise = normalise
        self.value_weight = value_weight
        self.position_weight = position_weight
        self.reduction = reduction
        self._warned = False

    def forward(
        self, visual: Tensor, foreground: Tensor, background: Tensor, source_mask: Tensor | None = None
    ) -> Tensor:
        """The ORI loss of a batch: a scalar, or (B,) with ``reduction="none"``."""
        terms = object_region_isolation_loss(
            visual,
            foreground,
            background,
            source_mask,
            solver=self.solver,
            epsilon=self.epsilon,
            max_iter=self.max_iter,
            tol=self.tol,
            formulation=self.formulation,
            value=self.value,
            gradient=self.gradient,
            normalise=self.normalise,
            value_weight=self.value_weight,
            position_weight=self.position_weight,
            reduction=self.reduction,
        )
        if not torch.compiler.is_compiling() and not self._warned and not bool(terms.converged):
            self._warned = True
            warnings.warn(
                f"Transport problems of {type(self).__name__} did not converge within max_iter={self.max_iter}: the "
                f"marginal error is up to {float(terms.marginal_error):.2g}, tol is {self.tol:g}. Raise max_iter or "
                f"epsilon, or accept the error by raising tol. Shown once per instance.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return terms.loss

    def extra_repr(self) -> str:
        """The options, for printing."""
        return (
            f"solver={self.solver!r}, epsilon={self.epsilon}, max_iter={self.max_iter}, tol={self.tol}, "
            f"formulation={self.formulation!r}, value={self.value!r}, gradient={self.gradient!r}, "
            f"normalise={self.normalise!r}, value_weight={self.value_weight}, "
            f"position_weight={self.position_weight}, reduction={self.reduction!r}"
        )
