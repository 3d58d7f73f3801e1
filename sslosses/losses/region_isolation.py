"""Object region isolation (ORI), Eq. 7 and Algorithm 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from sslosses._checks import check_number, check_option
from sslosses._torch import autocast_off
from sslosses.losses._gathering import check_gathering, gathers
from sslosses.losses._module import PairLossModule, without_class_defaults
from sslosses.losses._pairs import PairProblems, has_pair, reference_maps, transport_pairs
from sslosses.losses._reduction import REDUCTIONS, reduce_samples
from sslosses.transport import grid_positions, lazy_grid_cost, pointcloud_cost

FORMULATIONS = ("pointcloud", "distribution")
NORMALIZATIONS = ("softmax", "relu", "shift")


class RegionIsolationTerms(NamedTuple):
    """Terms of the ORI loss.

    Attributes:
        loss: scalar, or (B,) with ``reduction="none"``.
        distances: (B, K + 1, K + 1), D_W(S_n, 1 - S_m) at [n, m], with the background last; 0 on the diagonal and for
            pairs with a padded source.
        converged: scalar bool, whether the solver reached its tolerance on every pair that counts.
        marginal_error: scalar without gradient, the largest marginal error of these pairs.
        potentials: f and g, (B, pairs, H·W) without gradient, for the pairs n < m in the order of
            :func:`itertools.combinations`, or with ``formulation="distribution"`` for the pairs n ≠ m in the order of
            :func:`itertools.permutations`; 0 for pairs with a padded source. As ``init`` of the next step on the same
            samples they save iterations.
    """

    loss: Tensor
    distances: Tensor
    converged: Tensor
    marginal_error: Tensor
    potentials: tuple[Tensor, Tensor]


def object_region_isolation_loss(
    visual: Tensor,
    foreground: Tensor,
    background: Tensor,
    source_mask: Tensor | None = None,
    background_mask: Tensor | None = None,
    *,
    solver: Any = "auto",
    epsilon: float = 0.05,
    max_iter: int = 100,
    tol: float | None = None,
    formulation: str = "pointcloud",
    kind: str = "transport",
    gradient: str = "exact",
    normalize: str = "softmax",
    value_weight: float = 1.0,
    position_weight: float = 1.0,
    reduction: str = "mean",
    scaling: float | None = None,
    init: tuple[Tensor, Tensor] | None = None,
    gather_distributed: bool | None = None,
) -> RegionIsolationTerms:
    r"""Computes the object region isolation loss, which pulls each map toward the complement of every other.

    .. math::
        \mathcal{L}_{ori} = \sum_{n \ne m} D_W(S_n, 1 - S_m), \quad S = \mathrm{Sim}(F_v, [F_r^p, l_r^n])

    F_v are the visual features, F_r^p the K foreground references, l_r^n the background reference, and S_n the
    similarity map of reference n. n and m run over the references that exist. The paper leaves open what the transport
    distance D_W compares:

    - ``formulation="pointcloud"`` (described in the supplement): every pixel is a point of mass 1/N, and

      .. math::
          C[x, y] = w_v |S_n(x) - (1 - S_m(y))| + w_s \|\mathrm{pos}(x) - \mathrm{pos}(y)\|_2

      with positions = pixel centers / max(H, W) and the weights w_v and w_s. The distances of (n, m) and (m, n) are
      equal, so only one of them is solved; both are counted.
    - ``formulation="distribution"``: each map, made non-negative and normalized to mass 1, is a measure on the grid,
      and :math:`C[x, y] = \|\mathrm{pos}(x) - \mathrm{pos}(y)\|_2`. All ordered pairs are solved.

    ORI alone does not localize: constant maps S ≡ 1/2 satisfy every pair. It is a regularizer beside OCA. The loss does
    not depend on the audio. :func:`object_region_separation_loss` is a variant that constant maps do not satisfy.

    Args:
        visual: (B, C, H, W), floating, visual features F_v.
        foreground: (B, K, C), floating, one reference per caption of a sounding object.
        background: (B, C), floating, the reference of the background caption.
        source_mask: (B, K) bool, True for references that exist, False for padding; None if all exist.
        background_mask: (B,) bool, True for samples with a background caption; None if all have one. The values of
            ``background`` do not matter for the others. Their pairs are those of their foreground references alone.
            A sample without a pair is left out of the reduction: without a foreground reference, or with a single one
            and no background.
        solver: a name that :func:`sslosses.transport.available` lists, or an object with the same protocol.
        epsilon: ε of the entropic problem, in the units of the cost, at least 0. 0 needs the exact solver.
        max_iter: largest number of Sinkhorn iterations, at least 1.
        tol: L1 marginal error at which the iterations stop, above 0. None: 1e-2 for ``"pointcloud"`` and 1e-3 for
            ``"distribution"``. The error of the gradient is then at most 3 % and 8 % (measured). With a smaller
            tolerance, it falls in proportion.
        formulation: ``"pointcloud"`` or ``"distribution"``.
        kind: ``"transport"``, Cuturi's Sinkhorn distance ⟨P, C⟩; ``"regularized"``, the minimum itself; or
            ``"divergence"``, the debiased Sinkhorn divergence, which equals ``"transport"`` at ε = 0.
        gradient: ``"exact"``, ``"envelope"`` (an approximation for ``kind="transport"``, exact otherwise) or
            ``"unrolled"``; see :mod:`sslosses.transport`.
        normalize: how ``"distribution"`` turns maps into measures: ``"softmax"`` over the pixels; or ``"relu"`` or
            ``"shift"`` (minus the smallest value), divided by the sum, uniform where the sum is 0.
        value_weight: w_v, at least 0.
        position_weight: w_s, at least 0.
        reduction: ``"mean"`` or ``"sum"`` (Eq. 7 as printed) over the samples with a pair, or ``"none"``: (B,), 0 for
            the other samples.
        scaling: ratio of ε-scaling, see :func:`sslosses.transport.solve`; it saves iterations for small ε.
        init: ``potentials`` of an earlier call to start from. They must have the same shape, but may come from other
            inputs. The self problems of ``kind="divergence"`` do not use them.
        gather_distributed: whether the mean or sum is over the samples of all processes, so that the loss and (with
            DistributedDataParallel) its gradient are those of one process that holds the whole batch; see
            :mod:`sslosses.distributed`. None: not chosen.

    Returns:
        :class:`RegionIsolationTerms`; float64 if an input is, else float32. Without any pair in the batch the loss is a
        zero that keeps its graph. A sample with NaN or inf has a loss of NaN and counts as not converged. The function
        does not warn if the solver did not converge: see ``converged``.

    Raises:
        TypeError: if an input has the wrong type or dtype, or an option has the wrong type.
        ValueError: if shapes or devices do not fit, or an option is out of range or unknown.

    Source: Um et al., "Object-aware Sound Source Localization via Audio-Visual Scene Understanding", Eq. 7, Algorithm 1
    and supplement 6.

    Example:
        >>> import torch
        >>> visual = torch.eye(2).reshape(1, 2, 1, 2)  # the left pixel shows (1, 0), the right one (0, 1)
        >>> left, right = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> apart = object_region_isolation_loss(visual, left[:, None], right, epsilon=0.02)
        >>> print(f"{apart.loss:.3f}")  # S_1 = 1 - S_2: each map is the other's complement
        0.000
        >>> object_region_isolation_loss(visual, left[:, None], left, epsilon=0.02).distances
        tensor([[[0.0000, 0.5000],
                 [0.5000, 0.0000]]])
    """
    maps, present = reference_maps(visual, foreground, background, source_mask, background_mask, gradient)
    return isolate(
        maps,
        present,
        solver=solver,
        epsilon=epsilon,
        max_iter=max_iter,
        tol=tol,
        formulation=formulation,
        kind=kind,
        gradient=gradient,
        normalize=normalize,
        value_weight=value_weight,
        position_weight=position_weight,
        reduction=reduction,
        scaling=scaling,
        init=init,
        gather_distributed=gather_distributed,
    )


def isolate(
    maps: Tensor,
    present: Tensor,
    *,
    tol: float | None,
    formulation: str,
    normalize: str,
    value_weight: float,
    position_weight: float,
    reduction: str,
    gather_distributed: bool | None,
    **options: Any,
) -> RegionIsolationTerms:
    """Compute the terms from the maps of all references (B, K + 1, H, W), and which are present, (B, K + 1) bool."""
    _check_options(formulation, normalize, value_weight, position_weight, reduction, gather_distributed)
    gather = reduction != "none" and gathers(gather_distributed, "object_region_isolation_loss")
    height, width = maps.shape[-2:]

    def make_problems(sources: Tensor, targets: Tensor) -> PairProblems:
        targets = 1 - targets
        if formulation == "pointcloud":
            positions = grid_positions(height, width, dtype=maps.dtype, device=maps.device)
            cost = pointcloud_cost(sources, targets, positions, positions, value_weight, position_weight)
            return PairProblems(cost, None, None, cost.self_costs())
        cost = lazy_grid_cost(height, width, dtype=maps.dtype, device=maps.device)
        return PairProblems(cost, _measure(sources, normalize), _measure(targets, normalize), (cost, cost))

    with autocast_off(maps):
        pairs = transport_pairs(
            maps,
            present,
            make_problems,
            symmetric=_symmetric(formulation),
            tol=_tolerance(formulation) if tol is None else tol,
            **options,
        )
        loss = reduce_samples(pairs.distances.sum((1, 2)), has_pair(present), reduction, all_processes=gather)
    return RegionIsolationTerms(loss, *pairs)


def _check_options(
    formulation: str,
    normalize: str,
    value_weight: float,
    position_weight: float,
    reduction: str,
    gather_distributed: bool | None,
) -> None:
    check_option("formulation", formulation, FORMULATIONS)
    check_option("normalize", normalize, NORMALIZATIONS)
    check_number("value_weight", value_weight, least=0)
    check_number("position_weight", position_weight, least=0)
    check_option("reduction", reduction, REDUCTIONS)
    check_gathering(gather_distributed)


def _tolerance(formulation: str) -> float:
    # The marginals are the maps in "distribution", so that its gradient is as wrong as they are.
    return 1e-2 if formulation == "pointcloud" else 1e-3


def _symmetric(formulation: str) -> bool:
    """Whether the distances of (n, m) and (m, n) are equal."""
    return formulation == "pointcloud"


def _measure(values: Tensor, normalize: str) -> Tensor:
    """Make values (P, N) non-negative with sum 1."""
    if normalize == "softmax":
        return values.softmax(-1)
    values = values.relu() if normalize == "relu" else values - values.amin(-1, keepdim=True)
    mass = values.sum(-1, keepdim=True)
    empty = mass == 0
    return (values / mass.masked_fill(empty, 1)).masked_fill(empty, 1 / values.shape[-1])


@without_class_defaults
@dataclass(kw_only=True, eq=False, repr=False)
class ObjectRegionIsolationLoss(PairLossModule):
    """Computes :func:`object_region_isolation_loss`, whose options are the arguments. Also named ``ORILoss``.

    Warns once per instance if the solver did not converge (not inside ``torch.compile``).

    Args:
        warm_start: whether each call starts from the potentials of the last one, if that had the same shape. It saves
            iterations if the same samples come in the same order, for example whole batches or repeated steps on one
            batch. The potentials are not part of the state dict. Needs a solver that can start from potentials, and no
            ``scaling``.

    Raises:
        TypeError: if an option has the wrong type.
        ValueError: if an option is out of range or unknown.

    Example:
        >>> import torch
        >>> ori = ObjectRegionIsolationLoss(epsilon=0.02)
        >>> visual, left = torch.eye(2).reshape(1, 2, 1, 2), torch.tensor([[1.0, 0.0]])
        >>> print(f"{ori(visual, left[:, None], left):.4f}")
        1.0000
    """

    _function = staticmethod(object_region_isolation_loss)
    _of_maps = staticmethod(isolate)

    solver: Any = "auto"
    epsilon: float = 0.05
    max_iter: int = 100
    tol: float | None = None
    formulation: str = "pointcloud"
    kind: str = "transport"
    gradient: str = "exact"
    normalize: str = "softmax"
    value_weight: float = 1.0
    position_weight: float = 1.0
    reduction: str = "mean"
    scaling: float | None = None
    gather_distributed: bool | None = None
    warm_start: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_options(
            self.formulation,
            self.normalize,
            self.value_weight,
            self.position_weight,
            self.reduction,
            self.gather_distributed,
        )

    def _tolerance(self) -> float:
        return _tolerance(self.formulation) if self.tol is None else self.tol

    def _symmetric(self) -> bool:
        return _symmetric(self.formulation)
