"""Draws a heatmap over a picture: blue and transparent for low values, red and opaque for high ones."""

from __future__ import annotations

from functools import lru_cache

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MAX_OPACITY = 0.7
_LEVELS = np.arange(256)
_COLORS = np.round(255 * matplotlib.colormaps["turbo"](_LEVELS)[:, :3]).astype(np.uint16)


def scaled(heat: Tensor, low: float, high: float) -> Tensor:
    """Scales [low, high] to [0, 1]; gives zeros if both are equal."""
    return ((heat - low) / (high - low)).clamp(0, 1) if high > low else torch.zeros_like(heat)


def paint(picture: np.ndarray, heat: Tensor, opacity: float = MAX_OPACITY, threshold: float = 0.0) -> np.ndarray:
    """Paints a map (h, w) of values in [0, 1] over a picture (H, W, 3) uint8.

    ``opacity`` is that of the value 1. Values below ``threshold`` stay transparent.
    """
    fine = F.interpolate(heat[None, None].float(), size=picture.shape[:2], mode="bicubic")[0, 0]
    level = fine.clamp(0, 1).mul(255).round().byte().numpy()
    weight = _weights(opacity, threshold)[level][..., None]
    return ((picture * (256 - weight) + _COLORS[level] * weight) >> 8).astype(np.uint8)


@lru_cache
def _weights(opacity: float, threshold: float) -> np.ndarray:
    """The weight of the color of each level, in 256ths."""
    weights = np.round(256 * opacity * _LEVELS / 255)
    return np.where(round(255 * threshold) <= _LEVELS, weights, 0).astype(np.uint16)
