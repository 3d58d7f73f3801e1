"""The AVGN loss: localization by class groups, identity of the class tokens, and presence of classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sslosses._checks import check_flag, check_floating, check_mask, check_number, check_option
from sslosses._torch import at_least_float32, autocast_off, safe_divisor
from sslosses.distributed import gather_rows
from sslosses.losses._gathering import check_gathering, gathers
from sslosses.losses._inputs import finite_samples
from sslosses.losses._module import LossModule
from sslosses.losses._reduction import REDUCTIONS, reduce_samples
from sslosses.losses.baselines._sources import check_sources
from sslosses.similarity import unit


class GroupingTerms(NamedTuple):
    """Terms of the grouping loss: scalars, or (B,) with ``reduction="none"``. Only the loss has a gradient.

    Attributes:
        loss: localization + token + visual_presence + audio_presence.
        localization: cross-entropy between the sounds' groups and the frames, over the samples with a source.
        token: cross-entropy of the classifier of the class tokens, which is the same for all samples.
        visual_presence: binary cross-entropy of the classes in the frame.
        audio_presence: binary cross-entropy of the classes in the sound.
    """

    loss: Tensor
    localization: Tensor
    token: Tensor
    visual_presence: Tensor
    audio_presence: Tensor


def _check_options(
    temperature: float, normalize_audio: bool, symmetric: bool, gather_distributed: bool | None, reduction: str
) -> float:
    """Check the options, and return the temperature as a Python number."""
    check_flag("normalize_audio", normalize_audio)
    check_flag("symmetric", symmetric)
    check_gathering(gather_distributed)
    check_option("reduction", reduction, REDUCTIONS)
    return check_number("temperature", temperature, above=0)


def grouping_loss(
    visual: Tensor,
    audio_groups: Tensor,
    sources: Tensor,
    token_logits: Tensor,
    visual_logits: Tensor,
    audio_logits: Tensor,
    visual_present: Tensor,
    audio_present: Tensor,
    source_mask: Tensor | None = None,
    visual_groups: Tensor | None = None,
    *,
    temperature: float = 0.03,
    normalize_audio: bool = False,
    symmetric: bool = True,
    gather_distributed: bool | None = None,
    reduction: str = "mean",
) -> GroupingTerms:
    r"""Computes the loss of audio-visual grouping, which localizes the class groups of sounds in frames.

    .. math::
        \mathcal{L} = \mathcal{L}_{loc} + \frac{1}{M} \sum_m \mathrm{CE}(T_m, m)
        + \frac{1}{BM} \sum_{b,m} \big( \mathrm{BCE}(p^v_{bm}, y^v_{bm}) + \mathrm{BCE}(p^a_{bm}, y^a_{bm}) \big)

        \mathcal{L}_{loc} = \frac{1}{BN} \sum_{b,n} \Big( -\log \frac{e^{S^n_{bb}}}{\sum_i e^{S^n_{bi}}}
        -\log \frac{e^{S^n_{bb}}}{\sum_i e^{S^n_{ib}}} \Big), \quad
        S^n_{bi} = \frac{1}{t} \max_x \Big\langle \frac{F_b(x)}{\|F_b(x)\|}, g^a_{i, s_{in}} \Big\rangle

    F_b(x) is the visual feature of pixel x, :math:`g^a_{im}` the group of class m in the sound of sample i,
    :math:`s_{in}` the class of its source n, and t the temperature. T are the logits of a classifier of the M class
    tokens, p the logits of the presence of classes, and y says which are present. CE and BCE are the cross-entropy and
    the binary cross-entropy. A source n is compared with the sources n of other samples.

    The public code differs from the paper as others describe it. The default is the code's loss for N sources. For the
    code itself, pass one source per sample, the class of its frame. For the paper's localization, pass
    ``visual_groups``, ``normalize_audio=True`` and ``symmetric=False``. The paper is said to sum CE and BCE over the
    classes, which is M times the mean here.

    Args:
        visual: (B, C, H, W), floating, visual features; any length.
        audio_groups: (B, M, C), floating, for example from :class:`ClassGrouping`.
        sources: (B, N), integer, the class in [0, M) of each source.
        token_logits: (M, M), floating, one row per token.
        visual_logits: (B, M), floating, logits of the classes in the frame.
        audio_logits: (B, M), floating, logits of the classes in the sound.
        visual_present: (B, M) bool, True for classes in the frame.
        audio_present: (B, M) bool, True for classes in the sound.
        source_mask: (B, N) bool, True for sources that exist, False for padding; None if all exist. The loss of a
            sample is the mean over its sources. A sample without any source has no localization term.
        visual_groups: (B, M, C), floating. If given, F_b(x) is multiplied, entry by entry, by the group of class
            :math:`s_{bn}` in the frame.
        temperature: t, above 0.
        normalize_audio: whether the groups of the sound are scaled to length 1, so that S is a cosine over t.
        symmetric: whether both parts of the localization count. False leaves out the first, in which a frame is
            compared with all sounds.
        gather_distributed: whether the samples of all processes are negatives. The loss and (with
            DistributedDataParallel) its gradient are then those of one process that holds the whole batch; see
            :mod:`sslosses.distributed`. None: not chosen.
        reduction: ``"mean"`` or ``"sum"`` over the samples, or ``"none"``: (B,). The mean of the localization is over
            the samples with a source. The token term counts once per sample.

    Returns:
        :class:`GroupingTerms`; float64 if an input is, else float32. With B = 1 the localization is 0. With B = 0 the
        mean and the sum are zeros that keep their graph. A sample with NaN or inf has terms of NaN and is not a
        negative for the other samples. Memory grows as B² · N · H · W, with ``gather_distributed`` times the number of
        processes.

    Raises:
        TypeError: if an input has the wrong type or dtype, or an option has the wrong type.
        ValueError: if shapes or devices do not fit, a source is not one of the classes, or an option is out of range or
            unknown.

    Source: Mo and Tian, "Audio-Visual Grouping Network for Sound Localization from Mixtures" (AVGN), its public code.
    The paper's form is by descriptions of others and unverified.

    Example:
        >>> import torch
        >>> visual = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]], [[[0.6, -1.0]], [[0.8, 0.0]]]])
        >>> groups = torch.tensor([[[2.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.5]]])
        >>> sources, present = torch.tensor([[0], [1]]), torch.eye(2, dtype=torch.bool)
        >>> logits = torch.zeros(2, 2)
        >>> terms = grouping_loss(
        ...     visual, groups, sources, logits, logits, logits, present, present, temperature=1.0
        ... )
        >>> terms.localization, terms.token, terms.visual_presence  # the last two are log 2
        (tensor(1.2440), tensor(0.6931), tensor(0.6931))
    """
    temperature = _check_options(temperature, normalize_audio, symmetric, gather_distributed, reduction)
    gather = gathers(gather_distributed, "grouping_loss")
    floating = {
        "visual": (visual, "B C H W"),
        "audio_groups": (audio_groups, "B M C"),
        "token_logits": (token_logits, "M M"),
        "visual_logits": (visual_logits, "B M"),
        "audio_logits": (audio_logits, "B M"),
    }
    if visual_groups is not None:
        floating["visual_groups"] = (visual_groups, "B M C")
    for name, (value, _) in floating.items():
        check_floating(name, value)
    present = {"visual_present": (visual_present, "B M"), "audio_present": (audio_present, "B M")}
    for name, (value, _) in present.items():
        check_mask(name, value)
    sources, exists = check_sources(sources, source_mask, floating | present, "token_logits")
    names = tuple(floating)
    values = dict(zip(names, at_least_float32(*(value for value, _ in floating.values())), strict=True))
    with autocast_off(values["visual"]):
        tokens = values.pop("token_logits")
        finite = torch.stack([finite_samples(value) for value in values.values()]).all(0)
        # Zeroed, so that a non-finite sample does not enter the gradients of the others.
        values = {n: x.where(finite.reshape(-1, *[1] * (x.ndim - 1)), 0) for n, x in values.items()}
        divisor = safe_divisor(temperature, tokens.dtype)
        audio = _of_sources(values["audio_groups"], sources)
        audio = (unit(audio, -1) if normalize_audio else audio) / divisor
        pixels = unit(values["visual"], 1).flatten(2)[:, None]
        if "visual_groups" in values:
            gates = unit(_of_sources(values["visual_groups"], sources), -1)
            pixels = unit(pixels * gates[..., None], 2)
        localization = _localization(pixels, audio, exists & finite[:, None], symmetric, gather)
        token = F.cross_entropy(tokens, torch.arange(tokens.shape[0], device=tokens.device)).expand(finite.shape)
        presence = [
            F.binary_cross_entropy_with_logits(values[f"{name}_logits"], y.to(tokens.dtype), reduction="none").mean(1)
            for name, y in (("visual", visual_present), ("audio", audio_present))
        ]
        everywhere = torch.ones_like(finite)
        terms = [
            reduce_samples(term.masked_fill(~finite, torch.nan), valid, reduction, all_processes=gather)
            for term, valid in ((localization, exists.any(1)), *((x, everywhere) for x in (token, *presence)))
        ]
    loss = torch.stack(terms).sum(0)
    return GroupingTerms(loss, *(term.detach() for term in terms))


def _of_sources(groups: Tensor, sources: Tensor) -> Tensor:
    """The groups (B, M, C) of the classes (B, N) of the sources, (B, N, C)."""
    return groups.gather(1, sources[..., None].expand(-1, -1, groups.shape[2]))


def _localization(pixels: Tensor, audio: Tensor, present: Tensor, symmetric: bool, gather: bool) -> Tensor:
    """The mean cross-entropy of each sample's sources, (B,).

    Takes unit features (B, N or 1, C, P), groups over the temperature (B, N, C), and which sources count (B, N).
    """
    sounds, counted, offset = audio, present, 0
    if gather:
        sounds, offset = gather_rows(audio)
        counted = gather_rows(present.to(audio.dtype)).rows > 0
    own = torch.arange(offset, offset + audio.shape[0], device=audio.device)
    # Frames of this process by sounds of all processes: (B, N, G).
    frames = [pixels[:, min(n, pixels.shape[1] - 1)] for n in range(audio.shape[1])]
    slots = [(sounds[:, n] @ frame).amax(-1) for n, frame in enumerate(frames)]
    # With N = 0, too, the result has a graph: that of a sum of nothing.
    nothing = (pixels[..., :0].sum() + sounds[..., :0].sum()).expand(audio.shape[0], sounds.shape[0])
    scores = torch.stack([*slots, nothing], 1)[:, :-1]
    rows, columns = scores, scores
    if gather:
        columns = gather_rows(scores).rows
    columns = columns.permute(2, 1, 0)[own]  # (B, N, G): sounds of this process by frames of all processes
    every = torch.arange(sounds.shape[0], device=audio.device)
    # The own sample always stays, so that no row is empty.
    left_out = ~counted.T & (own[:, None, None] != every)
    positive = scores.gather(2, own[:, None, None].expand(-1, scores.shape[1], 1))[..., 0]
    loss = columns.masked_fill(left_out, -torch.inf).logsumexp(2) - positive
    if symmetric:
        loss = loss + rows.masked_fill(left_out, -torch.inf).logsumexp(2) - positive
    return loss.where(present, 0).sum(1) / present.sum(1).clamp(min=1)


@dataclass(kw_only=True, eq=False, repr=False)
class GroupingLoss(LossModule):
    """Computes :func:`grouping_loss`, whose options are the arguments.

    Raises:
        TypeError: if an option has the wrong type.
        ValueError: if an option is out of range or unknown.

    Example:
        >>> import torch
        >>> visual, groups, sources = torch.ones(1, 2, 1, 1), torch.ones(1, 3, 2), torch.tensor([[1]])
        >>> logits, present = torch.zeros(1, 3), torch.tensor([[False, True, False]])
        >>> GroupingLoss()(visual, groups, sources, torch.zeros(3, 3), logits, logits, present, present)  # log 12
        tensor(2.4849)
    """

    temperature: float = 0.03
    normalize_audio: bool = False
    symmetric: bool = True
    gather_distributed: bool | None = None
    reduction: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_options(**self._options())

    def forward(
        self,
        visual: Tensor,
        audio_groups: Tensor,
        sources: Tensor,
        token_logits: Tensor,
        visual_logits: Tensor,
        audio_logits: Tensor,
        visual_present: Tensor,
        audio_present: Tensor,
        source_mask: Tensor | None = None,
        visual_groups: Tensor | None = None,
    ) -> Tensor:
        """Computes the loss of a batch: a scalar, or (B,) with ``reduction="none"``."""
        return grouping_loss(
            visual,
            audio_groups,
            sources,
            token_logits,
            visual_logits,
            audio_logits,
            visual_present,
            audio_present,
            source_mask,
            visual_groups,
            **self._call_options(),
        ).loss
