"""Maps of objects that do not depend on the sound, and their blend with the map of a sound, as in EZ-VSL."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from sslosses._checks import check_count, check_floating, check_number, check_shapes
from sslosses._torch import at_least_float32, autocast_off


def object_prior(features: Tensor) -> Tensor:
    r"""Computes where a frame shows objects: the mean absolute feature of each pixel.

    .. math:: o(x) = \frac{1}{C} \sum_c |F_c(x)|

    F_c(x) is channel c of the feature of pixel x. EZ-VSL takes the last feature map of a frozen ResNet-18 trained on
    ImageNet. The prior ignores the sound, so it favors silent objects as well: report results with and without it.

    Args:
        features: (B, C, H, W), floating, features of a frozen image encoder, not normalized.

    Returns:
        (B, H, W), at least 0; float64 if the input is, else float32.

    Raises:
        TypeError: if the input is not a floating tensor.
        ValueError: if its shape does not fit.

    Source: the public code of Mo and Morgado, "Localizing Visual Sounds the Easy Way".

    Example:
        >>> import torch
        >>> features = torch.tensor([[[[1.0, -3.0], [2.0, 0.0]], [[0.0, 1.0], [4.0, -2.0]]]])
        >>> object_prior(features)
        tensor([[[0.5000, 2.0000],
                 [3.0000, 1.0000]]])
    """
    check_floating("features", features)
    check_shapes(features=(features, "B C H W"))
    (features,) = at_least_float32(features)
    return (features.abs() / features.shape[1]).sum(1)  # a sum before the division could overflow


def blend_maps(sound: Tensor, prior: Tensor, *, weight: float = 0.4, size: tuple[int, int] | None = None) -> Tensor:
    r"""Computes the weighted mean of the map of a sound and a map of objects.

    .. math:: \mathrm{norm}(w\, \mathrm{norm}(S) + (1 - w)\, \mathrm{norm}(o)), \quad
        \mathrm{norm}(m) = \frac{m - \min m}{\max m - \min m}

    S is the map of the sound, o the prior and w the weight. A constant map becomes 0 everywhere. To score maps blended
    like this, pass the prior to a metric as ``priors`` instead: :data:`~sslosses.metrics.protocols.ez_vsl` blends it.

    Args:
        sound: (B, H, W), floating, the similarity map of the sound; any scale.
        prior: (B, H, W), floating, for example :func:`object_prior`; any scale. With ``size``, its height and width may
            differ from those of ``sound``.
        weight: w, in [0, 1].
        size: height and width to which both maps are resized first, bilinearly with aligned corners. None: not resized.

    Returns:
        (B, H, W), or (B, \*size), in [0, 1]; float64 if an input is, else float32.

    Raises:
        TypeError: if an input is not a floating tensor or an option has the wrong type.
        ValueError: if shapes or devices do not fit or an option is out of range.

    Source: the public code of Mo and Morgado, "Localizing Visual Sounds the Easy Way", with its weight.

    Example:
        >>> import torch
        >>> sound, prior = torch.tensor([[[0.1, 0.5], [0.3, 0.2]]]), torch.tensor([[[0.5, 2.0], [3.0, 1.0]]])
        >>> blend_maps(sound, prior)
        tensor([[[0.0000, 0.9500],
                 [1.0000, 0.2750]]])
    """
    weight = check_number("weight", weight, least=0, most=1)
    check_floating("sound", sound)
    check_floating("prior", prior)
    check_shapes(sound=(sound, "B H W"))
    check_shapes(prior=(prior, "B H W"))
    size = None if size is None else _checked_size(size)
    sound, prior = at_least_float32(sound, prior)
    with autocast_off(sound):
        if size is not None:
            sound, prior = _resize(sound, size), _resize(prior, size)
        check_shapes(sound=(sound, "B H W"), prior=(prior, "B H W"))
        return _min_max(weight * _min_max(sound) + (1 - weight) * _min_max(prior))


def _checked_size(size: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise TypeError(f"Expected `size` to be a pair (height, width), but got {size!r}")
    height, width = (check_count("size", length) for length in size)
    return height, width


def _resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=True)[:, 0]


def _min_max(maps: Tensor) -> Tensor:
    """Maps scaled to [0, 1]; halves first, because a difference of two floats can overflow."""
    half = maps / 2
    low, high = half.amin((-2, -1), keepdim=True), half.amax((-2, -1), keepdim=True)
    span = high - low
    return (half - low) / span.masked_fill(span == 0, 1)
