"""Object region separation, a variant of ORI by this library that constant maps do not satisfy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from sslosses._checks import check_number, check_option
from sslosses._torch import autocast_off, safe_divisor
from sslosses.losses._gathering import check_gathering, gathers
from sslosses.losses._module import PairLossModule, without_class_defaults
from sslosses.losses._pairs import PairProblems, has_pair, reference_maps, transport_pairs
from sslosses.losses._reduction import REDUCTIONS, reduce_samples
from sslosses.transport import lazy_grid_cost


class RegionSeparationTerms(NamedTuple):
    """Terms of the separation loss.

    Attributes:
        loss: scalar, or (B,) with ``reduction="none"``.
        distances: (B, K + 1, K + 1), D_W(p_n, p_m) at [n, m], with the background last; 0 on the diagonal and for pairs
            with a padded source.
        converged: scalar bool, whether the solver reached its tolerance on every pair that counts.
        marginal_error: scalar without gradient, the largest marginal error of these pairs.
        potentials: f and g, (B, pairs, H·W) without gradient, for the pairs n < m in the order of
            :func:`itertools.combinations`; 0 for pairs with a padded source. As ``init`` of the next step on the same
            samples they save iterations.
    """

    loss: Tensor
    distances: Tensor
    converged: Tensor
    marginal_error: Tensor
    potentials: tuple[Tensor, Tensor]


def object_region_separation_loss(
    visual: Tensor,
    foreground: Tensor,
    background: Tensor,
    source_mask: Tensor | None = None,
    background_mask: Tensor | None = None,
    *,
    margin: float = 0.2,
    temperature: float = 0.1,
    solver: Any = "auto",
    epsilon: float = 0.05,
    max_iter: int = 100,
    tol: float = 1e-2,
    kind: str = "divergence",
    gradient: str = "exact",
    reduction: str = "mean",
    scaling: float | None = None,
    init: tuple[Tensor, Tensor] | None = None,
    gather_distributed: bool | None = None,
) -> RegionSeparationTerms:
    r"""Computes the object region separation loss, which pushes any two maps at least a margin apart on the grid.

    .. math::
        \mathcal{L} = \sum_{n < m} \max(0, \mathrm{margin} - D_W(p_n, p_m)), \quad
        p_n = \mathrm{softmax}(S_n / \mathrm{temperature}), \quad S = \mathrm{Sim}(F_v, [F_r^p, l_r^n])

    F_v are the visual features, F_r^p the K foreground references, l_r^n the background reference, and S_n the
    similarity map of reference n. The softmax is over the pixels. D_W is the transport distance with the cost
    :math:`C[x, y] = \|\mathrm{pos}(x) - \mathrm{pos}(y)\|_2` and positions = pixel centers / max(H, W).

    This loss is not in the paper; :func:`object_region_isolation_loss` is. Equal maps, constant maps included, have the
    largest loss: the margin per pair. Their gradient is 0 up to the solver's tolerance, as at any maximum, but every
    difference between the maps grows from there. The loss does not depend on the audio, nor on where the objects are:
    it only asks that the maps lie in different places.

    Args:
        visual: (B, C, H, W), floating, visual features F_v.
        foreground: (B, K, C), floating, one reference per caption of a sounding object.
        background: (B, C), floating, the reference of the background caption.
        source_mask: (B, K) bool, True for references that exist, False for padding; None if all exist.
        background_mask: (B,) bool, True for samples with a background caption; None if all have one. The values of
            ``background`` do not matter for the others. Their pairs are those of their foreground references alone.
            A sample without a pair is left out of the reduction: without a foreground reference, or with a single one
            and no background.
        margin: in the units of the positions, above 0. Three single pixels of a square grid can be 0.95 apart; three
            maps that cover objects and the rest of the picture about 0.3.
        temperature: divides the maps before the softmax, above 0.
        solver: a name that :func:`sslosses.transport.available` lists, or an object with the same protocol.
        epsilon: ε of the entropic problem, in the units of the cost, at least 0. 0 needs the exact solver.
        max_iter: largest number of Sinkhorn iterations, at least 1.
        tol: L1 marginal error at which the iterations stop, above 0. The error of the gradient is at most 6 % at the
            default (measured). With a smaller tolerance, it falls in proportion.
        kind: ``"divergence"``, the debiased Sinkhorn divergence, which equals ``"transport"`` at ε = 0;
            ``"transport"``, Cuturi's Sinkhorn distance ⟨P, C⟩; or ``"regularized"``, the minimum itself. The last two
            are above 0 between equal maps and reach the margin there if ε is large.
        gradient: ``"exact"``, ``"envelope"`` (an approximation for ``kind="transport"``, exact otherwise) or
            ``"unrolled"``; see :mod:`sslosses.transport`.
        reduction: ``"mean"`` or ``"sum"`` over the samples with a pair, or ``"none"``: (B,), 0 for the other samples.
        scaling: ratio of ε-scaling, see :func:`sslosses.transport.solve`; it saves iterations for small ε.
        init: ``potentials`` of an earlier call to start from. They must have the same shape, but may come from other
            inputs. The self problems of ``kind="divergence"`` do not use them.
        gather_distributed: whether the mean or sum is over the samples of all processes, so that the loss and (with
            DistributedDataParallel) its gradient are those of one process that holds the whole batch; see
            :mod:`sslosses.distributed`. None: not chosen.

    Returns:
        :class:`RegionSeparationTerms`; float64 if an input is, else float32. Without any pair in the batch the loss is
        a zero that keeps its graph. A sample with NaN or inf has a loss of NaN and counts as not converged. The
        function does not warn if the solver did not converge: see ``converged``.

    Raises:
        TypeError: if an input has the wrong type or dtype, or an option has the wrong type.
        ValueError: if shapes or devices do not fit, or an option is out of range or unknown.

    Source: this library; the maps are those of Um et al., "Object-aware Sound Source Localization via Audio-Visual
    Scene Understanding", Eq. 7.

    Example:
        >>> import torch
        >>> visual = torch.eye(2).reshape(1, 2, 1, 2)  # the left pixel shows (1, 0), the right one (0, 1)
        >>> left, right = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> object_region_separation_loss(visual, left[:, None], left).loss  # equal maps cost the margin
        tensor(0.2000)
        >>> object_region_separation_loss(visual, left[:, None], right).loss  # maps in different places cost nothing
        tensor(0.)
    """
    maps, present = reference_maps(visual, foreground, background, source_mask, background_mask, gradient)
    return separate(
        maps,
        present,
        margin=margin,
        temperature=temperature,
        solver=solver,
        epsilon=epsilon,
        max_iter=max_iter,
        tol=tol,
        kind=kind,
        gradient=gradient,
        reduction=reduction,
        scaling=scaling,
        init=init,
        gather_distributed=gather_distributed,
    )


def separate(
    maps: Tensor,
    present: Tensor,
    *,
    margin: float,
    temperature: float,
    reduction: str,
    gather_distributed: bool | None,
    **options: Any,
) -> RegionSeparationTerms:
    """Compute the terms from the maps of all references (B, K + 1, H, W), and which are present, (B, K + 1) bool."""
    margin, temperature = _check_options(margin, temperature, reduction, gather_distributed)
    gather = reduction != "none" and gathers(gather_distributed, "object_region_separation_loss")
    height, width = maps.shape[-2:]

    def make_problems(sources: Tensor, targets: Tensor) -> PairProblems:
        cost = lazy_grid_cost(height, width, dtype=maps.dtype, device=maps.device)
        divisor = safe_divisor(temperature, maps.dtype)
        a, b = (sources / divisor).softmax(-1), (targets / divisor).softmax(-1)
        return PairProblems(cost, a, b, (cost, cost))

    with autocast_off(maps):
        pairs = transport_pairs(maps, present, make_problems, symmetric=True, **options)
        counted = (present[:, :, None] & present[:, None]).triu(1)
        hinge = (margin - pairs.distances).relu().where(counted, 0)
        loss = reduce_samples(hinge.sum((1, 2)), has_pair(present), reduction, all_processes=gather)
    return RegionSeparationTerms(loss, *pairs)


def _check_options(
    margin: float, temperature: float, reduction: str, gather_distributed: bool | None
) -> tuple[float, float]:
    """Check the options, and return the margin and the temperature as Python numbers."""
    margin = check_number("margin", margin, above=0)
    temperature = check_number("temperature", temperature, above=0)
    check_option("reduction", reduction, REDUCTIONS)
    check_gathering(gather_distributed)
    return margin, temperature


@without_class_defaults
@dataclass(kw_only=True, eq=False, repr=False)
class ObjectRegionSeparationLoss(PairLossModule):
    """Computes :func:`object_region_separation_loss`, whose options are the arguments.

    Warns once per instance if the solver did not converge (not inside ``torch.compile``).

    Args:
        warm_start: whether each call starts from the potentials of the last one, if that had the same shape; see
            :class:`ObjectRegionIsolationLoss`.

    Raises:
        TypeError: if an option has the wrong type.
        ValueError: if an option is out of range or unknown.

    Example:
        >>> import torch
        >>> separation = ObjectRegionSeparationLoss(margin=0.3)
        >>> visual, left = torch.eye(2).reshape(1, 2, 1, 2), torch.tensor([[1.0, 0.0]])
        >>> separation(visual, left[:, None], left)  # equal maps cost the margin
        tensor(0.3000)
    """

    _function = staticmethod(object_region_separation_loss)
    _of_maps = staticmethod(separate)

    margin: float = 0.2
    temperature: float = 0.1
    solver: Any = "auto"
    epsilon: float = 0.05
    max_iter: int = 100
    tol: float = 1e-2
    kind: str = "divergence"
    gradient: str = "exact"
    reduction: str = "mean"
    scaling: float | None = None
    gather_distributed: bool | None = None
    warm_start: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_options(self.margin, self.temperature, self.reduction, self.gather_distributed)
