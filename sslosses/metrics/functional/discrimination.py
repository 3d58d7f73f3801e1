"""Silent-object discrimination: is the map of a sound higher on the sounding object than on silent ones?"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sslosses._checks import check_floating, check_mask, check_shapes
from sslosses._torch import at_least_float32
from sslosses.metrics.functional._inputs import check_values, extremes


class Discrimination(NamedTuple):
    """Result of :func:`silent_object_discrimination`: 0-d tensors; shares are NaN without a pair."""

    share: Tensor  #: share over all pairs, in [0, 1], chance 0.5
    same_class_share: Tensor  #: share over pairs of the same class, in [0, 1], chance 0.5
    pairs: Tensor  #: number of pairs, int64
    same_class_pairs: Tensor  #: number of pairs of the same class, int64


def silent_object_discrimination(
    maps: Tensor,
    sounding: Tensor,
    silent: Tensor,
    same_class: Tensor | None = None,
    valid: Tensor | None = None,
) -> Discrimination:
    r"""Computes the share of (sounding, silent) object pairs whose mean map value is higher on the sounding object.

    .. math:: \frac{1}{|\mathcal P|} \sum_{(i, j) \in \mathcal P}
              [\bar m_i(\text{sounding}_i) > \bar m_i(\text{silent}_{ij})] + \tfrac12 [\ldots = \ldots]

    with the pairs :math:`\mathcal P` and the mean :math:`\bar m_i` of map i over a mask; ties count ½. A map that does
    not depend on the sound prefers either object equally often and scores 0.5. So does a constant map. Maps are resized
    to the masks bilinearly with half-pixel centers. Pairs with an empty mask are left out.

    Args:
        maps: one map per sounding source, (B, h, w), floating, finite.
        sounding: mask of that source's object, (B, H, W), bool.
        silent: masks of silent objects in that frame, (B, Q, H, W), bool; pad with empty masks.
        same_class: whether the silent object has the class of the sounding one, (B, Q), bool; None: none has.
        valid: True for silent objects that exist, (B, Q), bool; None: all with a non-empty mask.

    Returns:
        The shares over all pairs and over same-class pairs, with the numbers of pairs.

    Raises:
        TypeError: if ``maps`` is not floating or a mask is not boolean.
        ValueError: if shapes or devices do not fit, or a map has no pixel or non-finite values.

    Example:
        >>> import torch
        >>> from sslosses.metrics.functional import silent_object_discrimination
        >>> maps = torch.tensor([[[0.9, 0.2, 0.9]]])
        >>> sounding = torch.tensor([[[True, False, False]]])
        >>> silent = torch.tensor([[[[False, True, False]], [[False, False, True]]]])
        >>> result = silent_object_discrimination(maps, sounding, silent, torch.tensor([[False, True]]))
        >>> result.share, result.same_class_share
        (tensor(0.7500), tensor(0.5000))
    """
    wins, counted, same = pair_outcomes(maps, sounding, silent, same_class, valid)
    pairs, same_pairs = counted.sum(), (counted & same).sum()
    return Discrimination(
        (wins * counted).sum() / pairs, (wins * (counted & same)).sum() / same_pairs, pairs, same_pairs
    )


def pair_outcomes(
    maps: Tensor, sounding: Tensor, silent: Tensor, same_class: Tensor | None, valid: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes the outcome of each pair (1, ½ or 0), whether it counts, and whether it is of one class, (B, Q) each."""
    check_floating("maps", maps)
    check_mask("sounding", sounding)
    check_mask("silent", silent)
    check_shapes(maps=(maps, "B h w"), sounding=(sounding, "B H W"), silent=(silent, "B Q H W"))
    if 0 in maps.shape[-2:]:
        raise ValueError(f"Expected `maps` to have shape (B, h, w) with h, w >= 1, but got {tuple(maps.shape)}")
    flags = torch.zeros(silent.shape[:2], dtype=torch.bool, device=maps.device)
    same_class = flags if same_class is None else same_class
    valid = ~flags if valid is None else valid
    arguments = {"maps": maps, "sounding": sounding, "silent": silent, "same_class": same_class, "valid": valid}
    for name, value in arguments.items():
        check_values(name, value)
    for name, value in (("same_class", same_class), ("valid", valid)):
        check_mask(name, value)
        check_shapes(silent=(silent, "B Q H W"), **{name: (value, "B Q")})
    (maps,) = at_least_float32(maps)
    # Relative to its minimum, a constant map is exactly 0, so that rounding cannot decide its ties.
    maps = maps - extremes("maps", maps)[0]
    if maps.shape[-2:] != sounding.shape[-2:] and maps.shape[0] > 0:
        maps = F.interpolate(maps[:, None], size=sounding.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    on_sounding, has_sounding = _mean_within(maps, sounding)
    on_silent, has_silent = _mean_within(maps[:, None], silent)
    difference = on_sounding[:, None] - on_silent
    wins = (difference > 0).to(maps.dtype) + (difference == 0).to(maps.dtype) / 2
    return wins, has_sounding[:, None] & has_silent & valid, same_class


def _mean_within(maps: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    pixels = mask.sum((-2, -1))
    return (maps * mask).sum((-2, -1)) / pixels.clamp(min=1), pixels > 0
