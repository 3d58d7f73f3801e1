"""Multiple-instance audio-visual correspondence: does the best place of a frame belong to the sound?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslosses._checks import check_count, check_flag, check_floating, check_number, check_option, check_shapes
from sslosses._torch import at_least_float32, autocast_off
from sslosses.distributed import gather_rows
from sslosses.losses._gathering import check_gathering, gathers
from sslosses.losses._inputs import check_scalar, finite_samples
from sslosses.losses._module import LossModule, without_class_defaults
from sslosses.losses._reduction import REDUCTIONS, reduce_samples
from sslosses.losses.baselines._negatives import NEGATIVES, SWAPS, check_negatives, choose_negatives
from sslosses.similarity import cross_similarity_map


class CorrespondenceTerms(NamedTuple):
    """Terms of the correspondence loss: scalars, or (B,) with ``reduction="none"``.

    Attributes:
        loss: (positive + negative) / 2.
        positive: cross-entropy of the matching pairs, without gradient.
        negative: cross-entropy of the mismatched pairs, without gradient; 0 for samples without a negative.
        accuracy: share of pairs on the right side of probability 1/2, without gradient. Matching and mismatched pairs
            weigh the same; a sample without a negative has its matching pair only.
    """

    loss: Tensor
    positive: Tensor
    negative: Tensor
    accuracy: Tensor


def _check_options(
    normalize: bool,
    swap: str,
    negative_bins: int,
    gather_distributed: bool | None,
    reduction: str,
) -> int:
    """Check the options, and return the number of bins as a Python integer."""
    check_flag("normalize", normalize)
    check_option("swap", swap, SWAPS)
    negative_bins = check_count("negative_bins", negative_bins)
    check_gathering(gather_distributed)
    check_option("reduction", reduction, REDUCTIONS)
    return negative_bins


def multiple_instance_correspondence_loss(
    visual: Tensor,
    audio: Tensor,
    scale: float | Tensor = 5.0,
    bias: float | Tensor = 0.0,
    *,
    normalize: bool = False,
    negatives: str | Tensor = "all",
    swap: str = "sound",
    negative_bins: int = 1,
    gather_distributed: bool | None = None,
    reduction: str = "mean",
) -> CorrespondenceTerms:
    r"""Computes the loss of a classifier that tells by its best place whether a frame and a sound belong together.

    .. math::
        \mathcal{L}_i = \frac{1}{2} \left( -\log p_{ii}
            - \operatorname{mean}_{j \in N_i} \log(1 - p_{ij}) \right), \quad
        p_{ij} = \max_x \sigma(w\, s_{ij}(x) + b), \quad
        s_{ij}(x) = \langle F_i(x), a_j \rangle

    F_i(x) is the visual feature of pixel x in frame i, a_j the j-th sound, σ the logistic function, w the ``scale``, b
    the ``bias`` and N_i the negatives. The localization map is :math:`\sigma(w s_{ii}(x) + b)`.

    Two published losses are options:

    - OTS (AVOL-Net): ``normalize=False``, with learned w and b and one drawn negative per frame.
    - Stage one of DSOL: ``normalize=True, swap="frame"`` with w learned from 5, b = 0 and one drawn negative per sound.
      Stage two has ``negative_bins=2`` as well.

    Their negatives are drawn from the data set. Pass the index of a drawn sample of the batch as ``negatives`` to have
    as many mismatched as matching pairs. The default, all other samples of the batch, has the same expected value and
    less noise.

    Args:
        visual: (B, C, H, W), floating, visual features.
        audio: (B, C), floating, audio features.
        scale: w, a finite number or a tensor with one entry, with or without gradient. Training has to start with
            w > 0: the sign decides whether large or small products stand for a match.
        bias: b, a finite number or a tensor with one entry, with or without gradient.
        normalize: whether s_ij is the cosine of F_i(x) and a_j, instead of their scalar product.
        negatives: N_i. ``"all"``: all other samples. ``"shift"``: the next sample, for the last one the first. Or (B,)
            integers, one index of this process's batch per sample. A sample with its own index has no negative.
        swap: what a negative j gives to the mismatched pair. ``"sound"``: p_ij, as above. ``"frame"``: p_ji. With
            ``"all"`` only the terms of single samples depend on it.
        negative_bins: n, at least 1. Mismatched pairs have one probability for each of n × n cells of the frame (those
            of ``torch.nn.AdaptiveMaxPool2d``), and their term is the mean over the cells.
        gather_distributed: whether ``"all"`` and ``"shift"`` are about the samples of all processes. The loss and (with
            DistributedDataParallel) its gradient are then those of one process that holds the whole batch; see
            :mod:`sslosses.distributed`. An index stays one of this process's batch. None: not chosen.
        reduction: ``"mean"`` or ``"sum"`` over the samples, or ``"none"``: (B,).

    Returns:
        :class:`CorrespondenceTerms`; float64 if an input is, else float32. The loss is above 0, and log 2 for w = b = 0
        with a negative per sample. With B = 1 there is no negative. With B = 0 the mean and the sum are zeros that
        keep their graph. A sample with NaN or inf has terms of NaN and is not a negative for the other samples:
        ``"shift"`` passes over it, and a sample whose index it is has no negative. Memory grows as B² · H · W, with
        ``gather_distributed`` times the number of processes.

    Raises:
        TypeError: if an input is not a floating tensor or an option has the wrong type.
        ValueError: if shapes or devices do not fit or an option is out of range or unknown.

    Source: Arandjelovic and Zisserman, "Objects that Sound" (OTS): the paper's text, as no public code of AVOL-Net was
    found. Hu et al., "Discriminative Sounding Objects Localization via Self-supervised Audiovisual Matching" (DSOL):
    its public code.

    Example:
        >>> import torch
        >>> visual = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]], [[[0.6, 1.0]], [[0.8, 0.0]]]])
        >>> audio = torch.eye(2)
        >>> terms = multiple_instance_correspondence_loss(visual, audio, 5.0, -3.0)
        >>> terms.loss, terms.positive, terms.negative
        (tensor(1.1735), tensor(0.2201), tensor(2.1269))
    """
    negative_bins = _check_options(normalize, swap, negative_bins, gather_distributed, reduction)
    gather = gathers(gather_distributed, "multiple_instance_correspondence_loss")
    check_floating("visual", visual)
    check_floating("audio", audio)
    check_shapes(visual=(visual, "B C H W"), audio=(audio, "B C"))
    check_negatives(negatives, visual=(visual, "B C H W"))
    visual, audio = at_least_float32(visual, audio)
    scale, bias = check_scalar("scale", scale, visual), check_scalar("bias", bias, visual)
    with autocast_off(visual):
        # A non-finite sample makes only its own loss NaN. It is zeroed, so that it does not enter other gradients.
        finite = finite_samples(visual) & finite_samples(audio)
        visual, audio = visual.where(finite[:, None, None, None], 0), audio.where(finite[:, None], 0)
        chosen = choose_negatives(negatives, finite, gather=gather)
        sounds = gather_rows(audio).rows if gather else audio
        scores = cross_similarity_map(visual, sounds) if normalize else _products(visual, sounds)
        # σ is monotone: the maximum of the logits is the logit of the maximum, also for w < 0.
        logits = scale * scores + bias
        rows = torch.arange(visual.shape[0], device=visual.device)
        own = logits[rows, chosen.own].amax((-2, -1))
        cells = _cell_maxima(logits, negative_bins)
        if swap == "frame":
            # Frames meet the sounds of all processes, so only the maxima have to be gathered.
            frames = gather_rows(cells).rows if gather else cells
            cells = frames[:, chosen.own].transpose(0, 1)
        others = chosen.pick(cells)
        positive, negative = F.softplus(-own), chosen.mean(F.softplus(others).mean(-1))
        right = (own.detach() > 0).to(own.dtype)
        wrong = chosen.mean((others.detach() < 0).to(own.dtype).mean(-1))
        accuracy = torch.where(chosen.counted.any(1), (right + wrong) / 2, right)
        terms = ((positive + negative) / 2, positive.detach(), negative.detach(), accuracy)
        valid = torch.ones_like(finite)
        return CorrespondenceTerms(
            *(
                reduce_samples(term.masked_fill(~finite, torch.nan), valid, reduction, all_processes=gather)
                for term in terms
            )
        )


def _products(visual: Tensor, sounds: Tensor) -> Tensor:
    """Scalar products of all pixels (B, C, H, W) with all sounds (G, C): (B, G, H, W)."""
    shape = (visual.shape[0], sounds.shape[0], *visual.shape[2:])
    return torch.matmul(sounds, visual.flatten(2)).view(shape)


def _cell_maxima(maps: Tensor, bins: int) -> Tensor:
    """Maxima of bins × bins cells of maps (B, G, H, W): (B, G, bins²), with a deterministic gradient on a GPU too."""
    bands = (maps[..., top:bottom, :] for top, bottom in _bins(maps.shape[-2], bins))
    cells = [band[..., left:right].amax((-2, -1)) for band in bands for left, right in _bins(maps.shape[-1], bins)]
    return torch.stack(cells, dim=-1)


def _bins(size: int, count: int) -> list[tuple[int, int]]:
    """First and last + 1 index of each bin. Bins overlap where ``size`` is not a multiple of ``count``."""
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


@without_class_defaults
@dataclass(kw_only=True, eq=False, repr=False)
class MultipleInstanceCorrespondenceLoss(LossModule):
    """Computes :func:`multiple_instance_correspondence_loss`, whose options are the arguments.

    ``scale`` and ``bias`` are learned: pass the module's parameters to the optimizer, too. The arguments are their
    values at the start. With several processes the module has to be inside DistributedDataParallel, as a part of the
    model, to have the same ``scale`` and ``bias`` in all of them. Freeze one with ``loss.bias.requires_grad_(False)``.

    Raises:
        TypeError: if an option has the wrong type.
        ValueError: if an option is out of range or unknown, or if ``scale`` is not above 0.

    Example:
        >>> import torch
        >>> loss = MultipleInstanceCorrespondenceLoss(scale=5.0, bias=-3.0)
        >>> visual = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]], [[[0.6, 1.0]], [[0.8, 0.0]]]])
        >>> print(f"{loss(visual, torch.eye(2)):.4f}")
        1.1735
        >>> [name for name, _ in loss.named_parameters()]
        ['scale', 'bias']
    """

    scale: float | nn.Parameter = 5.0
    bias: float | nn.Parameter = 0.0
    normalize: bool = False
    negatives: str = "all"
    swap: str = "sound"
    negative_bins: int = 1
    gather_distributed: bool | None = None
    reduction: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        scale, bias = check_number("scale", self.scale, above=0), check_number("bias", self.bias)
        check_option("negatives", self.negatives, NEGATIVES)
        options = self._options()
        del options["scale"], options["bias"], options["negatives"]
        _check_options(**options)
        self.scale = nn.Parameter(torch.tensor(float(scale)))
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    def extra_repr(self) -> str:
        """Returns the options, for printing; of learned ones, the current values."""
        options = self._options()
        for name in ("scale", "bias"):
            value = options[name]
            options[name] = "meta" if value.is_meta else round(float(value.detach()), 6)
        return ", ".join(f"{name}={value!r}" for name, value in options.items())

    def forward(self, visual: Tensor, audio: Tensor, negatives: Tensor | None = None) -> Tensor:
        """Computes the loss of a batch: a scalar, or (B,) with ``reduction="none"``.

        ``negatives`` is an index as in the function, in place of the option.
        """
        options = self._call_options()
        if negatives is not None:
            options["negatives"] = negatives
        return multiple_instance_correspondence_loss(visual, audio, **options).loss
