"""Object-aware contrastive alignment (OCA), Eqs. 4-6."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sslosses._checks import check_flag, check_floating, check_number, check_option, check_shapes
from sslosses._torch import at_least_float32, autocast_off
from sslosses.distributed import gather_rows
from sslosses.losses._inputs import check_references, finite_samples
from sslosses.losses._module import LossModule
from sslosses.losses._reduction import REDUCTIONS, reduce_samples
from sslosses.masks import ALPHA_BACKGROUND, ALPHA_FOREGROUND, OMEGA, masked_pool
from sslosses.similarity import cosine, similarity_map, unit

FALSE_NEGATIVES = ("visual-reference", "reference-reference")


class ObjectAwareTerms(NamedTuple):
    """Terms of the OCA loss. All but the last are scalars, or (B,) with ``reduction="none"``.

    Attributes:
        loss: (foreground + background) / 2.
        foreground: the foreground alignment loss, Eq. 4.
        background: the background alignment loss, Eq. 5.
        kept_negatives: scalar without gradient, the share of the other samples that τ keeps as soft negatives; 0 if
            there are none. Near 0 the contrast between clips is gone.
    """

    loss: Tensor
    foreground: Tensor
    background: Tensor
    kept_negatives: Tensor


def _check_options(
    alpha_foreground: float,
    alpha_background: float,
    omega: float,
    tau: float,
    temperature: float,
    false_negatives: str,
    gather_distributed: bool,
    reduction: str,
) -> None:
    check_number("alpha_foreground", alpha_foreground)
    check_number("alpha_background", alpha_background)
    check_number("omega", omega, above=0)
    check_number("tau", tau)
    check_number("temperature", temperature, above=0)
    check_option("false_negatives", false_negatives, FALSE_NEGATIVES)
    check_flag("gather_distributed", gather_distributed)
    check_option("reduction", reduction, REDUCTIONS)


def object_aware_contrastive_loss(
    visual: Tensor,
    audio: Tensor,
    foreground: Tensor,
    background: Tensor,
    source_mask: Tensor | None = None,
    *,
    alpha_foreground: float = ALPHA_FOREGROUND,
    alpha_background: float = ALPHA_BACKGROUND,
    omega: float = OMEGA,
    tau: float = 0.7,
    temperature: float = 1.0,
    false_negatives: str = "visual-reference",
    gather_distributed: bool = False,
    reduction: str = "mean",
) -> ObjectAwareTerms:
    r"""Align what sounds with the foreground captions and what is silent with the background caption.

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

    :math:`l_v^p, l_v^n` are the visual features pooled under the masks of the audio's similarity map
    (:func:`~sslosses.masks.masked_pool`), :math:`l_r^p` the mean of the sample's real foreground references,
    :math:`l_r^n` its background reference, t the temperature (the paper has none: 1).

    Args:
        visual: (B, C, H, W), floating, visual features F_v.
        audio: (B, C), floating, audio features l_a.
        foreground: (B, K, C), floating, one reference a caption of a sounding object.
        background: (B, C), floating, reference of the background caption.
        source_mask: (B, K) bool, which of the K references are real; all if None. A sample without any takes no part:
            it is left out of the reduction and is no negative for the others, as if it were not in the batch, whatever
            stands in its references.
        alpha_foreground: where M^p is one half.
        alpha_background: where M^n is one half.
        omega: width of both masks' step, above 0.
        tau: other samples above this raw cosine are taken for false negatives and left out. No gradient.
        temperature: divides every similarity inside the exponentials, above 0.
        false_negatives: what ``tau`` tests. ``"visual-reference"``: Sim(l_v,j^p, l_r,i^p), as Eq. 4 is printed;
            ``"reference-reference"``: Sim(l_r,j^p, l_r,i^p), as the paper's text says.
        gather_distributed: take soft negatives from all processes. Loss and (under DistributedDataParallel) gradient
            are then those of one process holding the whole batch; see :mod:`sslosses.distributed`. With
            ``reduction="none"`` the values are those of this process's samples.
        reduction: ``"mean"`` or ``"sum"`` over the samples that take part, or ``"none"``: (B,), 0 for the others.

    Returns:
        :class:`ObjectAwareTerms`; float64 if an input is, else float32. At temperature 1 a sample's background term is
        in [log(1 + e⁻²), log(1 + e²)], its foreground term in [log(1 + e⁻²), log(1 + e² + (B - 1) e^(1 + τ))]. With no
        sample to take part (or B = 0), the terms are zeros that keep their graph. A sample with NaN or inf is NaN and
        no negative for the others.

    Raises:
        TypeError: if an input has the wrong type or dtype, or an option no number.
        ValueError: if shapes or devices do not fit or an option is out of range or unknown.

    Source: Um et al., "Object-aware Sound Source Localization via Audio-Visual Scene Understanding", Eqs. 1-6.

    Example:
        >>> visual = torch.eye(2).reshape(1, 2, 1, 2)  # the left pixel shows (1, 0), the right one (0, 1)
        >>> left, right = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> terms = object_aware_contrastive_loss(visual, left, left[:, None], right)
        >>> terms.loss  # log(1 + 1/e): the sound is on the left, as the foreground caption says
        tensor(0.3133)
        >>> object_aware_contrastive_loss(visual, right, left[:, None], right).loss  # log(1 + e): the wrong sound
        tensor(1.3133)
    """
    _check_options(
        alpha_foreground, alpha_background, omega, tau, temperature, false_negatives, gather_distributed, reduction
    )
    present = check_references(visual, foreground, background, source_mask)
    check_floating("audio", audio)
    check_shapes(visual=(visual, "B C H W"), audio=(audio, "B C"))
    valid = present.any(1)
    visual, audio, foreground, background = at_least_float32(visual, audio, foreground, background)
    with autocast_off(visual):
        similarity = similarity_map(visual, audio)
        sounding = masked_pool(visual, similarity, alpha=alpha_foreground, omega=omega)
        silent = masked_pool(visual, similarity, alpha=alpha_background, omega=omega, foreground=False)
        # The sum points where the mean does, which is all that a cosine sees.
        references = foreground.where(present[..., None], 0).sum(1)
        background = background.where(valid[:, None], 0)
        # A sample of NaN is no negative: it would make NaN of the others, or of their gradient.
        sound = valid & finite_samples(sounding) & finite_samples(references) & finite_samples(background)
        pairs = _compare(sounding, references, sound, tau, false_negatives, gather_distributed)
        negatives = pairs.cosines.masked_fill(~pairs.kept, -torch.inf)
        positive = cosine(sounding, references)
        hard = cosine(silent, references)
        logits = torch.cat([positive[:, None], hard[:, None], negatives], dim=1) / temperature
        frg = logits.logsumexp(1) - logits[:, 0]
        bkg = F.softplus((cosine(sounding, background) - cosine(silent, background)) / temperature)
        frg = reduce_samples(frg, valid, reduction, all_processes=gather_distributed)
        bkg = reduce_samples(bkg, valid, reduction, all_processes=gather_distributed)
    share = pairs.kept.sum().to(frg.dtype) / pairs.others.sum().clamp(min=1)
    return ObjectAwareTerms((frg + bkg) / 2, frg, bkg, share)


class _Pairs(NamedTuple):
    cosines: Tensor
    """(B, G), Sim(l_v,j^p, l_r,i^p) of this process's samples i and the samples j of all."""
    others: Tensor
    """(B, G) bool, pairs of different samples that both take part."""
    kept: Tensor
    """(B, G) bool, those of them that are soft negatives."""


def _compare(
    sounding: Tensor, references: Tensor, valid: Tensor, tau: float, false_negatives: str, gather_distributed: bool
) -> _Pairs:
    sounding, references = (unit(x.where(valid[:, None], 0), -1) for x in (sounding, references))
    rows, offset = torch.cat([sounding, references, valid[:, None].to(sounding.dtype)], dim=1), 0
    if gather_distributed:
        rows, offset = gather_rows(rows)
    width = sounding.shape[1]
    cosines = references @ rows[:, :width].T
    tested = cosines if false_negatives == "visual-reference" else references @ rows[:, width:-1].T
    sample = torch.arange(rows.shape[0], device=rows.device)
    own = torch.arange(offset, offset + valid.shape[0], device=rows.device)
    others = (own[:, None] != sample) & valid[:, None] & (rows[:, -1] > 0)
    # Of vectors that point the same way the cosine may be rounded above 1, which is never above τ = 1.
    return _Pairs(cosines, others, others & (tested.detach().clamp(max=1) <= tau))


@dataclass(kw_only=True, eq=False, repr=False)
class ObjectAwareContrastiveLoss(LossModule):
    """Module over :func:`object_aware_contrastive_loss`; the arguments are its options. Also named ``OCALoss``.

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
    gather_distributed: bool = False
    reduction: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_options(**self._options())

    def forward(
        self,
        visual: Tensor,
        audio: Tensor,
        foreground: Tensor,
        background: Tensor,
        source_mask: Tensor | None = None,
    ) -> Tensor:
        """The OCA loss of a batch: a scalar, or (B,) with ``reduction="none"``."""
        options = self._options()
        return object_aware_contrastive_loss(visual, audio, foreground, background, source_mask, **options).loss
