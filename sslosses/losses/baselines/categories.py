"""CoarseToFine: correspondence of pairs, class activation pooling, and alignment of categories."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sslosses._checks import check_dimensions, check_flag, check_floating, check_number, check_option, check_shapes
from sslosses._torch import at_least_float32, autocast_off, has_values
from sslosses.distributed import gather_rows
from sslosses.losses._gathering import check_gathering, gathers
from sslosses.losses._inputs import finite_samples
from sslosses.losses._module import LossModule
from sslosses.losses._reduction import REDUCTIONS, reduce_samples
from sslosses.similarity import unit


class PairTerms(NamedTuple):
    """Terms of the pair correspondence loss: scalars, or (B,) with ``reduction="none"``.

    Attributes:
        loss: (positive + negative) / 2.
        positive: the loss of the pairs that belong together, without gradient.
        negative: the mean loss of the other pairs, without gradient.
    """

    loss: Tensor
    positive: Tensor
    negative: Tensor


class ActivationPool(NamedTuple):
    """What class activation maps pool.

    Attributes:
        pooled: (B, K, C), one vector per sample and class.
        maps: (B, K, ...), the class activation maps R.
    """

    pooled: Tensor
    maps: Tensor


class AlignmentTerms(NamedTuple):
    """Terms of the category alignment loss: scalars, or (B,) with ``reduction="none"``.

    Attributes:
        loss: positive + negative.
        positive: the squared distance of active pairs of one sample and category, without gradient.
        negative: the hinge of the other active pairs, without gradient.
        positive_pairs: number of active pairs of one sample and category, without gradient.
        negative_pairs: number of the other active pairs, without gradient.
    """

    loss: Tensor
    positive: Tensor
    negative: Tensor
    positive_pairs: Tensor
    negative_pairs: Tensor


def _check_pair_options(gather_distributed: bool | None, reduction: str) -> None:
    check_gathering(gather_distributed)
    check_option("reduction", reduction, REDUCTIONS)


def pair_correspondence_loss(
    logits: Tensor, *, gather_distributed: bool | None = None, reduction: str = "mean"
) -> PairTerms:
    r"""Computes the loss of a classifier that says which frame and which sound belong together.

    .. math::
        \mathcal{L}_i = \frac{1}{2} \Big( \log(1 + e^{-l_{ii}}) + \frac{1}{B - 1} \sum_{j \ne i} \log(1 + e^{l_{ij}})
        \Big)

    :math:`l_{ij}` is the logit of "yes" minus that of "no" for frame i and sound j. Positive and negative pairs weigh
    the same, whatever their number.

    Args:
        logits: (B, B), floating, frames by sounds. With ``gather_distributed=True`` and several processes: (B, G), the
            frames of this process by the sounds of all processes, in the order of
            :func:`~sslosses.distributed.gather_rows`.
        gather_distributed: whether the columns are the sounds of all processes, and the mean or sum is over the samples
            of all processes; see :mod:`sslosses.distributed`. None: not chosen.
        reduction: ``"mean"`` or ``"sum"`` over the frames, or ``"none"``: (B,).

    Returns:
        :class:`PairTerms`; float64 if the input is, else float32. Without another sound, the negative term is 0. With
        B = 0 the mean and the sum are zeros that keep their graph. A sample whose own logit is NaN or inf has terms of
        NaN and is not a negative for the other samples. With logits of 0 the loss is log 2.

    Raises:
        TypeError: if the input is not a floating tensor or an option has the wrong type.
        ValueError: if the shape does not fit or an option is unknown.

    Source: Qian et al., "Multiple Sound Sources Localization from Coarse to Fine" (CoarseToFine), the first stage of
    its public code; not compared with the paper's text.

    Example:
        >>> import torch
        >>> pair_correspondence_loss(torch.tensor([[2.0, -1.0, 0.0], [0.0, 1.0, -1.0], [-2.0, 0.0, 3.0]]))
        PairTerms(loss=tensor(0.3175), positive=tensor(0.1629), negative=tensor(0.4721))
    """
    _check_pair_options(gather_distributed, reduction)
    gather = gathers(gather_distributed, "pair_correspondence_loss")
    check_floating("logits", logits)
    check_shapes(logits=(logits, "B G" if gather else "B B"))
    (logits,) = at_least_float32(logits)
    rows = torch.arange(logits.shape[0], device=logits.device)
    own_column = rows
    if gather:
        count, offset = gather_rows(logits.new_zeros(logits.shape[0]))
        if logits.shape[1] != count.shape[0]:
            raise ValueError(
                f"Expected `logits` to have shape (B, G) with G = {count.shape[0]}, the number of sounds of all "
                f"processes, but got {tuple(logits.shape)}"
            )
        own_column = offset + rows
    with autocast_off(logits):
        own = logits[rows, own_column]
        audible = own.detach().isfinite()
        finite = audible
        if gather:
            audible = gather_rows(audible.to(logits.dtype)).rows > 0
        finite = finite & (logits.detach().isfinite() | ~audible).all(1)
        others = audible & (torch.arange(logits.shape[1], device=logits.device) != own_column[:, None])
        share = others.to(logits.dtype) / others.sum(1, keepdim=True).clamp(min=1)
        # Zeroed, so that non-finite logits do not enter the gradient.
        positive = F.softplus(-own.where(finite, 0))
        negative = (F.softplus(logits.where(others & finite[:, None], 0)) * share).sum(1)
        terms = (positive + negative) / 2, positive.detach(), negative.detach()
        return PairTerms(*(_reduced(term, finite, reduction, gather) for term in terms))


def _reduced(values: Tensor, finite: Tensor, reduction: str, gather: bool) -> Tensor:
    """The mean or sum over all samples, of which those that are not finite count as NaN."""
    values = values.masked_fill(~finite, torch.nan)
    return reduce_samples(values, torch.ones_like(finite), reduction, all_processes=gather)


def class_activation_pool(features: Tensor, weight: Tensor, *, detach: bool = True) -> ActivationPool:
    r"""Computes one feature per class, pooled under the class activation map.

    .. math:: R_k(x) = \max(0, \langle w_k, F(x) \rangle), \quad f_k = \frac{\sum_x R_k(x) F(x)}{\sum_x R_k(x)}

    F(x) is the feature at position x, and :math:`w_k` the weight of class k in a linear classifier without bias. The
    public code divides by the number of positions, too. That does not matter to what follows, a head without bias and
    a normalization.

    Args:
        features: (B, C, ...), floating, features of frames (B, C, H, W) or of sounds (B, C, T, F).
        weight: (K, C), floating, :math:`w_k`.
        detach: whether R has no gradient, as in the public code.

    Returns:
        :class:`ActivationPool`; float64 if an input is, else float32. A pooled vector is a mean of features, or zero
        with a gradient of zero if the map is 0 everywhere. It does not depend on the length of :math:`w_k`. A sample
        with NaN or inf has vectors and maps of NaN.

    Raises:
        TypeError: if an input is not a floating tensor or ``detach`` is not a bool.
        ValueError: if shapes or devices do not fit.

    Source: Qian et al., "Multiple Sound Sources Localization from Coarse to Fine" (CoarseToFine), the second stage of
    its public code; not compared with the paper's text.

    Example:
        >>> import torch
        >>> features = torch.tensor([[[1.0, 2.0, 0.0], [0.0, 1.0, 3.0]]])
        >>> pool = class_activation_pool(features, torch.tensor([[1.0, 0.0], [-1.0, 1.0]]))
        >>> pool.maps
        tensor([[[1., 2., 0.],
                 [0., 0., 3.]]])
        >>> pool.pooled
        tensor([[[1.6667, 0.6667],
                 [0.0000, 3.0000]]])
    """
    check_flag("detach", detach)
    check_floating("features", features)
    check_floating("weight", weight)
    check_dimensions("features", features, "B C H ...")
    spatial = features.shape[2:]
    if 0 in spatial:
        raise ValueError(f"Expected `features` to have at least one position, but got {tuple(features.shape)}")
    check_shapes(features=(features.flatten(2), "B C P"), weight=(weight, "K C"))
    features, weight = at_least_float32(features, weight)
    with autocast_off(features):
        finite = finite_samples(features)[:, None, None]
        features = features.flatten(2).where(finite, 0)
        # Products of very long or short features and weights leave the range of float32.
        largest = features.detach().abs().amax((1, 2), keepdim=True)
        largest = largest.masked_fill(largest == 0, 1)
        length = torch.linalg.vector_norm(weight.detach(), ord=math.inf, dim=1, keepdim=True)
        length = length.masked_fill(length == 0, 1)
        features = features / largest
        maps = ((weight / length) @ features).relu()
        if detach:
            maps = maps.detach()
        total = maps.sum(-1, keepdim=True)
        pooled = (maps / total.masked_fill(total == 0, 1)) @ features.mT * largest
        maps = (maps * largest * length).masked_fill(~finite, torch.nan)
        return ActivationPool(pooled.masked_fill(~finite, torch.nan), maps.unflatten(2, spatial))


def _check_alignment_options(
    threshold: float, margin: float, same_class_negatives: bool, gather_distributed: bool | None, reduction: str
) -> tuple[float, float]:
    """Check the options, and return the threshold and the margin as Python numbers."""
    threshold = check_number("threshold", threshold)
    margin = check_number("margin", margin, above=0)
    check_flag("same_class_negatives", same_class_negatives)
    _check_pair_options(gather_distributed, reduction)
    return threshold, margin


def category_alignment_loss(
    visual: Tensor,
    audio: Tensor,
    visual_probability: Tensor,
    audio_probability: Tensor,
    *,
    threshold: float = 0.3,
    margin: float = 1.4,
    same_class_negatives: bool = True,
    gather_distributed: bool | None = None,
    reduction: str = "mean",
) -> AlignmentTerms:
    r"""Computes the loss that pulls the sound and the frame of one category together and pushes other pairs apart.

    .. math::
        \mathcal{L} &= \frac{1}{|P|} \sum_{(i,k) \in P} D_{ik,ik}
        + \frac{1}{|N|} \sum_{(ik, jl) \in N} \max(0, m - \sqrt{D_{ik,jl}})^2 \\
        D_{ik,jl} &= 2 - 2 \, \mathrm{Sim}(f^a_{ik}, f^v_{jl})

    :math:`f^a_{ik}` is the vector of category k in the sound of sample i, :math:`f^v_{jl}` that of category l in the
    frame of sample j, and m the margin. A pair is active if both probabilities are above the threshold,
    :math:`p^a_{ik} > t` and :math:`p^v_{jl} > t`. P are the active pairs with (i, k) = (j, l), and N the other active
    pairs: other categories of the same sample, and all categories of other samples.

    The public code has NaN gradients where rounding makes D zero or negative. Here the gradient is 0 there.

    Args:
        visual: (B, K, D), floating, vectors of the frames, for example from :func:`class_activation_pool`; any length.
        audio: (B, K, D), floating, vectors of the sounds; any length.
        visual_probability: (B, K), floating, in [0, 1]; without gradient.
        audio_probability: (B, K), floating, in [0, 1]; without gradient.
        threshold: t.
        margin: m, above 0. The largest distance is 2.
        same_class_negatives: whether pairs of one category in different samples are in N, as in the public code. False
            leaves them out, as they may well show and sound the same.
        gather_distributed: whether the frames of all processes are in N. The loss and (with DistributedDataParallel)
            its gradient are then those of one process that holds the whole batch; see :mod:`sslosses.distributed`.
            None: not chosen.
        reduction: ``"mean"``, the means over the pairs above; ``"sum"``, their sums; or ``"none"``: (B,), the sums over
            the pairs of each sample's sound.

    Returns:
        :class:`AlignmentTerms`; float64 if an input is, else float32. Each term is a zero that keeps its graph if no
        pair is active. A sample with NaN or inf has terms of NaN and no pairs with other samples. Memory grows as the
        number of active pairs, which is B² · K² if all categories are active, and in a compiled graph. With
        ``gather_distributed`` it is that times the number of processes.

    Raises:
        TypeError: if an input is not a floating tensor or an option has the wrong type.
        ValueError: if shapes or devices do not fit or an option is out of range or unknown.

    Source: Qian et al., "Multiple Sound Sources Localization from Coarse to Fine" (CoarseToFine), the second stage of
    its public code in the simplified version; not compared with the paper's text.

    Example:
        >>> import torch
        >>> audio = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
        >>> visual = torch.tensor([[[0.8, 0.6], [0.0, 1.0]]])
        >>> present = torch.tensor([[0.9, 0.1]])
        >>> terms = category_alignment_loss(visual, audio, present, present)
        >>> terms.loss, terms.positive_pairs, terms.negative_pairs  # 2 - 2 * 0.8; the second category is absent
        (tensor(0.4000), tensor(1.), tensor(0.))
    """
    threshold, margin = _check_alignment_options(threshold, margin, same_class_negatives, gather_distributed, reduction)
    gather = gathers(gather_distributed, "category_alignment_loss")
    arguments = {
        "visual": visual,
        "audio": audio,
        "visual_probability": visual_probability,
        "audio_probability": audio_probability,
    }
    for name, value in arguments.items():
        check_floating(name, value)
    check_shapes(**{name: (x, "B K" if "probability" in name else "B K D") for name, x in arguments.items()})
    visual, audio, *probabilities = at_least_float32(*arguments.values())
    with autocast_off(visual):
        finite = torch.stack([finite_samples(x) for x in (visual, audio, *probabilities)]).all(0)
        shown, heard = ((p.detach() > threshold) & finite[:, None] for p in probabilities)
        own_visual, audio = (unit(x.where(finite[:, None, None], 0), -1) for x in (visual, audio))
        every, offset = torch.cat([own_visual, shown[..., None].to(visual.dtype)], -1), 0
        if gather:
            every, offset = gather_rows(every)
        batch, classes = heard.shape
        sounds, frames = audio.flatten(0, 1), every.flatten(0, 1)
        # Eagerly, only active categories are compared. Sizes in a compiled graph can't depend on values: it has all.
        row, column = (_indices(x, only=has_values(x)) for x in (heard.flatten(), frames[:, -1] > 0))
        frames = frames[column]
        active = heard.flatten()[row, None] & (frames[:, -1] > 0)
        divisor = max(classes, 1)
        same_class = row[:, None] % divisor == column % divisor
        same_sample = row[:, None] // divisor + offset == column // divisor
        pairs = active & ~(same_class & same_sample if same_class_negatives else same_class)
        cosines = sounds[row] @ frames[:, :-1].mT
        hinge = (margin - _length(2 - 2 * cosines)).clamp(min=0).square()
        negative, count = (
            x.new_zeros(heard.numel()).index_put((row,), x.sum(1)).view(batch, classes).sum(1)
            for x in (hinge.where(pairs, 0), pairs.to(hinge.dtype))
        )
        matched = heard & shown
        positive = (2 - 2 * (audio * own_visual).sum(-1)).clamp(min=0).where(matched, 0).sum(1)
        counts = matched.sum(1).to(positive.dtype), count
        total = "none" if reduction == "none" else "sum"
        positive, negative = (_reduced(term, finite, total, gather) for term in (positive, negative))
        positive_pairs, negative_pairs = (
            reduce_samples(count, torch.ones_like(finite), total, all_processes=gather) for count in counts
        )
        if reduction == "mean":
            positive, negative = positive / positive_pairs.clamp(min=1), negative / negative_pairs.clamp(min=1)
    return AlignmentTerms(positive + negative, positive.detach(), negative.detach(), positive_pairs, negative_pairs)


def _indices(values: Tensor, *, only: bool) -> Tensor:
    """The indices of all values (N,), or only of those that are True."""
    return values.nonzero()[:, 0] if only else torch.arange(values.shape[0], device=values.device)


def _length(square: Tensor) -> Tensor:
    """The square root, with a gradient of 0 where rounding makes ``square`` 0 or negative."""
    none = square <= 0
    return square.masked_fill(none, 1).sqrt().masked_fill(none, 0)


@dataclass(kw_only=True, eq=False, repr=False)
class PairCorrespondenceLoss(LossModule):
    """Computes :func:`pair_correspondence_loss`, whose options are the arguments.

    Raises:
        TypeError: if an option has the wrong type.
        ValueError: if an option is unknown.

    Example:
        >>> import torch
        >>> PairCorrespondenceLoss()(torch.zeros(3, 3))  # log 2
        tensor(0.6931)
    """

    gather_distributed: bool | None = None
    reduction: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_pair_options(**self._options())

    def forward(self, logits: Tensor) -> Tensor:
        """Computes the loss of a batch: a scalar, or (B,) with ``reduction="none"``."""
        return pair_correspondence_loss(logits, **self._call_options()).loss


@dataclass(kw_only=True, eq=False, repr=False)
class CategoryAlignmentLoss(LossModule):
    """Computes :func:`category_alignment_loss`, whose options are the arguments.

    Raises:
        TypeError: if an option has the wrong type.
        ValueError: if an option is out of range or unknown.

    Example:
        >>> import torch
        >>> same, present = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[0.9]])
        >>> CategoryAlignmentLoss()(same, same, present, present)
        tensor(0.)
    """

    threshold: float = 0.3
    margin: float = 1.4
    same_class_negatives: bool = True
    gather_distributed: bool | None = None
    reduction: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_alignment_options(**self._options())

    def forward(self, visual: Tensor, audio: Tensor, visual_probability: Tensor, audio_probability: Tensor) -> Tensor:
        """Computes the loss of a batch: a scalar, or (B,) with ``reduction="none"``."""
        return category_alignment_loss(
            visual, audio, visual_probability, audio_probability, **self._call_options()
        ).loss
