"""The best-place contrastive loss of EZ-VSL, both from frames to sounds and from sounds to frames."""

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
from sslosses.similarity import cross_similarity_map


class BestPlaceTerms(NamedTuple):
    """Terms of the best-place loss: scalars, or (B,) with ``reduction="none"``.

    Attributes:
        loss: the sum of both directions, or the first one with ``symmetric=False``.
        frame_to_sound: cross-entropy of a frame's own sound among all sounds, without gradient.
        sound_to_frame: cross-entropy of a sound's own frame among all frames, without gradient.
        positive: largest similarity of a frame and its own sound, without gradient.
    """

    loss: Tensor
    frame_to_sound: Tensor
    sound_to_frame: Tensor
    positive: Tensor


def _check_options(temperature: float, symmetric: bool, gather_distributed: bool | None, reduction: str) -> float:
    """Check the options, and return the temperature as a Python number."""
    temperature = check_number("temperature", temperature, above=0)
    check_flag("symmetric", symmetric)
    check_gathering(gather_distributed)
    check_option("reduction", reduction, REDUCTIONS)
    return temperature


def best_place_contrastive_loss(
    visual: Tensor,
    audio: Tensor,
    *,
    temperature: float = 0.03,
    symmetric: bool = True,
    gather_distributed: bool | None = None,
    reduction: str = "mean",
) -> BestPlaceTerms:
    r"""Computes the loss of EZ-VSL, which contrasts frames and sounds by the similarity at the best place of a frame.

    .. math::
        \mathcal{L}_i = -\log \frac{e^{m_{ii}/t}}{\sum_j e^{m_{ij}/t}} - \log \frac{e^{m_{ii}/t}}{\sum_j e^{m_{ji}/t}},
        \quad m_{ij} = \max_x S_{ij}(x)

    S_ij is the similarity map of frame i for the sound of clip j, x a pixel and t the temperature. The two directions
    are added, not averaged. Each pair has a gradient at its best pixel only; equal best pixels share it.

    Args:
        visual: (B, C, H, W), floating, visual features; any scale.
        audio: (B, C), floating, audio features; any scale.
        temperature: t, above 0.
        symmetric: True for both directions (EZ-VSL), False for the first one only.
        gather_distributed: whether the frames and sounds of all processes are negatives. The loss and (with
            DistributedDataParallel) its gradient are then those of one process that holds the whole batch; see
            :mod:`sslosses.distributed`. Processes exchange sounds and the G × G largest similarities of all G clips, no
            maps. The public code has no such exchange: that is False. None: not chosen.
        reduction: ``"mean"`` or ``"sum"`` over the samples, or ``"none"``: (B,).

    Returns:
        :class:`BestPlaceTerms`; float64 if an input is, else float32. The loss is at least 0. It is 0 for B = 1, and
        2 log B if all similarities are equal. With B = 0 the mean and the sum are zeros that keep their graph. A sample
        with NaN or inf has terms of NaN and is not a negative for the other samples. Memory grows as B² · H · W, with
        ``gather_distributed`` times the number of processes.

    Raises:
        TypeError: if an input is not a floating tensor or an option has the wrong type.
        ValueError: if shapes or devices do not fit or an option is out of range or unknown.

    Source: Mo and Morgado, "Localizing Visual Sounds the Easy Way". The temperature and the sum of both directions are
    those of its public code. At test time, the code blends the similarity map with an object prior, as
    :func:`~sslosses.object_prior.blend_maps` does.

    Example:
        >>> import torch
        >>> visual = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.6, 1.0], [0.8, 0.0]]])[:, :, None]  # two pixels each
        >>> terms = best_place_contrastive_loss(visual, torch.eye(2), temperature=1.0)
        >>> terms.loss, terms.frame_to_sound, terms.positive
        (tensor(1.4913), tensor(0.7456), tensor(0.9000))
    """
    temperature = _check_options(temperature, symmetric, gather_distributed, reduction)
    gather = gathers(gather_distributed, "best_place_contrastive_loss")
    check_floating("visual", visual)
    check_floating("audio", audio)
    check_shapes(visual=(visual, "B C H W"), audio=(audio, "B C"))
    visual, audio = at_least_float32(visual, audio)
    divisor = safe_divisor(temperature, visual.dtype)
    with autocast_off(visual):
        # A non-finite sample makes only its own loss NaN. It is zeroed, so that it does not enter other gradients.
        finite = finite_samples(visual) & finite_samples(audio)
        visual, audio = visual.where(finite[:, None, None, None], 0), audio.where(finite[:, None], torch.nan)
        sounds, offset = gather_rows(audio) if gather else (audio, 0)
        usable = finite_samples(sounds)
        own = offset + torch.arange(visual.shape[0], device=visual.device)
        best = cross_similarity_map(visual, sounds.where(usable[:, None], 0)).amax((-2, -1))
        columns = (gather_rows(best).rows if gather else best)[:, own].mT
        positive = best.gather(1, own[:, None])[:, 0]
        directions = [(x.masked_fill(~usable, -torch.inf) / divisor).logsumexp(1) for x in (best, columns)]
        forward, backward = (x - positive / divisor for x in directions)
        loss = forward + backward if symmetric else forward
        valid = torch.ones_like(finite)
        loss, *reported = (
            reduce_samples(term.masked_fill(~finite, torch.nan), valid, reduction, all_processes=gather)
            for term in (loss, forward.detach(), backward.detach(), positive.detach())
        )
    return BestPlaceTerms(loss, *reported)


@dataclass(kw_only=True, eq=False, repr=False)
class BestPlaceContrastiveLoss(LossModule):
    """Computes :func:`best_place_contrastive_loss`, whose options are the arguments.

    Raises:
        TypeError: if an option has the wrong type.
        ValueError: if an option is out of range or unknown.

    Example:
        >>> import torch
        >>> visual = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.6, 1.0], [0.8, 0.0]]])[:, :, None]
        >>> BestPlaceContrastiveLoss(temperature=1.0)(visual, torch.eye(2))
        tensor(1.4913)
    """

    temperature: float = 0.03
    symmetric: bool = True
    gather_distributed: bool | None = None
    reduction: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_options(**self._options())

    def forward(self, visual: Tensor, audio: Tensor) -> Tensor:
        """Computes the loss of a batch: a scalar, or (B,) with ``reduction="none"``."""
        return best_place_contrastive_loss(visual, audio, **self._call_options()).loss
