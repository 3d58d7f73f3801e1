"""The training objective, Eq. 8: a weighted sum of OCA, ORI and the tri-map baseline."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Never

import torch
from torch import Tensor, nn

from sslosses._checks import check_floating, check_number
from sslosses._passes import is_plain
from sslosses.losses._gathering import check_gathering, warn_if_not_gathered
from sslosses.losses._module import LossModule
from sslosses.losses._shared import can_share, is_oca, is_of_maps, shared_losses
from sslosses.losses.object_aware import ObjectAwareContrastiveLoss
from sslosses.losses.region_isolation import ObjectRegionIsolationLoss
from sslosses.losses.trimap import TriMapContrastiveLoss


class ObjectiveTerms(NamedTuple):
    """Terms of the objective, for logging.

    Attributes:
        total: the weighted sum.
        trimap: the tri-map loss without its weight, or a zero without graph if the weight is 0.
        oca: the same for the OCA loss.
        ori: the same for the ORI loss.
    """

    total: Tensor
    trimap: Tensor
    oca: Tensor
    ori: Tensor


class ObjectAwareObjective(nn.Module):
    r"""Computes the weighted sum of the losses.

    .. math:: \mathcal{L} = \lambda_0 \mathcal{L}_{trimap} + \lambda_1 \mathcal{L}_{oca} + \lambda_2 \mathcal{L}_{ori}

    λ₀, λ₁ and λ₂ are the weights. The default is the paper's objective, λ = (0, 1, 0.1). The row of its Table 3 without
    OCA and ORI is λ = (1, 0, 0). The weights are plain attributes: a schedule may change them between steps. A loss
    with weight 0 is not computed. All inputs stay in the graph of the sum: an encoder that only such a loss needs has
    gradients of 0, so DistributedDataParallel works with any weights.

    Args:
        trimap_weight: λ₀, at least 0.
        oca_weight: λ₁, at least 0.
        ori_weight: λ₂, at least 0.
        trimap: the first loss; ``TriMapContrastiveLoss()`` if None.
        oca: the second loss; ``OCALoss()`` if None.
        ori: the third loss, for example ``ObjectRegionSeparationLoss()``; ``ORILoss()`` if None.
        gather_distributed: sets the option of this name of all losses that have it: whether they are computed on the
            samples of all processes, see :mod:`sslosses.distributed`. None leaves the losses as they are. This is an
            attribute too: assigning True or False sets the option of all losses.

    Raises:
        TypeError: if a weight is not a number, a loss is not a module, or an option is one of a loss: pass
            ``oca=OCALoss(temperature=0.07)``.
        ValueError: if a weight is negative or all weights are 0, if the ``reduction`` of the losses differs, or if a
            loss has the opposite ``gather_distributed``.

    Source: Um et al., "Object-aware Sound Source Localization via Audio-Visual Scene Understanding", Eq. 8.

    Example:
        >>> import torch
        >>> visual = torch.eye(2).reshape(1, 2, 1, 2)
        >>> left, right = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> objective = ObjectAwareObjective(ori=ObjectRegionIsolationLoss(epsilon=0.02))
        >>> objective(visual, left, left[:, None], right)
        tensor(0.3133)
        >>> terms = objective.terms(visual, left, left[:, None], left)
        >>> print(f"{terms.oca:.4f} + 0.1 * {terms.ori:.4f} = {terms.total:.4f}")
        0.8133 + 0.1 * 1.0000 = 0.9133
    """

    def __init__(
        self,
        *,
        trimap_weight: float = 0.0,
        oca_weight: float = 1.0,
        ori_weight: float = 0.1,
        trimap: nn.Module | None = None,
        oca: nn.Module | None = None,
        ori: nn.Module | None = None,
        gather_distributed: bool | None = None,
        **unknown: Never,
    ) -> None:
        super().__init__()
        for name in unknown:
            raise TypeError(f"ObjectAwareObjective got an unexpected keyword argument {name!r}.{_where(name, unknown)}")
        weights = {"trimap_weight": trimap_weight, "oca_weight": oca_weight, "ori_weight": ori_weight}
        for name, weight in weights.items():
            weights[name] = check_number(name, weight, least=0)
        if not any(weights.values()):
            raise ValueError("Expected a weight above 0, but got 0 for all of them")
        for name, loss in (("trimap", trimap), ("oca", oca), ("ori", ori)):
            if loss is not None and not isinstance(loss, nn.Module):
                raise TypeError(f"Expected `{name}` to be a module, but got {loss!r}")
        self.trimap_weight = weights["trimap_weight"]
        self.oca_weight = weights["oca_weight"]
        self.ori_weight = weights["ori_weight"]
        losses = [loss for loss in (trimap, oca, ori) if loss is not None]
        reductions = {getattr(loss, "reduction", "mean") for loss in losses} or {"mean"}
        if len(reductions) > 1:
            raise ValueError(f"Expected losses of one `reduction`, but got {', '.join(sorted(reductions))}")
        (reduction,) = reductions
        self.trimap = TriMapContrastiveLoss(reduction=reduction) if trimap is None else trimap
        self.oca = ObjectAwareContrastiveLoss(reduction=reduction) if oca is None else oca
        self.ori = ObjectRegionIsolationLoss(reduction=reduction) if ori is None else ori
        check_gathering(gather_distributed)
        for name, loss in (("trimap", self.trimap), ("oca", self.oca), ("ori", self.ori)):
            chosen = getattr(loss, "gather_distributed", None)
            if None not in (chosen, gather_distributed) and chosen != gather_distributed:
                raise ValueError(
                    f"Expected `gather_distributed` to be {chosen} as in `{name}`, but got {gather_distributed}"
                )
        self.gather_distributed = gather_distributed

    @property
    def gather_distributed(self) -> bool | None:
        """The last choice that was made for all losses together; None if there was none."""
        return self._gather_distributed

    @gather_distributed.setter
    def gather_distributed(self, value: bool | None) -> None:
        check_gathering(value)
        self._gather_distributed = value
        for loss in (self.trimap, self.oca, self.ori):
            if value is not None and hasattr(loss, "gather_distributed"):
                setattr(loss, "gather_distributed", value)  # noqa: B010 - mypy takes it for a parameter

    def forward(
        self,
        visual: Tensor,
        audio: Tensor,
        foreground: Tensor,
        background: Tensor,
        source_mask: Tensor | None = None,
        background_mask: Tensor | None = None,
    ) -> Tensor:
        """Computes the weighted sum; arguments as in :func:`~sslosses.losses.object_aware_contrastive_loss`."""
        return self.terms(visual, audio, foreground, background, source_mask, background_mask).total

    def terms(
        self,
        visual: Tensor,
        audio: Tensor,
        foreground: Tensor,
        background: Tensor,
        source_mask: Tensor | None = None,
        background_mask: Tensor | None = None,
    ) -> ObjectiveTerms:
        """Computes the weighted sum and its terms.

        Arguments as in :func:`~sslosses.losses.object_aware_contrastive_loss`. A sample without any reference only
        counts in the tri-map term.
        """
        check_floating("visual", visual)
        dtype = torch.float64 if visual.dtype == torch.float64 else torch.float32
        zero = torch.zeros((), dtype=dtype, device=visual.device)
        self._warn_of_processes()
        captions = foreground, background, source_mask
        # By name, and only if there is one: a loss from elsewhere need not know it, and its error names it.
        masks = {} if background_mask is None else {"background_mask": background_mask}
        trimap = self.trimap(visual, audio) if self.trimap_weight else zero
        weighted = self.oca_weight and self.ori_weight
        if weighted and is_oca(self.oca) and is_of_maps(self.ori) and can_share(visual, audio, foreground, background):
            oca, ori = shared_losses(self.oca, self.ori, visual, audio, *captions, background_mask)
        else:
            oca = self.oca(visual, audio, *captions, **masks) if self.oca_weight else zero
            ori = self.ori(visual, *captions, **masks) if self.ori_weight else zero
        total = self.trimap_weight * trimap + self.oca_weight * oca + self.ori_weight * ori
        # DistributedDataParallel fails for parameters outside the graph, for example of an encoder that no loss needs.
        needed = (visual, audio, foreground, background, *self._skipped_parameters())
        for value in _outside(total, [x for x in needed if isinstance(x, Tensor) and x.requires_grad]):
            total = total + _zero_of(value).to(dtype)
        return ObjectiveTerms(total, trimap, oca, ori)

    def _weighted(self) -> tuple[tuple[float, nn.Module], ...]:
        return (self.trimap_weight, self.trimap), (self.oca_weight, self.oca), (self.ori_weight, self.ori)

    def _skipped_parameters(self) -> list[nn.Parameter]:
        return [parameter for weight, loss in self._weighted() if not weight for parameter in loss.parameters()]

    def _warn_of_processes(self) -> None:
        """Warn once, in place of the losses: those with weight 0 too, whose weight may change later."""
        losses = [(weight, loss) for weight, loss in self._weighted() if isinstance(loss, LossModule)]
        undecided = [x for weight, x in losses if weight and x.gather_is_open() and not x.warned_of_processes]
        names = ", ".join([type(loss).__name__ for loss in undecided])
        if undecided and warn_if_not_gathered(f"{type(self).__name__} ({names})"):
            for _, loss in losses:
                loss.warned_of_processes = True

    def extra_repr(self) -> str:
        """Returns the weights, for printing."""
        return f"trimap_weight={self.trimap_weight}, oca_weight={self.oca_weight}, ori_weight={self.ori_weight}"


def _outside(total: Tensor, values: list[Tensor]) -> list[Tensor]:
    """Those of ``values`` that are not in the graph of ``total``; all of them where a graph can't be read."""
    if is_plain(total, *values):
        return values
    edges = {id(x): torch.autograd.graph.get_gradient_edge(x) for x in values}
    ends = {edge.node for edge in edges.values()}
    found: set[tuple[Any, int]] = set()
    seen: set[Any] = set()
    nodes = [total.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or node in seen or node in ends:
            continue
        seen.add(node)
        found.update(node.next_functions)
        nodes.extend(following for following, _ in node.next_functions)
    return [x for x in values if (edges[id(x)].node, edges[id(x)].output_nr) not in found]


def _zero_of(value: Tensor) -> Tensor:
    """A zero with ``value`` in its graph, whatever ``value`` holds."""
    return (value[:0] if value.ndim else value[None][:0]).sum()


def _where(name: str, values: Mapping[str, object]) -> str:
    """Says which loss has the option ``name``, if one has it."""
    losses = {
        "oca": ("OCALoss", ObjectAwareContrastiveLoss),
        "ori": ("ORILoss", ObjectRegionIsolationLoss),
        "trimap": ("TriMapContrastiveLoss", TriMapContrastiveLoss),
    }
    for argument, (short, loss) in losses.items():
        if name in {field.name for field in dataclasses.fields(loss)}:
            return f" It is an option of a loss: pass {argument}={short}({name}={values[name]!r})"
    return ""
