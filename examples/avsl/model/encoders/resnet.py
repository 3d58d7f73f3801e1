"""The paper's encoders: ResNets of ``transformers`` with a linear head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel

from ..spectrogram import LogSpectrogram
from .encoded import Encoding
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


def use_stride_16(trunk: ResNetModel) -> ResNetModel:
    """Makes the first block of the last stage keep the resolution, so that maps have stride 16 in place of 32.

    No weight changes, so pretrained ones can be used.
    """
    first = trunk.encoder.stages[-1].layers[0]
    for module in first.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
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
    def trunk_channels(self) -> int:
        """Number of channels of the trunk's features."""
        return self.trunk.config.hidden_sizes[-1]

    @property
    def architecture(self) -> dict[str, Any]:
        """The configuration from which :func:`build_trunk` builds the trunk without weights."""
        return json_values(self.trunk.config)

    def encode(self, frames: Tensor) -> Encoding:
        """Computes the trunk's features and the output."""
        trunk = self.trunk((frames.float() / 255 - self.mean) / self.std).last_hidden_state
        return Encoding(trunk, self.head(trunk))

    def forward(self, frames: Tensor) -> Tensor:
        return self.encode(frames).output


class AudioEncoder(nn.Module):
    """Encodes 16 kHz waveforms, (B, T) → (B, C): log spectrogram, pooling of the map, a linear head.

    Args:
        trunk: the ResNet.
        out: C.
        pooling: "mean", "max", or "mean+max" for both.
    """

    def __init__(self, trunk: ResNetModel, out: int, pooling: str = "mean+max") -> None:
        super().__init__()
        self.spectrogram = LogSpectrogram()
        self.trunk = trunk.to(memory_format=torch.channels_last)  # nearly twice as fast on a CPU
        self.pooling = pooling.split("+")
        self.head = nn.Linear(len(self.pooling) * self.trunk_channels, out)

    @property
    def trunk_channels(self) -> int:
        """Number of channels of the trunk's features."""
        return self.trunk.config.hidden_sizes[-1]

    @property
    def architecture(self) -> dict[str, Any]:
        """The configuration from which :func:`build_trunk` builds the trunk without weights."""
        return json_values(self.trunk.config)

    def encode(self, waveforms: Tensor) -> Encoding:
        """Computes the trunk's features and the output."""
        trunk = self.trunk(self.spectrogram(waveforms)).last_hidden_state
        pooled = [trunk.mean((2, 3)) if name == "mean" else trunk.amax((2, 3)) for name in self.pooling]
        return Encoding(trunk, self.head(torch.cat(pooled, dim=1)))

    def forward(self, waveforms: Tensor) -> Tensor:
        return self.encode(waveforms).output
