"""Object-aware contrastive alignment (OCA), Eqs. 4-6."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sslosses._checks import check_floating, check_number, check_option, check_shapes
from sslosses._passes import pool_by_first_map, unit
from sslosses._torch import at_least_float32, autocast_off, safe_divisor
from sslosses.distributed import gather_rows
from sslosses.losses._gathering import check_gathering, gathers
from sslosses.losses._inputs import Present, check_references
from sslosses.losses._module import LossModule
from sslosses.losses._reduction import REDUCTIONS, reduce_samples
from sslosses.masks import ALPHA_BACKGROUND, ALPHA_FOREGROUND, OMEGA

FALSE_NEGATIVES = ("visual-reference", "reference-reference")


class ObjectAwareTerms(NamedTuple):
    """Terms of the OCA loss: scalars, or (B,) with ``reduction="none"`` except for the last.

    Attributes:
        loss: (foreground + background) / 2.
        foreground: the foreground alignment loss, Eq. 4, over the samples with a foreground reference.
        background: the background alignment loss, Eq. 5, over those of them with a background reference.
        kept_negatives: scalar without gradient, the share of the other samples that τ keeps as soft negatives; 0
            without other samples. Near 0 there is no contrast between clips.
    """

    loss: Tensor
    foreground: Tensor
    background: Tensor
    kept_negatives: Tensor


class ObjectAwareOptions(NamedTuple):
    """The options of the loss, in the order of its arguments."""

    alpha_foreground: float
    alpha_background: float
    omega: float
    tau: float
    temperature: float
    false_negatives: str
    gather_distributed: bool | None
    reduction: str

    def checked(self) -> ObjectAwareOptions:
        """The options with Python numbers; raises if one is wrong."""
        check_option("false_negatives", self.false_negatives, FALSE_NEGATIVES)
        check_gathering(self.gather_distributed)
        check_option("reduction", self.reduction, REDUCTIONS)
        return self._replace(
            alpha_foreground=check_number("alpha_foreground", self.alpha_foreground),
            alpha_background=check_number("alpha_background", self.alpha_background),
            omega=check_number("omega", self.omega, above=0),
            tau=check_number("tau", self.tau),
            temperature=check_number("temperature", self.temperature, above=0),
        )

    def masks(self, dtype: torch.dtype) -> tuple[float, float, float]:
        """Both thresholds and the width of the masks, for :func:`~sslosses._passes.pool_by_first_map`."""
        return self.alpha_foreground, self.alpha_background, safe_divisor(self.omega, dtype)


def object_aware_contrastive_loss(
    visual: Tensor,
    audio: Tensor,
    foreground: Tensor,
    background: Tensor,
    source_mask: Tensor | None = None,
    background_mask: Tensor | None = None,
    *,
    alpha_foreground: float = ALPHA_FOREGROUND,
    alpha_background: float = ALPHA_BACKGROUND,
    omega: float = OMEGA,
    tau: float = 0.7,
    temperature: float = 1.0,
    false_negatives: str = "visual-reference",
    gather_distributed: bool | None = None,
    reduction: str = "mean",
) -> ObjectAwareTerms:
    r"""Computes the OCA loss, which aligns sounding regions with foreground and silent ones with background captions.

    .. math::
        \mathcal{L}_{frg,i} &= -\log \frac{p_i}{p_i + n_i^{hard} + n_i^{soft}}, \quad
        \mathcal{L}_{bkg,i} = -\log \frac{\hat p_i}{\hat p_i + \hat n_i^{hard}} \\
        \mathcal{L}_{oca} &= (\mathcal{L}_{frg} + \mathcal{L}_{bkg}) / 2 \\
        p_i &= e^{\mathrm{Sim}(l_{v,i}^p, l_{r,i}^p)/t}, \quad
        n_i^{hard} = e^{\mathrm{Sim}(l_{v,i}^n, l_{r,i}^p)/t} \\
        n_i^{soft} &= \sum_{j \ne i} 1[c_{ij} \le \tau] e^{c_{ij}/t}, \quad
        c_{ij} = \mathrm{Sim}(l_{v,j}^p, l_{r,i}^p) \\
        \hat p_i &= e^{\mathrm{Sim}(l_{v,i}^n, l_{r,i}^n)/t}, \quad
        \hat n_i^{hard} = e^{\mathrm{Sim}(l_{v,i}^p, l_{r,i}^n)/t}

    :math:`l_v^p, l_v^n` are the visual features pooled under the masks M^p and M^n of the audio's similarity map
    (:func:`~sslosses.masks.masked_pool`), :math:`l_r^p` is the mean of the sample's foreground references that exist,
    :math:`l_r^n` its background reference, and t the temperature (the paper has none, which is t = 1).

    Args:
        visual: (B, C, H, W), floating, visual features F_v.
        audio: (B, C), floating, audio features l_a.
        foreground: (B, K, C), floating, one reference per caption of a sounding object.
        background: (B, C), floating, the reference of the background caption.
        source_mask: (B, K) bool, True for references that exist, False for padding; None if all exist. A sample without
            any reference is treated as if it were not in the batch: it is left out of the reduction and is not a
            negative for other samples. The values of padding do not matter.
        background_mask: (B,) bool, True for samples with a background caption; None if all have one. The others have no
            background term: the mean or sum of L_bkg is over the samples that have one, that of L_frg over all. The
            values of their ``background`` do not matter.
        alpha_foreground: similarity at which M^p is one half.
        alpha_background: similarity at which M^n is one half.
        omega: width of the step of both masks, above 0.
        tau: τ; other samples with a cosine above it are treated as false negatives and left out. It has no gradient.
        temperature: t, above 0.
        false_negatives: the cosine that is compared with τ. ``"visual-reference"``: Sim(l_v,j^p, l_r,i^p), as in Eq. 4;
            ``"reference-reference"``: Sim(l_r,j^p, l_r,i^p), as in the paper's text.
        gather_distributed: whether soft negatives come from all processes. The loss and (with DistributedDataParallel)
            its gradient are then those of one process that holds the whole batch; see :mod:`sslosses.distributed`. With
            ``reduction="none"`` the values are those of this process's samples. None: not chosen.
        reduction: ``"mean"`` or ``"sum"`` over the samples with a reference that exists, or ``"none"``: (B,), 0 for
            the other samples. It applies to each of the two terms, before they are added.

    Returns:
        :class:`ObjectAwareTerms`; float64 if an input is, else float32. At temperature 1 a sample's background term is
        in [log(1 + e⁻²), log(1 + e²)], its foreground term in [log(1 + e⁻²), log(1 + e² + (B - 1) e^(1 + τ))]. Without
        any sample that has a reference, or with B = 0, the terms are zeros that keep their graph. A sample with NaN or
        inf has terms of NaN and is not a negative for the other samples.

    Raises:
        TypeError: if an input has the wrong type or dtype, or an option has the wrong type.
        ValueError: if shapes or devices do not fit or an option is out of range or unknown.

    Source: Um et al., "Object-aware Sound Source Localization via Audio-Visual Scene Understanding", Eqs. 1-6.

    Example:
        >>> import torch
        >>> visual = torch.eye(2).reshape(1, 2, 1, 2)  # the left pixel shows (1, 0), the right one (0, 1)
        >>> left, right = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> terms = object_aware_contrastive_loss(visual, left, left[:, None], right)
        >>> terms.loss  # log(1 + 1/e): the sound is on the left, as the foreground caption says
        tensor(0.3133)
        >>> object_aware_contrastive_loss(visual, right, left[:, None], right).loss  # log(1 + e): the wrong sound
        tensor(1.3133)
    """
    options = ObjectAwareOptions(
        alpha_foreground, alpha_background, omega, tau, temperature, false_negatives, gather_distributed, reduction
    ).checked()
    present, described = check_references(visual, foreground, background, source_mask, background_mask)
    check_floating("audio", audio)
    check_shapes(visual=(visual, "B C H W"), audio=(audio, "B C"))
    visual, audio, foreground, background = at_least_float32(visual, audio, foreground, background)
    with autocast_off(visual):
        _, pooled = pool_by_first_map(visual.flatten(2), unit(audio, -1)[:, None], *options.masks(visual.dtype))
        return contrast(pooled, foreground, background, Present(present, described), options)


def contrast(
    pooled: Tensor, foreground: Tensor, background: Tensor, present: Present, options: ObjectAwareOptions
) -> ObjectAwareTerms:
    """Compute the terms from (a half of) the features pooled under M^p and M^n, (B, 2, C)."""
    gather = gathers(options.gather_distributed, "object_aware_contrastive_loss")
    valid = present.foreground.any(1)
    divisor = safe_divisor(options.temperature, pooled.dtype)
    # A cosine depends on directions only, and half of a mean of large values does not overflow.
    references = (foreground.where(present.foreground[..., None], 0) / max(2 * foreground.shape[1], 1)).sum(1)
    background = background.where(present.background[:, None], 0)
    directions = unit(torch.cat([pooled, references[:, None], background[:, None]], dim=1), -1)
    # A non-finite sample is not a negative: it would make the loss or the gradient of other samples NaN.
    finite = valid & directions.detach().sum((1, 2)).isfinite()
    pairs = _compare(directions[:, 0], directions[:, 2], finite, options.tau, options.false_negatives, gather)
    negatives = pairs.cosines.masked_fill(~pairs.kept, -torch.inf)
    # Cosines of the sounding and of the silent region with the foreground and with the background reference.
    own = torch.bmm(directions[:, :2], directions[:, 2:].mT)
    logits = torch.cat([own[:, :, 0], negatives], dim=1) / divisor
    frg = logits.logsumexp(1) - logits[:, 0]
    bkg = F.softplus((own[:, 0, 1] - own[:, 1, 1]) / divisor)
    frg = reduce_samples(frg, valid, options.reduction, all_processes=gather)
    bkg = reduce_samples(bkg, present.background, options.reduction, all_processes=gather)
    share = pairs.kept.sum().to(frg.dtype) / pairs.others.sum().clamp(min=1)
    return ObjectAwareTerms((frg + bkg) / 2, frg, bkg, share)


class _Pairs(NamedTuple):
    """Pairs of this process's samples i and the samples j of all processes, each (B, G).

    Attributes:
        cosines: Sim(l_v,j^p, l_r,i^p).
        others: bool, True for two different valid samples.
        kept: bool, True for those that are soft negatives.
    """

    cosines: Tensor
    others: Tensor
    kept: Tensor


def _compare(
    sounding: Tensor, references: Tensor, valid: Tensor, tau: float, false_negatives: str, gather_distributed: bool
) -> _Pairs:
    sounding, references = (x.where(valid[:, None], 0) for x in (sounding, references))
    rows, offset = torch.cat([sounding, references, valid[:, None].to(sounding.dtype)], dim=1), 0
    if gather_distributed:
        rows, offset = gather_rows(rows)
    width = sounding.shape[1]
    cosines = references @ rows[:, :width].T
    tested = cosines if false_negatives == "visual-reference" else references @ rows[:, width:-1].T
    samples = torch.arange(rows.shape[0], device=rows.device)
    own_samples = torch.arange(offset, offset + valid.shape[0], device=rows.device)
    others = (own_samples[:, None] != samples) & valid[:, None] & (rows[:, -1] > 0)
    # Rounding can make the cosine of equal directions larger than 1, but it must not exceed τ = 1.
    return _Pairs(cosines, others, others & (tested.detach().clamp(max=1) <= tau))


@dataclass(kw_only=True, eq=False, repr=False)
class ObjectAwareContrastiveLoss(LossModule):
    """Computes :func:`object_aware_contrastive_loss`, whose options are the arguments. Also named ``OCALoss``.

    Raises:
        TypeError: if an option has the wrong type.
        ValueError: if an option is out of range or unknown.

    Example:
        >>> import torch
        >>> oca = ObjectAwareContrastiveLoss(temperature=0.07)
        >>> visual = torch.eye(2).reshape(1, 2, 1, 2)
        >>> left, right = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> print(f"{oca(visual, left, left[:, None], right):.0e}")
        8e-07
    """

    alpha_foreground: float = ALPHA_FOREGROUND
    alpha_background: float = ALPHA_BACKGROUND
    omega: float = OMEGA
    tau: float = 0.7
    temperature: float = 1.0
    false_negatives: str = "visual-reference"
    gather_distributed: bool | None = None
    reduction: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        ObjectAwareOptions(**self._options()).checked()

    def forward(
        self,
        visual: Tensor,
        audio: Tensor,
        foreground: Tensor,
        background: Tensor,
        source_mask: Tensor | None = None,
        background_mask: Tensor | None = None,
    ) -> Tensor:
        """Computes the loss of a batch: a scalar, or (B,) with ``reduction="none"``."""
        return object_aware_contrastive_loss(
            visual, audio, foreground, background, source_mask, background_mask, **self._call_options()
        ).loss
