"""The paper's encoders: ResNets of ``transformers`` with a linear head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel

from ..spectrogram import LogSpectrogram
from .tower import json_values, load_pretrained

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def build_trunk(
    weights: str | dict[str, Any] | None, channels: int, widths: Sequence[int], depths: Sequence[int]
) -> ResNetModel:
    """Builds a ResNet by Hugging Face name or local folder, from scratch (None), or from an ``architecture``.

    With pretrained ``weights``, an audio trunk (``channels`` = 1) gets a new 7×7 stem with one input channel, as in the
    public code. That code trains the rest of its audio network from scratch as well (``weights=None``).
    """
    if weights is None:
        return ResNetModel(
            ResNetConfig(
                num_channels=channels,
                embedding_size=widths[0],
                hidden_sizes=list(widths),
                depths=list(depths),
                layer_type="basic",
            )
        )
    if isinstance(weights, dict):
        return ResNetModel(ResNetConfig(**weights))
    argument = "visual_weights" if channels == 3 else "audio_weights"
    trunk = load_pretrained(ResNetModel, ("resnet",), argument, weights)
    stem = trunk.embedder.embedder.convolution
    if channels != stem.in_channels:
        trunk.embedder.embedder.convolution = nn.Conv2d(channels, stem.out_channels, 7, 2, 3, bias=False)
        trunk.embedder.num_channels = trunk.config.num_channels = channels
    return trunk


class VisualEncoder(nn.Module):
    """Encodes frames, (B, 3, H, W) uint8 → (B, C, h, w), with a trunk and a 1×1 head."""

    mean: Tensor
    std: Tensor

    def __init__(self, trunk: ResNetModel, out: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Conv2d(trunk.config.hidden_sizes[-1], out, 1)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    @property
    def architecture(self) -> dict[str, Any]:
        """The configuration from which :func:`build_trunk` builds the trunk without weights."""
        return json_values(self.trunk.config)

    def forward(self, frames: Tensor) -> Tensor:
        pixels = (frames.float() / 255 - self.mean) / self.std
        return self.head(self.trunk(pixels).last_hidden_state)


class AudioEncoder(nn.Module):
    """Encodes 16 kHz waveforms, (B, T) → (B, C): log spectrogram, mean and maximum over the map, a linear head."""

    def __init__(self, trunk: ResNetModel, out: int) -> None:
        super().__init__()
        self.spectrogram = LogSpectrogram()
        self.trunk = trunk.to(memory_format=torch.channels_last)  # nearly twice as fast on a CPU
        self.head = nn.Linear(2 * trunk.config.hidden_sizes[-1], out)

    @property
    def architecture(self) -> dict[str, Any]:
        """The configuration from which :func:`build_trunk` builds the trunk without weights."""
        return json_values(self.trunk.config)

    def forward(self, waveforms: Tensor) -> Tensor:
        maps = self.trunk(self.spectrogram(waveforms)).last_hidden_state
        return self.head(torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], dim=1))
