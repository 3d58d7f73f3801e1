"""Saliency of a frame: a prediction that looks and does not listen."""

from __future__ import annotations

import torch
from torch import Tensor

from sslosses._checks import check_floating, check_shapes
from sslosses._torch import at_least_float32, autocast_off, full_matmul
from sslosses.metrics.functional._inputs import check_fractions, check_values
from sslosses.metrics.functional.ciou import ratio_or_zero

#: Standard deviations of the centers, as shares of the frame's shorter side.
_CENTERS = (1 / 64, 1 / 32, 1 / 16)
_SURROUND = 4  # times that of the center


def center_surround_saliency(frames: Tensor) -> Tensor:
    r"""Computes how much each place of a frame differs from its surroundings, without any weights.

    .. math:: S = \frac{s}{\max s}, \qquad
              s = \sum_{\sigma} \sum_{c} \big| G_\sigma * c - G_{4\sigma} * c \big|, \qquad
              c \in \Big\{\frac{r + g + b}{3},\ r - g,\ b - \frac{r + g}{2}\Big\}

    with the frame's colors r, g, b and Gaussians :math:`G_\sigma` of σ = 1/64, 1/32 and 1/16 of the shorter side. At
    the edge of the frame a Gaussian is cut off and scaled to sum to 1. The channels are brightness, red against green,
    and blue against yellow. They are added as they are: scaled one by one, the noise of a gray frame's colors would
    count as much as its objects. A uniform frame is 0 everywhere.

    The result does not depend on the sound. A localizer that scores no better shows that the benchmark can be solved
    without listening.

    Args:
        frames: colors in [0, 1], (B, 3, H, W), floating.

    Returns:
        Saliency in [0, 1], (B, H, W); 1 at the most salient pixel of a frame. Half precision is computed and returned
        in float32.

    Raises:
        TypeError: if ``frames`` is not floating.
        ValueError: if its shape is wrong, or values are outside [0, 1].

    Reference:
        Itti, Koch and Niebur, A Model of Saliency-Based Visual Attention for Rapid Scene Analysis, PAMI 1998, without
        its orientations and its competition between maps.

    Example:
        >>> import torch
        >>> from sslosses.metrics import center_surround_saliency
        >>> frames = torch.full((1, 3, 64, 64), 0.5)
        >>> frames[:, 0, 40:48, 8:16] = 1.0  # a red spot
        >>> saliency = center_surround_saliency(frames)[0]
        >>> divmod(int(saliency.argmax()), 64)
        (43, 12)
        >>> round(float(saliency[43, 12]), 2), round(float(saliency[10, 50]), 2)
        (1.0, 0.0)
    """
    check_floating("frames", frames)
    check_values("frames", frames)
    check_shapes(frames=(frames, "B 3 H W"))
    if frames.shape[1] != 3:
        raise ValueError(f"Expected `frames` to have shape (B, 3, H, W), but got {tuple(frames.shape)}")
    check_fractions("frames", frames)
    (frames,) = at_least_float32(frames)
    red, green, blue = frames.unbind(1)
    channels = torch.stack([(red + green + blue) / 3, red - green, blue - (red + green) / 2], 1)
    # Relative to its minimum, a uniform channel is exactly 0: rounding cannot make it salient.
    channels = channels - channels.amin((-2, -1), keepdim=True)
    side = min(frames.shape[-2:])
    total = torch.zeros_like(red)
    with autocast_off(frames):
        for center in _CENTERS:
            sharp, blurred = (_blurred(channels, width * side) for width in (center, _SURROUND * center))
            total = total + (sharp - blurred).abs().sum(1)
    return ratio_or_zero(total, total.amax((-2, -1), keepdim=True))


def _blurred(channels: Tensor, sigma: float) -> Tensor:
    down, across = (_gaussian(side, sigma).to(channels) for side in channels.shape[-2:])
    return full_matmul(full_matmul(down, channels), across.T)


def _gaussian(side: int, sigma: float) -> Tensor:
    """Weights of the old pixels for each new pixel along an axis, (side, side), float64; every row sums to 1."""
    place = torch.arange(side, dtype=torch.float64)
    weights = torch.exp(-((place[:, None] - place) ** 2) / (2 * sigma**2))
    return weights / weights.sum(1, keepdim=True)
