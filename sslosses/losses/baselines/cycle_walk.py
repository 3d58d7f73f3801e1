"""The cycle walk loss of Mix-and-Localize: a walk from a sound to a frame and back has to return."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sslosses._checks import check_flag, check_floating, check_mask, check_number, check_option, check_shapes
from sslosses._torch import at_least_float32, autocast_off, safe_divisor
from sslosses.losses._gathering import check_gathering, gathers
from sslosses.losses._inputs import finite_samples
from sslosses.losses._module import LossModule
from sslosses.losses._reduction import REDUCTIONS, reduce_samples
from sslosses.similarity import similarity_map


class CycleWalkTerms(NamedTuple):
    """Terms of the cycle walk: scalars, or (B,) with ``reduction="none"``.

    Attributes:
        loss: mean negative log probability of a return.
        return_probability: mean probability that a walk from a sound returns to it, without gradient.
        accuracy: share of sounds at which a walk from them most probably ends, without gradient. Chance is 1/K.
    """

    loss: Tensor
    return_probability: Tensor
    accuracy: Tensor


class SharedNodesWarning(UserWarning):
    """A cycle walk starts from the sounds that it returns to, because ``start_nodes`` was not passed."""


def _check_options(temperature: float, bidirectional: bool, gather_distributed: bool | None, reduction: str) -> float:
    """Check the options, and return the temperature as a Python number."""
    temperature = check_number("temperature", temperature, above=0)
    check_flag("bidirectional", bidirectional)
    check_gathering(gather_distributed)
    check_option("reduction", reduction, REDUCTIONS)
    return temperature


def cycle_walk_loss(
    visual: Tensor,
    nodes: Tensor,
    start_nodes: Tensor | None = None,
    source_mask: Tensor | None = None,
    *,
    temperature: float = 0.07,
    bidirectional: bool = False,
    gather_distributed: bool | None = None,
    reduction: str = "mean",
) -> CycleWalkTerms:
    r"""Computes the loss of Mix-and-Localize: a random walk from a sound to a frame and back has to return.

    .. math::
        \mathcal{L} = -\frac{1}{K} \sum_k \log \sum_i P_{ki} Q_{ik}, \quad
        P_{ki} = \underset{i}{\mathrm{softmax}}\, \frac{\max_x \mathrm{Sim}(v_i(x), b_k)}{t}, \quad
        Q_{ik} = \underset{k}{\mathrm{softmax}}\, \frac{\max_x \mathrm{Sim}(v_i(x), a_k)}{t}

    A sample is a group of K frames and the mixture of their sounds. v_i(x) is the feature of pixel x in frame i, and t
    the temperature. K heads of the audio encoder give the nodes: :math:`a_k` from one recording of the mixture and
    :math:`b_k` from another one, with the same weights. The walk goes from b to a frame (P) and to a (Q). Head k has to
    return to itself, but which frame it passes is free. So which node belongs to which frame is not known afterwards.
    The other frames and nodes of the group are the only negatives.

    Args:
        visual: (B, K, C, H, W), floating, visual features of the K frames of each group; any scale.
        nodes: (B, K, C), floating, the nodes a that the walk ends at; any scale.
        start_nodes: (B, K, C), floating, the nodes b that it starts from, of other sounds of the same videos. None:
            ``nodes``, with a warning, because then a walk can return without any use of the frames' content.
        source_mask: (B, K) bool, True for sources that exist; None if all exist. The others are left out as frames and
            as nodes, and may hold any value. Groups without a source are left out of the reduction.
        temperature: t, above 0.
        bidirectional: whether to average this loss with that of the walk from a frame to a node a, and from b of the
            same head to a frame: the mean over i of :math:`-\log \sum_k Q_{ik} P_{ki}`.
        gather_distributed: whether the mean or sum is over the groups of all processes, so that the loss and (with
            DistributedDataParallel) its gradient are those of one process that holds the whole batch; see
            :mod:`sslosses.distributed`. None: not chosen.
        reduction: ``"mean"`` or ``"sum"`` over the groups with a source, or ``"none"``: (B,), 0 for the other groups.

    Returns:
        :class:`CycleWalkTerms`; float64 if an input is, else float32. The loss is at least 0. It is 0 for K = 1, and
        log K if all nodes are equal. With B = 0 the mean and the sum are zeros that keep their graph. A group with NaN
        or inf has terms of NaN. Groups do not affect each other.

    Raises:
        TypeError: if an input is not a floating tensor, the mask is not boolean or an option has the wrong type.
        ValueError: if shapes or devices do not fit or an option is out of range or unknown.

    Source: Hu et al., "Mix and Localize: Localizing Sound Sources in Mixtures". The order of the steps, the maximum
    over the pixels and the temperature are those of its public code. ``bidirectional`` and ``source_mask`` are
    additions.

    Example:
        >>> import torch
        >>> first, second = torch.tensor([[1.0, 0.6], [0.0, 0.8]]), torch.tensor([[0.0, 0.8], [1.0, -0.6]])
        >>> visual = torch.stack([first, second])[None, :, :, None]  # two frames of two pixels
        >>> nodes, start_nodes = torch.eye(2)[None], torch.tensor([[[0.8, 0.6], [0.0, 1.0]]])
        >>> cycle_walk_loss(visual, nodes, start_nodes, temperature=1.0)
        CycleWalkTerms(loss=tensor(0.6794), return_probability=tensor(0.5069), accuracy=tensor(1.))
    """
    temperature = _check_options(temperature, bidirectional, gather_distributed, reduction)
    gather = reduction != "none" and gathers(gather_distributed, "cycle_walk_loss")
    if start_nodes is None:
        _warn_of_shared_nodes("cycle_walk_loss")
        start_nodes = nodes
    present = _checked(visual, nodes, start_nodes, source_mask)
    visual, nodes, start_nodes = at_least_float32(visual, nodes, start_nodes)
    with autocast_off(visual):
        if source_mask is not None:
            visual = visual.where(present[..., None, None, None], 0)
            nodes, start_nodes = (x.where(present[..., None], 0) for x in (nodes, start_nodes))
        # A non-finite group makes only its own loss NaN. It is zeroed, so that it does not enter other gradients.
        finite = finite_samples(visual) & finite_samples(nodes) & finite_samples(start_nodes)
        visual = visual.where(finite[:, None, None, None, None], 0)
        nodes, start_nodes = (x.where(finite[:, None, None], 0) for x in (nodes, start_nodes))
        divisor = safe_divisor(temperature, visual.dtype)
        to_frame = _log_steps(_best(visual, start_nodes).mT / divisor, present)
        to_node = _log_steps(_best(visual, nodes) / divisor, present)
        log_probability = _log_return(to_frame, to_node, present)
        terms = _share_of(-log_probability, present), *_reported(log_probability, to_frame, to_node, present)
        if bidirectional:
            back = _share_of(-_log_return(to_node, to_frame, present), present)
            terms = (terms[0] + back) / 2, *terms[1:]
        loss, probability, accuracy = (
            reduce_samples(term.masked_fill(~finite, torch.nan), present.any(1), reduction, all_processes=gather)
            for term in terms
        )
    return CycleWalkTerms(loss, probability, accuracy)


def _checked(visual: Tensor, nodes: Tensor, start_nodes: Tensor, source_mask: Tensor | None) -> Tensor:
    """Check types, shapes and devices, and return which sources are present, (B, K)."""
    check_floating("visual", visual)
    check_floating("nodes", nodes)
    check_floating("start_nodes", start_nodes)
    arguments = {"visual": (visual, "B K C H W"), "nodes": (nodes, "B K C"), "start_nodes": (start_nodes, "B K C")}
    check_shapes(**arguments)
    if source_mask is None:
        return torch.ones(nodes.shape[:2], dtype=torch.bool, device=nodes.device)
    check_mask("source_mask", source_mask)
    check_shapes(nodes=arguments["nodes"], source_mask=(source_mask, "B K"))
    return source_mask


def _best(visual: Tensor, nodes: Tensor) -> Tensor:
    """The largest similarity of each frame with each node of its group, (B, frames, nodes)."""
    batch, frames, nodes_each = *visual.shape[:2], nodes.shape[1]
    pairs = nodes[:, None].expand(-1, frames, -1, -1).flatten(0, 1)
    return similarity_map(visual.flatten(0, 1), pairs).amax((-2, -1)).view(batch, frames, nodes_each)


def _log_steps(logits: Tensor, present: Tensor) -> Tensor:
    """Log probabilities of a step (B, K, K) from each row to the columns that are present."""
    reachable = present | ~present.any(1, keepdim=True)  # a row without an end would be NaN
    return logits.masked_fill(~reachable[:, None], -torch.inf).log_softmax(-1)


def _log_return(there: Tensor, back: Tensor, present: Tensor) -> Tensor:
    """Log probability (B, K) that two steps end where they started; any finite value where nothing is present."""
    return (there + back.mT).masked_fill(~present[..., None], 0).logsumexp(-1)


def _reported(log_probability: Tensor, there: Tensor, back: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Mean probability of a return, and share of the walks whose most probable end is their start."""
    ends = there.detach().exp() @ back.detach().exp()
    itself = torch.arange(ends.shape[-1], device=ends.device)
    ends = F.pad(ends, (0, 1), value=-1.0)  # so that K = 0 has a largest entry
    hits = (ends.argmax(-1) == itself).to(ends.dtype)
    return _share_of(log_probability.detach().exp(), present), _share_of(hits, present)


def _share_of(values: Tensor, present: Tensor) -> Tensor:
    """The mean of values (B, K) over the sources that are present, 0 if there is none."""
    return values.where(present, 0).sum(1) / present.sum(1).clamp(min=1)


def _warn_of_shared_nodes(name: str) -> bool:
    """Warn, and return True."""
    warnings.warn(
        f"{name} got no `start_nodes` and starts from `nodes`. Then it can fall without any use of what the frames "
        "show. Pass the nodes of other sounds of the same videos, or `start_nodes=nodes` to keep it as it is",
        SharedNodesWarning,
        stacklevel=3,
    )
    return True


# torch.compile can't trace warnings, so it calls the function while it compiles, as in `_gathering.py`.
setattr(_warn_of_shared_nodes, "_dynamo_marked_constant", True)  # noqa: B010


@dataclass(kw_only=True, eq=False, repr=False)
class CycleWalkLoss(LossModule):
    """Computes :func:`cycle_walk_loss`, whose options are the arguments.

    Warns once per instance if ``start_nodes`` is not passed.

    Raises:
        TypeError: if an option has the wrong type.
        ValueError: if an option is out of range or unknown.

    Example:
        >>> import torch
        >>> visual = torch.eye(2)[None, :, :, None, None]  # two frames of one pixel
        >>> nodes = torch.eye(2)[None]
        >>> print(f"{CycleWalkLoss(temperature=1.0)(visual, nodes, start_nodes=nodes):.4f}")
        0.4996
    """

    temperature: float = 0.07
    bidirectional: bool = False
    gather_distributed: bool | None = None
    reduction: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_options(**self._options())
        self.warned_of_shared_nodes = False

    def forward(
        self,
        visual: Tensor,
        nodes: Tensor,
        start_nodes: Tensor | None = None,
        source_mask: Tensor | None = None,
    ) -> Tensor:
        """Computes the loss of a batch: a scalar, or (B,) with ``reduction="none"``."""
        if start_nodes is None:
            if not self.warned_of_shared_nodes:
                self.warned_of_shared_nodes = _warn_of_shared_nodes(type(self).__name__)
            start_nodes = nodes
        return cycle_walk_loss(visual, nodes, start_nodes, source_mask, **self._call_options()).loss

    def gather_is_open(self) -> bool:
        """Whether ``gather_distributed`` makes a difference and was not chosen."""
        return self.gather_distributed is None and self.reduction != "none"
