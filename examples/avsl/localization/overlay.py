"""Draws a heatmap over a picture: blue and transparent for low values, red and opaque for high ones."""

from __future__ import annotations

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MAX_OPACITY = 0.7
_LEVELS = np.arange(256)
_OPACITY = np.round(256 * MAX_OPACITY * _LEVELS / 255).astype(np.uint16)
_COLORS = np.round(255 * matplotlib.colormaps["turbo"](_LEVELS)[:, :3]).astype(np.uint16)


def scaled(heat: Tensor, low: float, high: float) -> Tensor:
    """Scales [low, high] to [0, 1]; gives zeros if both are equal."""
    return ((heat - low) / (high - low)).clamp(0, 1) if high > low else torch.zeros_like(heat)


def paint(picture: np.ndarray, heat: Tensor) -> np.ndarray:
    """Paints a map (h, w) of values in [0, 1] over a picture (H, W, 3) uint8."""
    fine = F.interpolate(heat[None, None].float(), size=picture.shape[:2], mode="bicubic")[0, 0]
    level = fine.clamp(0, 1).mul(255).round().byte().numpy()
    opacity = _OPACITY[level][..., None]
    return ((picture * (256 - opacity) + _COLORS[level] * opacity) >> 8).astype(np.uint8)
