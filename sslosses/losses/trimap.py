"""The tri-map contrastive loss, the baseline without captions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sslosses._checks import check_floating, check_number, check_option, check_shapes
from sslosses._torch import at_least_float32, autocast_off, safe_divisor
from sslosses.distributed import gather_rows
from sslosses.losses._gathering import check_gathering, gathers
from sslosses.losses._inputs import finite_samples, zero_unless
from sslosses.losses._module import LossModule
from sslosses.losses._reduction import REDUCTIONS, reduce_samples
from sslosses.masks import ALPHA_BACKGROUND, ALPHA_FOREGROUND, OMEGA, mask_weights
from sslosses.similarity import cross_similarity_map

OWN_NEGATIVES = ("exclude", "public-code")
OWN_FACTOR = -99.0  # 1 - 100: the public code subtracts 100 times the identity from a matrix of ones


class TriMapTerms(NamedTuple):
    """Terms of the tri-map loss: scalars, or (B,) with ``reduction="none"``.

    Attributes:
        loss: the cross-entropy.
        positive: mean similarity of a clip's image and its own sound under M^p, without gradient.
        hard_negative: the same under M^n, without gradient.
    """

    loss: Tensor
    positive: Tensor
    hard_negative: Tensor


def _check_options(
    temperature: float,
    alpha_foreground: float,
    alpha_background: float,
    omega: float,
    own_negative: str,
    gather_distributed: bool | None,
    reduction: str,
) -> float:
    """Check the options, and return the temperature as a Python number."""
    temperature = check_number("temperature", temperature, above=0)
    check_number("alpha_foreground", alpha_foreground)
    check_number("alpha_background", alpha_background)
    check_number("omega", omega, above=0)
    check_option("own_negative", own_negative, OWN_NEGATIVES)
    check_gathering(gather_distributed)
    check_option("reduction", reduction, REDUCTIONS)
    return temperature


def trimap_contrastive_loss(
    visual: Tensor,
    audio: Tensor,
    *,
    temperature: float = 0.07,
    alpha_foreground: float = ALPHA_FOREGROUND,
    alpha_background: float = ALPHA_BACKGROUND,
    omega: float = OMEGA,
    own_negative: str = "exclude",
    gather_distributed: bool | None = None,
    reduction: str = "mean",
) -> TriMapTerms:
    r"""Computes the tri-map loss, which contrasts a clip's own sound with other sounds and with its silent region.

    .. math::
        \mathcal{L}_i = -\log \frac{e^{s_{ii}/t}}{e^{s_{ii}/t} + \sum_{j \ne i} e^{s_{ij}/t} + e^{h_i/t}}

        s_{ij} = \frac{\sum_x M^p_{ij}(x) S_{ij}(x)}{\sum_x M^p_{ij}(x)}, \quad
        h_i = \frac{\sum_x M^n_{ii}(x) S_{ii}(x)}{\sum_x M^n_{ii}(x)}

    S_ij is the similarity map of clip i for the sound of clip j, M^p_ij and M^n_ij are its foreground and background
    masks (:func:`~sslosses.masks.trimap_masks`), and t is the temperature. The means are computed in log space.

    Args:
        visual: (B, C, H, W), floating, visual features.
        audio: (B, C), floating, audio features.
        temperature: t, above 0.
        alpha_foreground: similarity at which M^p is one half.
        alpha_background: similarity at which M^n is one half.
        omega: width of the step of both masks, above 0.
        own_negative: whether the pair of a clip's image and its own sound is a negative, too. ``"exclude"``: no.
            ``"public-code"``: yes, with the logit :math:`-99\, s_{ii}/t`, as in the public code of the method. This is
            very small for features that are at least 0, but very large where s_ii is negative.
        gather_distributed: whether the sounds of all processes are negatives. The loss and (with
            DistributedDataParallel) its gradient are then those of one process that holds the whole batch; see
            :mod:`sslosses.distributed`. None: not chosen.
        reduction: ``"mean"`` or ``"sum"`` over the samples, or ``"none"``: (B,).

    Returns:
        :class:`TriMapTerms`; float64 if an input is, else float32. The loss is above 0. With B = 0 the mean and the sum
        are zeros that keep their graph. A sample with NaN or inf has terms of NaN and is not a negative for the other
        samples. Memory grows as B² · H · W, with ``gather_distributed`` times the number of processes.

    Raises:
        TypeError: if an input is not a floating tensor or an option has the wrong type.
        ValueError: if shapes or devices do not fit or an option is out of range or unknown.

    Source: Chen et al., "Localizing Visual Sounds the Hard Way", Eqs. 4-6; Um et al., Table 3 without OCA and ORI.

    Example:
        >>> import torch
        >>> visual = torch.eye(2).reshape(1, 2, 1, 2)
        >>> terms = trimap_contrastive_loss(visual, torch.tensor([[1.0, 0.0]]), temperature=1.0)
        >>> terms.positive, terms.hard_negative, terms.loss  # log(1 + 1/e)
        (tensor(1.), tensor(2.0612e-09), tensor(0.3133))
    """
    temperature = _check_options(
        temperature, alpha_foreground, alpha_background, omega, own_negative, gather_distributed, reduction
    )
    gather = gathers(gather_distributed, "trimap_contrastive_loss")
    check_floating("visual", visual)
    check_floating("audio", audio)
    check_shapes(visual=(visual, "B C H W"), audio=(audio, "B C"))
    visual, audio = at_least_float32(visual, audio)
    divisor = safe_divisor(temperature, visual.dtype)
    with autocast_off(visual):
        # A non-finite sample makes only its own loss NaN. It is zeroed, so that it does not enter other gradients.
        finite = finite_samples(visual) & finite_samples(audio)
        visual, audio = zero_unless(finite, visual), audio.where(finite[:, None], torch.nan)
        sounds, offset = gather_rows(audio) if gather else (audio, 0)
        audible = finite_samples(sounds)
        rows = torch.arange(visual.shape[0], device=visual.device)
        own_sounds = offset + rows
        pairs = cross_similarity_map(visual, sounds.where(audible[:, None], 0))
        similarities = _weighted_mean(pairs, alpha_foreground, omega, foreground=True)
        hard = _weighted_mean(pairs[rows, own_sounds], alpha_background, omega, foreground=False)
        positive = similarities[rows, own_sounds]
        # The column of a clip's own sound is the positive, which the denominator contains once.
        columns = [similarities.masked_fill(~audible, -torch.inf), hard[:, None]]
        if own_negative == "public-code":
            columns.append(OWN_FACTOR * positive[:, None])
        logits = torch.cat(columns, dim=1) / divisor
        loss = logits.logsumexp(1) - positive / divisor
        loss, positive, hard = (x.masked_fill(~finite, torch.nan) for x in (loss, positive, hard))
        valid = torch.ones_like(loss, dtype=torch.bool)
        loss, positive, hard = (
            reduce_samples(term, valid, reduction, all_processes=gather)
            for term in (loss, positive.detach(), hard.detach())
        )
    return TriMapTerms(loss, positive, hard)


def _weighted_mean(similarity: Tensor, alpha: float, omega: float, *, foreground: bool) -> Tensor:
    return (mask_weights(similarity, alpha=alpha, omega=omega, foreground=foreground) * similarity).sum((-2, -1))


@dataclass(kw_only=True, eq=False, repr=False)
class TriMapContrastiveLoss(LossModule):
    """Computes :func:`trimap_contrastive_loss`, whose options are the arguments.

    Raises:
        TypeError: if an option has the wrong type.
        ValueError: if an option is out of range or unknown.

    Example:
        >>> import torch
        >>> trimap = TriMapContrastiveLoss(temperature=1.0)
        >>> trimap(torch.eye(2).reshape(1, 2, 1, 2), torch.tensor([[1.0, 0.0]]))
        tensor(0.3133)
    """

    temperature: float = 0.07
    alpha_foreground: float = ALPHA_FOREGROUND
    alpha_background: float = ALPHA_BACKGROUND
    omega: float = OMEGA
    own_negative: str = "exclude"
    gather_distributed: bool | None = None
    reduction: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_options(**self._options())

    def forward(self, visual: Tensor, audio: Tensor) -> Tensor:
        """Computes the loss of a batch: a scalar, or (B,) with ``reduction="none"``."""
        return trimap_contrastive_loss(visual, audio, **self._call_options()).loss
