"""Soft, hard and straight-through masks over similarity maps (Eq. 2), and pooling under them (Eq. 3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sslosses._checks import check_dimensions, check_flag, check_floating, check_number, check_shapes
from sslosses._passes import weighted_sums
from sslosses._torch import at_least_float32, autocast_off, safe_divisor

ALPHA_FOREGROUND = 0.65
ALPHA_BACKGROUND = 0.4
OMEGA = 0.03


class TriMapMasks(NamedTuple):
    """The positive, negative and ignored share of every pixel, each (..., H, W) in [0, 1]; they sum to 1."""

    positive: Tensor
    negative: Tensor
    ignore: Tensor


def _check_map(similarity: Tensor) -> None:
    check_floating("similarity", similarity)
    check_dimensions("similarity", similarity, "... H W")


def _score(similarity: Tensor, alpha: float, omega: float) -> Tensor:
    _check_map(similarity)
    alpha = check_number("alpha", alpha)
    omega = check_number("omega", omega, above=0)
    (similarity,) = at_least_float32(similarity)
    return (similarity - alpha) / safe_divisor(omega, similarity.dtype)


def foreground_mask(similarity: Tensor, *, alpha: float = ALPHA_FOREGROUND, omega: float = OMEGA) -> Tensor:
    r"""Computes the soft mask of the pixels that match the sound.

    .. math:: M^p = \sigma((S_a - \alpha_p) / \omega)

    S_a is the similarity map, σ the logistic function, :math:`\alpha_p` the threshold ``alpha`` and ω the width.

    Args:
        similarity: (..., H, W), floating, in [-1, 1].
        alpha: similarity at which the mask is one half.
        omega: width of the step, above 0.

    Returns:
        The mask, (..., H, W), in [0, 1]; float64 if the input is, else float32.

    Raises:
        TypeError: if the input is not a floating tensor or an option is not a number.
        ValueError: if an option is out of range.

    Source: Um et al., Eq. 2.

    Example:
        >>> import torch
        >>> foreground_mask(torch.tensor([[0.0, 0.65, 1.0]]))
        tensor([[3.8930e-10, 5.0000e-01, 9.9999e-01]])
    """
    return torch.sigmoid(_score(similarity, alpha, omega))


def background_mask(similarity: Tensor, *, alpha: float = ALPHA_BACKGROUND, omega: float = OMEGA) -> Tensor:
    r"""Computes the soft mask of the pixels that do not match the sound.

    .. math:: M^n = 1 - \sigma((S_a - \alpha_n) / \omega)

    S_a is the similarity map, σ the logistic function, :math:`\alpha_n` the threshold ``alpha`` and ω the width.

    Args:
        similarity: (..., H, W), floating, in [-1, 1].
        alpha: similarity at which the mask is one half.
        omega: width of the step, above 0.

    Returns:
        The mask, (..., H, W), in [0, 1]; float64 if the input is, else float32.

    Raises:
        TypeError: if the input is not a floating tensor or an option is not a number.
        ValueError: if an option is out of range.

    Source: Um et al., Eq. 2.

    Example:
        >>> import torch
        >>> background_mask(torch.tensor([[0.0, 0.4, 1.0]]))
        tensor([[1.0000e+00, 5.0000e-01, 2.0611e-09]])
    """
    return torch.sigmoid(-_score(similarity, alpha, omega))


def trimap_masks(
    similarity: Tensor,
    *,
    alpha_foreground: float = ALPHA_FOREGROUND,
    alpha_background: float = ALPHA_BACKGROUND,
    omega: float = OMEGA,
) -> TriMapMasks:
    r"""Computes the positive, negative and ignored share of every pixel.

    .. math:: M^p = \sigma((S - \alpha_p)/\omega), \quad M^n = 1 - \sigma((S - \alpha_n)/\omega), \quad
        M^{ign} = 1 - M^p - M^n

    S is the similarity map, σ the logistic function, :math:`\alpha_p` is ``alpha_foreground``, :math:`\alpha_n` is
    ``alpha_background`` and ω the width.

    Args:
        similarity: (..., H, W), floating, in [-1, 1].
        alpha_foreground: similarity at which the positive mask is one half; at least ``alpha_background``.
        alpha_background: similarity at which the negative mask is one half.
        omega: width of both steps, above 0.

    Returns:
        :class:`TriMapMasks`, each (..., H, W) in [0, 1]; they sum to 1.

    Raises:
        TypeError: if the input is not a floating tensor or an option is not a number.
        ValueError: if an option is out of range.

    Source: Chen et al., "Localizing Visual Sounds the Hard Way", section 3.2.

    Example:
        >>> import torch
        >>> trimap_masks(torch.tensor([[0.0, 0.5, 1.0]]), omega=0.01).ignore.round()
        tensor([[0., 1., 0.]])
    """
    alpha_background = check_number("alpha_background", alpha_background)
    alpha_foreground = check_number("alpha_foreground", alpha_foreground, least=alpha_background)
    positive = foreground_mask(similarity, alpha=alpha_foreground, omega=omega)
    negative = background_mask(similarity, alpha=alpha_background, omega=omega)
    # The difference of two sigmoids is never below 0; rounding can make 1 - positive - negative negative.
    ignore = foreground_mask(similarity, alpha=alpha_background, omega=omega) - positive
    return TriMapMasks(positive, negative, ignore)


def hard_mask(similarity: Tensor, *, threshold: float | None = None, area: float | None = None) -> Tensor:
    """Computes the mask of the pixels that reach ``threshold``, or of a given share of pixels with the largest values.

    Args:
        similarity: (..., H, W), floating.
        threshold: values >= ``threshold`` are kept. Pass this or ``area``.
        area: share of pixels to keep, in (0, 1]: round(area · H · W) pixels, but at least one. Ties are broken
            arbitrarily.

    Returns:
        (..., H, W) bool.

    Raises:
        TypeError: if the input is not a floating tensor or an option is not a number.
        ValueError: if not exactly one of ``threshold`` and ``area`` is given, or it is out of range.

    Example:
        >>> import torch
        >>> values = torch.tensor([[0.1, 0.9], [0.7, 0.3]])
        >>> hard_mask(values, threshold=0.3)
        tensor([[False,  True],
                [ True,  True]])
        >>> hard_mask(values, area=0.5)
        tensor([[False,  True],
                [ True, False]])
    """
    _check_map(similarity)
    if (threshold is None) == (area is None):
        raise ValueError(f"Expected one of `threshold` and `area`, but got threshold={threshold} and area={area}")
    (similarity,) = at_least_float32(similarity)
    if threshold is not None:
        threshold = check_number("threshold", threshold)
        return similarity >= threshold
    return (
        torch.zeros_like(similarity, dtype=torch.bool)
        .flatten(-2)
        .scatter(-1, _largest(similarity, area).indices, True)
        .view(similarity.shape)
    )


def _largest(similarity: Tensor, area: float | None) -> torch.return_types.topk:
    area = check_number("area", area, above=0, most=1)
    assert area is not None
    pixels = similarity.flatten(-2)
    pixels = pixels.masked_fill(pixels.isnan(), -torch.inf)  # topk sorts NaN as the largest value
    return pixels.topk(min(pixels.shape[-1], max(1, round(area * pixels.shape[-1]))), dim=-1)


def straight_through_mask(
    similarity: Tensor, *, threshold: float | None = None, area: float | None = None, omega: float = OMEGA
) -> Tensor:
    r"""Computes a hard mask with the gradient of a soft mask.

    The value is that of :func:`hard_mask`. The gradient is that of :math:`\sigma((S - t)/\omega)`, where S is the
    similarity map, σ the logistic function, ω the width, and t the threshold, or with ``area`` the smallest value kept.

    Args:
        similarity: (..., H, W), floating.
        threshold: as in :func:`hard_mask`. Pass this or ``area``.
        area: as in :func:`hard_mask`.
        omega: width of the soft step, above 0.

    Returns:
        (..., H, W), 0 or 1; float64 if the input is, else float32.

    Raises:
        TypeError: if the input is not a floating tensor or an option is not a number.
        ValueError: if not exactly one of ``threshold`` and ``area`` is given, or an option is out of range.

    Source: the straight-through estimator of Bengio et al., "Estimating or Propagating Gradients Through Stochastic
    Neurons".

    Example:
        >>> import torch
        >>> values = torch.tensor([[0.1, 0.65]], requires_grad=True)
        >>> mask = straight_through_mask(values, threshold=0.65)
        >>> mask.detach(), torch.autograd.grad(mask.sum(), values)[0][0, 1]
        (tensor([[0., 1.]]), tensor(8.3333))
    """
    omega = check_number("omega", omega, above=0)
    hard = hard_mask(similarity, threshold=threshold, area=area)
    (similarity,) = at_least_float32(similarity)
    if threshold is not None:
        step: Tensor | float = threshold
    else:
        step = _largest(similarity.detach(), area).values[..., -1:, None]
    soft = torch.sigmoid((similarity - step) / safe_divisor(omega, similarity.dtype))
    return hard.to(soft.dtype) + (soft - soft.detach())


def mask_weights(similarity: Tensor, *, alpha: float, omega: float = OMEGA, foreground: bool = True) -> Tensor:
    r"""Computes a soft mask divided by its sum over the pixels, in log space.

    .. math:: w = M / \sum_x M(x) = \mathrm{softmax}_x \log \sigma(\pm (S - \alpha)/\omega)

    M is the mask, S the similarity map, x a pixel, σ the logistic function, α is ``alpha`` and ω the width. The sign is
    plus for the foreground and minus for the background.

    If the mask underflows at every pixel, so does the quotient: in half precision at S ≈ 0 (M^p ≈ 4e-10), in float32 at
    ω ≈ 0.01 and below. The softmax does not.

    Args:
        similarity: (..., H, W), floating, in [-1, 1].
        alpha: similarity at which the mask is one half.
        omega: width of the step, above 0.
        foreground: True for the weights of M^p, False for those of M^n.

    Returns:
        (..., H, W), at least 0, with sum 1 over the last two dimensions; float64 if the input is, else float32.

    Raises:
        TypeError: if the input is not a floating tensor or an option is not a number.
        ValueError: if an option is out of range.

    Source: Um et al., Eqs. 2 and 3.

    Example:
        >>> import torch
        >>> mask_weights(torch.full((1, 2, 2), -1.0), alpha=0.65)
        tensor([[[0.2500, 0.2500],
                 [0.2500, 0.2500]]])
    """
    check_flag("foreground", foreground)
    score = _score(similarity, alpha, omega)
    with autocast_off(score):
        log_mask = F.logsigmoid(score if foreground else -score)
        return log_mask.flatten(-2).softmax(-1).view(log_mask.shape)


def masked_pool(
    features: Tensor, similarity: Tensor, *, alpha: float, omega: float = OMEGA, foreground: bool = True
) -> Tensor:
    r"""Computes the mean feature under a soft mask of the similarity.

    .. math:: l = \sum_x w(x) F(x), \quad w = M / \sum_x M(x)

    F(x) is the feature of pixel x, and M the mask, :func:`foreground_mask` or :func:`background_mask`. The result has
    the direction of the paper's :math:`\mathrm{GAP}(\langle F, M \rangle)` and another length, which does not matter
    to a cosine. Unlike the paper's, it has a useful value and gradient at every similarity.

    Args:
        features: (B, C, H, W), floating.
        similarity: (B, H, W), floating, in [-1, 1].
        alpha: similarity at which the mask is one half.
        omega: width of the step, above 0.
        foreground: True to pool under M^p, False to pool under M^n.

    Returns:
        (B, C); float64 if an input is, else float32.

    Raises:
        TypeError: if an input is not a floating tensor or an option is not a number.
        ValueError: if the shapes or devices do not fit or an option is out of range.

    Source: Um et al., Eq. 3.

    Example:
        >>> import torch
        >>> features = torch.tensor([[[[1.0, 3.0]]]])
        >>> masked_pool(features, torch.tensor([[[-1.0, 1.0]]]), alpha=0.65)
        tensor([[3.]])
        >>> masked_pool(features, torch.tensor([[[-1.0, 1.0]]]), alpha=0.4, foreground=False)
        tensor([[1.]])
    """
    check_floating("features", features)
    check_floating("similarity", similarity)
    check_shapes(features=(features, "B C H W"), similarity=(similarity, "B H W"))
    features, similarity = at_least_float32(features, similarity)
    with autocast_off(features):
        weights = mask_weights(similarity, alpha=alpha, omega=omega, foreground=foreground)
        half = weighted_sums(features.flatten(2), weights.flatten(1)[:, None] / 2)[..., 0]
        # By rounding, a mean can exceed the largest of its values, and overflow if that is the largest float.
        limit = torch.finfo(half.dtype).max * (0.5 - torch.finfo(half.dtype).eps)
        return 2 * (half * (limit / half.detach().abs()).clamp(max=1))
