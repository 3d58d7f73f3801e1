"""Sound-guided attention over a frame, and the loss that compares the attended feature with the sound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sslosses._checks import check_flag, check_floating, check_number, check_option, check_shapes
from sslosses._torch import at_least_float32, autocast_off, safe_divisor
from sslosses.distributed import gather_rows
from sslosses.losses._gathering import check_gathering, gathers
from sslosses.losses._inputs import finite_samples
from sslosses.losses._module import LossModule
from sslosses.losses._reduction import REDUCTIONS, reduce_samples
from sslosses.losses.baselines._negatives import NEGATIVES, SWAPS, check_negatives, choose_negatives
from sslosses.similarity import similarity_map, unit

FORMS = ("softmax", "margin")


class Attended(NamedTuple):
    """What a sound attends to.

    Attributes:
        pooled: (B, C), the mean visual feature with the attention as weights.
        attention: (B, H, W), above 0, with sum 1; it is the localization map.
    """

    pooled: Tensor
    attention: Tensor


def attend(visual: Tensor, query: Tensor, *, temperature: float = 1.0, rectify: bool = True) -> Attended:
    r"""Computes the attention of a sound over the pixels of its frame, and the visual feature pooled by it.

    .. math:: \alpha(x) = \mathrm{softmax}_x \frac{\max(0, \mathrm{Sim}(F(x), h))}{t}, \quad
        z = \sum_x \alpha(x) F(x)

    F(x) is the visual feature of pixel x, h the query and t the temperature.

    Without a temperature, as published, the attention is nearly uniform: on 14 × 14 pixels its values are at most
    0.0137. Expect flat maps. Their order of pixels is that of max(0, Sim), with ties where the cosine is negative.

    Args:
        visual: (B, C, H, W), floating, visual features. The attention depends on their directions only, z on their
            lengths too.
        query: (B, C), floating, the feature of each sound, at any scale.
        temperature: t, above 0. The published attention has none, which is 1.
        rectify: whether negative cosines count as 0.

    Returns:
        :class:`Attended`; float64 if an input is, else float32. A sample with NaN or inf has NaN and does not affect
        the others.

    Raises:
        TypeError: if an input is not a floating tensor or an option has the wrong type.
        ValueError: if shapes or devices do not fit or an option is out of range.

    Source: Senocak et al., "Learning to Localize Sound Source in Visual Scenes" (Attention10k): the author's public
    code. The variant in the public code of DSOL has ``rectify=False`` and pools unit features: normalize ``visual``
    for it.

    Example:
        >>> import torch
        >>> attended = attend(torch.eye(2).reshape(1, 2, 1, 2), torch.tensor([[1.0, 0.0]]))
        >>> attended.attention, attended.pooled
        (tensor([[[0.7311, 0.2689]]]), tensor([[0.7311, 0.2689]]))
    """
    temperature = check_number("temperature", temperature, above=0)
    check_flag("rectify", rectify)
    check_floating("visual", visual)
    check_floating("query", query)
    check_shapes(visual=(visual, "B C H W"), query=(query, "B C"))
    visual, query = at_least_float32(visual, query)
    with autocast_off(visual):
        scores = similarity_map(visual, query).flatten(1)
        if rectify:
            scores = scores.clamp(min=0)
        attention = (scores / safe_divisor(temperature, scores.dtype)).softmax(1).view(-1, *visual.shape[2:])
        return Attended(torch.einsum("bchw,bhw->bc", visual, attention), attention)


class AttentionPairTerms(NamedTuple):
    """Terms of the attention loss: scalars, or (B,) with ``reduction="none"``.

    Attributes:
        loss: the loss.
        positive_distance: d⁺, without gradient.
        negative_distance: the mean of d⁻ over the negatives, without gradient; 0 without a negative.
        accuracy: share of negatives with d⁺ < d⁻, without gradient; 0 without a negative.
    """

    loss: Tensor
    positive_distance: Tensor
    negative_distance: Tensor
    accuracy: Tensor


def _check_options(
    swap: str,
    normalize: bool,
    detach_target: bool,
    form: str,
    margin: float,
    gather_distributed: bool | None,
    reduction: str,
) -> float:
    """Check the options, and return the margin as a Python number."""
    check_option("swap", swap, SWAPS)
    check_flag("normalize", normalize)
    check_flag("detach_target", detach_target)
    check_option("form", form, FORMS)
    margin = check_number("margin", margin, above=0)
    check_gathering(gather_distributed)
    check_option("reduction", reduction, REDUCTIONS)
    return margin


def attention_pair_loss(
    embedding: Tensor,
    target: Tensor,
    *,
    negatives: str | Tensor = "all",
    swap: str = "sound",
    normalize: bool = True,
    detach_target: bool = False,
    form: str = "softmax",
    margin: float = 10.0,
    gather_distributed: bool | None = None,
    reduction: str = "mean",
) -> AttentionPairTerms:
    r"""Computes the loss that makes the attended feature of a frame nearer to its own sound than to another one.

    .. math::
        \text{softmax:}\quad \mathcal{L}_i &= \operatorname{mean}_{j \in N_i} \sigma(d_i^+ - d_{ij}^-)^2, \quad
        d_i^+ = \|g_i - f_i\|, \quad d_{ij}^- = \|g_i - f_j\| \\
        \text{margin:}\quad \mathcal{L}_i &= \frac{1}{4} (d_i^+)^2
            + \frac{1}{4} \operatorname{mean}_{j \in N_i} \max(0, m - d_{ij}^-)^2

    :math:`g_i` is the ``embedding`` of frame i, :math:`f_j` the ``target`` of sound j, :math:`N_i` the negatives, σ the
    logistic function and m the margin. The softmax form is the mean squared difference of the softmax of the two
    distances and (0, 1).

    Two published losses are options. Both draw one negative per sample from the data set, which an index as
    ``negatives`` does within the batch. Both have an MLP between :func:`attend` and the embedding.

    - Attention10k: ``normalize=False``, with targets of a fixed network. The norm in its public code adds 1e-6 to each
      difference, which is left out here.
    - DSOL's version of it: ``normalize=False, form="margin", swap="frame"``.

    If the targets are trained, the loss also changes with their scale, which can shrink or grow without end. The
    default, unit vectors, prevents that.

    Args:
        embedding: (B, C), floating, one vector per frame.
        target: (B, C), floating, one vector per sound.
        negatives: N_i. ``"all"``: all other samples. ``"shift"``: the next sample, for the last one the first. Or (B,)
            integers, one index of this process's batch per sample. A sample with its own index has no negative.
        swap: what a negative j gives to the mismatched pair. ``"sound"``: d⁻ as above. ``"frame"``: ‖g_j - f_i‖.
        normalize: whether both vectors are scaled to length 1. All distances are then at most 2.
        detach_target: whether the targets get no gradient.
        form: ``"softmax"`` or ``"margin"``.
        margin: m, above 0; for the margin form. The default is for vectors that are not normalized.
        gather_distributed: whether ``"all"`` and ``"shift"`` are about the samples of all processes. The loss and (with
            DistributedDataParallel) its gradient are then those of one process that holds the whole batch; see
            :mod:`sslosses.distributed`. An index stays one of this process's batch. None: not chosen.
        reduction: ``"mean"`` or ``"sum"`` over the samples, or ``"none"``: (B,).

    Returns:
        :class:`AttentionPairTerms`; float64 if an input is, else float32. The softmax form is in (0, 1), and 1/4 where
        own and other sounds are equally far. Without a negative it is a zero that keeps its graph, and the margin form
        is d⁺² / 4. With B = 0 the mean and the sum are zeros that keep their graph. A sample with NaN or inf has terms
        of NaN and is not a negative for the other samples: ``"shift"`` passes over it, and a sample whose index it is
        has no negative. Memory grows as B² · C, with ``gather_distributed`` times the number of processes; with
        ``"shift"`` or an index, as B · C.

    Raises:
        TypeError: if an input is not a floating tensor or an option has the wrong type.
        ValueError: if shapes or devices do not fit or an option is out of range or unknown.

    Source: Senocak et al., "Learning to Localize Sound Source in Visual Scenes" (Attention10k), and the version of it
    that Hu et al. compare DSOL with: the public code of both.

    Example:
        >>> import torch
        >>> embedding = torch.tensor([[0.8, 0.6], [0.0, 1.0]])
        >>> attention_pair_loss(embedding, torch.eye(2), reduction="none").loss  # both are nearer to their own sound
        tensor([0.1891, 0.0382])
    """
    margin = _check_options(swap, normalize, detach_target, form, margin, gather_distributed, reduction)
    gather = gathers(gather_distributed, "attention_pair_loss")
    check_floating("embedding", embedding)
    check_floating("target", target)
    check_shapes(embedding=(embedding, "B C"), target=(target, "B C"))
    check_negatives(negatives, embedding=(embedding, "B C"))
    embedding, target = at_least_float32(embedding, target.detach() if detach_target else target)
    with autocast_off(embedding):
        # A non-finite sample makes only its own loss NaN. It is zeroed, so that it does not enter other gradients.
        finite = finite_samples(embedding) & finite_samples(target)
        embedding, target = (x.where(finite[:, None], 0) for x in (embedding, target))
        if normalize:
            embedding, target = unit(embedding, 1), unit(target, 1)
        chosen = choose_negatives(negatives, finite, gather=gather)
        fixed, swapped = (embedding, target) if swap == "sound" else (target, embedding)
        swapped = gather_rows(swapped).rows if gather else swapped
        own = _distance(embedding, target)
        others = _distance(fixed[:, None], chosen.select(swapped))
        if form == "softmax":
            loss = chosen.mean((own[:, None] - others).sigmoid().square())
        else:
            loss = (own.square() + chosen.mean((margin - others).clamp(min=0).square())) / 4
        nearer = chosen.mean((own[:, None] < others).to(own.dtype))
        terms = (loss, own.detach(), chosen.mean(others.detach()), nearer)
        valid = torch.ones_like(finite)
        return AttentionPairTerms(
            *(
                reduce_samples(term.masked_fill(~finite, torch.nan), valid, reduction, all_processes=gather)
                for term in terms
            )
        )


def _distance(first: Tensor, second: Tensor) -> Tensor:
    """Euclidean distances along the last dimension, with zero gradient at 0."""
    square = (first - second).square().sum(-1)
    zero = square == 0
    return square.masked_fill(zero, 1).sqrt().masked_fill(zero, 0)


@dataclass(kw_only=True, eq=False, repr=False)
class AttentionPairLoss(LossModule):
    """Computes :func:`attention_pair_loss`, whose options are the arguments.

    Raises:
        TypeError: if an option has the wrong type.
        ValueError: if an option is out of range or unknown.

    Example:
        >>> import torch
        >>> AttentionPairLoss(form="margin", margin=1.4)(torch.eye(2), torch.eye(2))
        tensor(0.)
    """

    negatives: str = "all"
    swap: str = "sound"
    normalize: bool = True
    detach_target: bool = False
    form: str = "softmax"
    margin: float = 10.0
    gather_distributed: bool | None = None
    reduction: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_option("negatives", self.negatives, NEGATIVES)
        options = self._options()
        del options["negatives"]
        _check_options(**options)

    def forward(self, embedding: Tensor, target: Tensor, negatives: Tensor | None = None) -> Tensor:
        """Computes the loss of a batch: a scalar, or (B,) with ``reduction="none"``.

        ``negatives`` is an index as in the function, in place of the option.
        """
        options = self._call_options()
        if negatives is not None:
            options["negatives"] = negatives
        return attention_pair_loss(embedding, target, **options).loss
