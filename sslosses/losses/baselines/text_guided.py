"""The T-VSL loss: names of classes pick features out of frames and sounds, and both picks have to agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sslosses._checks import check_flag, check_number, check_option
from sslosses._torch import at_least_float32, autocast_off
from sslosses.distributed import gather_rows
from sslosses.losses._gathering import check_gathering, gathers
from sslosses.losses._inputs import finite_samples
from sslosses.losses._module import LossModule, without_class_defaults
from sslosses.losses._reduction import REDUCTIONS, reduce_samples
from sslosses.losses.baselines._sources import check_sources
from sslosses.losses.baselines.text_guidance import (
    LARGEST_SCALE,
    TextGuidedHeads,
    check_features,
    check_heads,
    check_presence_scale,
    gated,
    make_tokens,
    pick,
    presence_logits,
)
from sslosses.similarity import unit


class TextGuidedTerms(NamedTuple):
    """Terms of the text-guided loss: scalars, or (B,) with ``reduction="none"``. Only the loss has a gradient.

    Attributes:
        loss: image_class + audio_class + contrast + presence.
        image_class: cross-entropy of the class of a name's pick out of its frame, over the samples with a source.
        audio_class: the same for the sound.
        contrast: cross-entropy between the picks of frames and of sounds, over the samples with a source.
        presence: binary cross-entropy of the classes in frame and sound.
    """

    loss: Tensor
    image_class: Tensor
    audio_class: Tensor
    contrast: Tensor
    presence: Tensor


class _Scales(NamedTuple):
    image: float
    audio: float
    pair: float
    presence: float | None


def _check_options(
    heads: TextGuidedHeads | None,
    image_scale: float,
    audio_scale: float,
    pair_scale: float,
    presence_scale: float | None,
    normalize_audio: bool,
    gather_distributed: bool | None,
    reduction: str,
) -> _Scales:
    """Check the options, and return the scales as Python numbers."""
    check_heads(heads)
    scales = _Scales(
        check_number("image_scale", image_scale, above=0),
        check_number("audio_scale", audio_scale, above=0),
        check_number("pair_scale", pair_scale, above=0),
        check_presence_scale(presence_scale),
    )
    check_flag("normalize_audio", normalize_audio)
    check_gathering(gather_distributed)
    check_option("reduction", reduction, REDUCTIONS)
    return scales


def text_guided_loss(
    visual: Tensor,
    audio: Tensor,
    class_text: Tensor,
    sources: Tensor,
    source_mask: Tensor | None = None,
    *,
    heads: TextGuidedHeads | None = None,
    image_scale: float = LARGEST_SCALE,
    audio_scale: float = LARGEST_SCALE,
    pair_scale: float = LARGEST_SCALE,
    presence_scale: float | None = None,
    normalize_audio: bool = False,
    gather_distributed: bool | None = None,
    reduction: str = "mean",
) -> TextGuidedTerms:
    r"""Computes the loss of T-VSL, in which names of classes pick features out of a frame and a sound.

    .. math::
        \mathcal{L} = \frac{1}{BK} \sum_{b,k} \Big( \mathrm{CE}\big(s_i\, \hat u_{bk} T^\top, c_{bk}\big)
        + \mathrm{CE}\big(s_a\, \hat a_{bk} T^\top, c_{bk}\big) + \mathcal{L}^{con}_{bk} \Big)
        + \frac{1}{BM} \sum_{b,j} \mathrm{BCE}\Big(\frac{s_p}{\sqrt 2} \langle f_b, [T_j; T_j] \rangle, y_{bj}\Big)

        u_{bk} = \operatorname{mean}_x m_{bkx} F_b(x), \quad
        m_{bkx} = \frac{\langle F_b(x), t_{bk} \rangle}{\|\langle F_b(\cdot), t_{bk} \rangle\|}, \quad
        \hat u_{bk} = \mathrm{unit}(\mathrm{gate}_i(u_{bk}))

        \mathcal{L}^{con}_{bk} = -\frac{1}{2} \Big( \log \frac{e^{s\langle q_{bk}, v_{bk} \rangle}}{\sum_{d,l}
        e^{s\langle q_{bk}, v_{dl} \rangle}} + \log \frac{e^{s\langle q_{bk}, v_{bk} \rangle}}{\sum_{d,l}
        e^{s\langle q_{dl}, v_{bk} \rangle}} \Big), \quad
        q_{bk} = \mathrm{unit}(\mathrm{gate}_q(a_{bk})), \quad v_{bk} = \mathrm{unit}(\mathrm{gate}_v(u_{bk}))

    T are the text features of the names of all M classes, with length 1. Sample b has K sources: source k has the class
    :math:`c_{bk}` and the name :math:`t_{bk} = T_{c_{bk}}`. F_b(x) is the visual feature of pixel x, after the gate of
    the visual tokens, and scaled to length 1. The name weights the pixels with the mask m, which can be negative, and
    picks the vector u. In the same way it picks a out of the cells of the sound, and :math:`\hat a` uses the gate of
    the audio picks. The MLP ``heads.fusion`` makes f from the means of the gated features of frame and sound; f has
    length 1. y is 1 for the classes of the sources, which are present, else 0. CE and BCE are the cross-entropy and the
    binary cross-entropy. unit scales to length 1, and s are scales.

    Args:
        visual: (B, C, H, W), floating, visual features in the space of the text; any length.
        audio: (B, C, T, F), floating, features of the sound before pooling, in the same space. Their length matters
            for the gate and for f.
        class_text: (M, C), floating, text features of the names of all classes; any length.
        sources: (B, K), integer, the class in [0, M) of each source.
        source_mask: (B, K) bool, True for sources that exist, False for padding; None if all exist. The loss of a
            sample is the mean over its sources. A sample without any source has the presence term only.
        heads: the gates and the fusion. None: no gates, and f is made from the means themselves.
        image_scale: :math:`s_i`, above 0.
        audio_scale: :math:`s_a`, above 0.
        pair_scale: s, above 0.
        presence_scale: :math:`s_p`, above 0. None: the trained one of ``heads``, or 100 without heads.
        normalize_audio: whether the cells of the sound are scaled to length 1 before their gate, as the pixels are. By
            default they are not, as in the public code.
        gather_distributed: whether the sources of all processes are negatives of the contrast. The loss and (with
            DistributedDataParallel) its gradient are then those of one process that holds the whole batch; see
            :mod:`sslosses.distributed`. None: not chosen.
        reduction: ``"mean"`` or ``"sum"`` over the samples, or ``"none"``: (B,). The mean of all terms but the presence
            is over the samples with a source.

    Returns:
        :class:`TextGuidedTerms`; float64 if an input is, else float32. With one sample of one source the contrast is 0.
        With B = 0 the mean and the sum are zeros that keep their graph. A sample with NaN or inf has terms of NaN and
        is not a negative for the other samples. Memory grows as (B · K)², with ``gather_distributed`` times the number
        of processes.

    Raises:
        TypeError: if an input has the wrong type or dtype, or an option has the wrong type.
        ValueError: if shapes or devices do not fit, a source is not one of the classes, or an option is out of range or
            unknown.

    Source: Mahmud et al., "T-VSL: Text-Guided Visual Sound Source Localization in Mixtures", its public code, which has
    two sources per sample; not compared with the paper's text. ``source_mask`` and ``normalize_audio`` are additions.
    In the public code, names and classes are sorted differently, which swaps two of them; here, they are one list.

    Example:
        >>> import torch
        >>> frame = torch.tensor([[1.0, 0.6], [0.0, 0.8]])[None, :, :, None]  # two pixels
        >>> sound = torch.tensor([[0.8, 0.0], [0.6, 1.0]])[None, :, :, None]  # two cells
        >>> scales = {"image_scale": 1.0, "audio_scale": 1.0, "pair_scale": 1.0}
        >>> terms = text_guided_loss(frame, sound, torch.eye(2), torch.tensor([[0, 1]]), **scales)
        >>> terms.image_class, terms.audio_class, terms.contrast
        (tensor(0.5160), tensor(0.5160), tensor(0.6197))
    """
    scales = _check_options(
        heads, image_scale, audio_scale, pair_scale, presence_scale, normalize_audio, gather_distributed, reduction
    )
    gather = gathers(gather_distributed, "text_guided_loss")
    check_features(visual, audio, class_text=(class_text, "M C"))
    check_heads(heads, visual.shape[1], visual.device)
    features = {"visual": (visual, "B C H W"), "audio": (audio, "B C T F"), "class_text": (class_text, "M C")}
    sources, exists = check_sources(sources, source_mask, features, "class_text")
    visual, audio, class_text = at_least_float32(visual, audio, class_text)
    with autocast_off(visual):
        finite = finite_samples(visual) & finite_samples(audio)
        # Zeroed, so that a non-finite sample does not enter the gradients of the others or of the heads.
        visual, audio = (x.where(finite[:, None, None, None], 0) for x in (visual, audio))
        tokens, names = make_tokens(visual, audio, heads, normalize_audio), unit(class_text, -1)
        text = names[sources]
        of_image, of_audio = pick(tokens.pixels, text), pick(tokens.cells, text)
        image_class = scales.image * gated("image_pick", heads, of_image) @ names.mT
        audio_class = scales.audio * gated("audio_pick", heads, of_audio) @ names.mT
        queries, keys = gated("query", heads, of_audio), gated("key", heads, of_image)
        counted = exists & finite[:, None]
        contrast = _contrast(scales.pair * queries, keys, counted, gather)
        classes = torch.arange(names.shape[0], device=sources.device)
        present = ((sources[..., None] == classes) & exists[..., None]).any(1)
        logits = presence_logits(tokens.fused, names, heads, scales.presence)
        presence = F.binary_cross_entropy_with_logits(logits, present.to(logits.dtype), reduction="none").mean(1)
        per_source = (_class_entropy(image_class, sources), _class_entropy(audio_class, sources), contrast)
        described, everywhere = exists.any(1), torch.ones_like(finite)
        terms = [
            reduce_samples(term.masked_fill(~finite, torch.nan), valid, reduction, all_processes=gather)
            for term, valid in (*((_mean(x, counted), described) for x in per_source), (presence, everywhere))
        ]
    loss = torch.stack(terms).sum(0)
    return TextGuidedTerms(loss, *(term.detach() for term in terms))


def _class_entropy(logits: Tensor, sources: Tensor) -> Tensor:
    """The cross-entropy (B, K) of logits (B, K, M) with the classes of the sources (B, K)."""
    return logits.logsumexp(2) - logits.gather(2, sources[..., None])[..., 0]


def _contrast(queries: Tensor, keys: Tensor, counted: Tensor, gather: bool) -> Tensor:
    """The mean of both cross-entropies (B, K) between queries and keys (B, K, C); the sources ``counted`` compete."""
    every_query, every_key, every_counted, offset = queries, keys, counted, 0
    if gather:
        (every_query, offset), (every_key, _) = gather_rows(queries), gather_rows(keys)
        every_counted = gather_rows(counted.to(queries.dtype)).rows > 0
    count = queries.shape[1]
    own = offset * count + torch.arange(counted.numel(), device=counted.device)
    every = torch.arange(every_counted.numel(), device=counted.device)
    # The own source always stays, so that no row is empty.
    left_out = ~every_counted.flatten() & (own[:, None] != every)
    queries, keys, every_query, every_key = (x.flatten(0, 1) for x in (queries, keys, every_query, every_key))
    positive = (queries * keys).sum(1)
    rows, columns = (
        (mine @ others.mT).masked_fill(left_out, -torch.inf).logsumexp(1)
        for mine, others in ((queries, every_key), (keys, every_query))
    )
    return ((rows + columns) / 2 - positive).view(counted.shape)


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """The mean of values (B, K) over the sources that are counted, 0 if there is none."""
    return values.where(counted, 0).sum(1) / counted.sum(1).clamp(min=1)


@without_class_defaults
@dataclass(kw_only=True, eq=False, repr=False)
class TextGuidedLoss(LossModule):
    """Computes :func:`text_guided_loss`, whose options are the arguments.

    The parameters of ``heads`` are parameters of this module: pass them to the optimizer, too. With several processes
    the module has to be inside DistributedDataParallel, as a part of the model.

    Raises:
        TypeError: if an option has the wrong type.
        ValueError: if an option is out of range or unknown.

    Example:
        >>> import torch
        >>> frame = torch.tensor([[1.0, 0.6], [0.0, 0.8]])[None, :, :, None]
        >>> loss = TextGuidedLoss(image_scale=1.0, audio_scale=1.0, pair_scale=1.0, presence_scale=1.0)
        >>> print(f"{loss(frame, frame, torch.eye(2), torch.tensor([[0, 1]])):.4f}")
        2.0633
    """

    heads: TextGuidedHeads | None = None
    image_scale: float = LARGEST_SCALE
    audio_scale: float = LARGEST_SCALE
    pair_scale: float = LARGEST_SCALE
    presence_scale: float | None = None
    normalize_audio: bool = False
    gather_distributed: bool | None = None
    reduction: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_options(**self._options())

    def extra_repr(self) -> str:
        """Returns the options, for printing; the heads are printed as a part."""
        options = {name: value for name, value in self._options().items() if name != "heads"}
        return ", ".join(f"{name}={value!r}" for name, value in options.items())

    def forward(
        self,
        visual: Tensor,
        audio: Tensor,
        class_text: Tensor,
        sources: Tensor,
        source_mask: Tensor | None = None,
    ) -> Tensor:
        """Computes the loss of a batch: a scalar, or (B,) with ``reduction="none"``."""
        return text_guided_loss(visual, audio, class_text, sources, source_mask, **self._call_options()).loss
