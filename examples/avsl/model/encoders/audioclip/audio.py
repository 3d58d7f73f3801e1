"""AudioCLIP's audio tower: a ResNeXt-50 with gates, which reads a wavelet spectrogram (ESResNeXt-fbsp)."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .sizes import FULL, Sizes
from .spectrogram import INT16, Wavelets, analysis_filters, bands_in_decibels, blackman_harris, split_frames
from .trunk import EXPANSION, build_stages

GROUPS = 32
CHUNK = 16  # clips whose frames and spectra are in memory at the same time
#: Kernels of the gates, in frequency and time.
KERNELS = ((3, 1), (1, 5), (3, 1), (1, 5), (3, 5))

Scale = Literal["int16", "unit"]


class Gate(nn.Module):
    """Computes factors in (0, 1) for a map from the map before it, which can have another size."""

    def __init__(self, channels: int, out: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        padding = kernel[0] // 2, kernel[1] // 2
        self.conv_depth = nn.Conv2d(channels, channels, kernel, padding=padding, groups=channels)
        self.conv_point = nn.Conv2d(channels, out, 1)
        self.bn = nn.BatchNorm2d(out)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return self.bn(self.conv_point(self.conv_depth(F.adaptive_max_pool2d(x, size)))).sigmoid()


class AudioTower(nn.Module):
    """Encodes sounds of 44.1 kHz and any length, (B, samples) or (B, channels, samples) → (B, E).

    Sounds are in the range of 16-bit integers, −32768 to 32767, in which AudioCLIP was trained. With ``scale="unit"``
    they are in −1 to 1. Channels go through the network one by one, and their pooled features are added.

    Args:
        sizes: the sizes of the networks.
    """

    window: Tensor

    def __init__(self, sizes: Sizes = FULL) -> None:
        super().__init__()
        width = sizes.width
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1, self.layer2, self.layer3, self.layer4 = build_stages(width, sizes.depths, GROUPS, pooled=False)
        channels = [width, *(EXPANSION * width * 2**i for i in range(4))]
        outs = [*channels[1:], channels[-1]]
        gates = [Gate(*numbers) for numbers in zip(channels, outs, KERNELS, strict=True)]
        self.att1, self.att2, self.att3, self.att4, self.att5 = gates
        self.fc = nn.Linear(channels[-1], sizes.embedding)
        self.fbsp = Wavelets()
        self.register_buffer("window", blackman_harris())
        # No buffer: DistributedDataParallel would send these 27 MB before each step, and half() would round them.
        self.filters = analysis_filters(self.fbsp, self.window)
        self.register_load_state_dict_post_hook(_refresh_filters)

    def forward(self, waveforms: Tensor, scale: Scale = "int16") -> Tensor:
        batch, channels = len(waveforms), waveforms.shape[1] if waveforms.ndim == 3 else 1
        if channels == 0:
            raise ValueError("Expected `waveforms` to have at least one channel, but got none")
        pooled = self.pool(self.features(waveforms.flatten(0, -2), scale))
        return self.fc(pooled.unflatten(0, (batch, channels)).sum(1))

    def features(self, waveforms: Tensor, scale: Scale = "int16") -> Tensor:
        """Computes the last map, (B, samples) → (B, D, h, w), with h in frequency and w in time."""
        x = self.spectrogram(waveforms, scale)
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for stage, gate in (
            (self.layer1, self.att1),
            (self.layer2, self.att2),
            (self.layer3, self.att3),
            (self.layer4, self.att4),
        ):
            y = stage(x)
            x = y * gate(x, y.shape[2:])
        return x

    def pool(self, features: Tensor) -> Tensor:
        """Pools the last map, (B, D, h, w) → (B, D)."""
        return features.mean((2, 3)) * self.att5(features, (1, 1)).flatten(1)

    def embed(self, features: Tensor) -> Tensor:
        """Computes the embedding from the last map of a sound of one channel, (B, D, h, w) → (B, E)."""
        return self.fc(self.pool(features))

    @torch.no_grad()
    def spectrogram(self, waveforms: Tensor, scale: Scale = "int16") -> Tensor:
        """Computes the power of all bins in dB, (B, samples) → (B, 3, 341, T). The wavelets are not trained.

        The computation is in float64. In float32, rounding would change nearly empty bins by up to 40 dB. A power of
        exactly 0 counts as −180 dB, as in the public code. There is no other lower limit: most bins of silence are at
        −214 dB, and some at −264 dB.
        """
        if waveforms.shape[-1] == 0:
            raise ValueError("Expected `waveforms` to have at least one sample, but got none")
        if scale == "int16":
            _warn_of_small_range(waveforms)
        elif scale == "unit":
            waveforms = INT16 * waveforms
        else:
            raise ValueError(f"Expected `scale` to be 'int16' or 'unit', but got {scale!r}")
        return torch.cat([self._chunk(part.double()) for part in waveforms.split(CHUNK)])

    def _chunk(self, waveforms: Tensor) -> Tensor:
        # The smallest and the largest 16-bit integer become -1 and 1.
        unit = (2 * waveforms + 1) / (2 * INT16 - 1)
        self.filters = self.filters.to(unit.device)
        return bands_in_decibels(split_frames(unit), self.filters).to(self.conv1.weight.dtype)


def _warn_of_small_range(waveforms: Tensor) -> None:
    peak = float(waveforms.abs().max()) if waveforms.numel() else 0
    if 0 < peak <= 1:
        warnings.warn(
            f"Expected `waveforms` to be in the range of 16-bit integers, but the largest magnitude is {peak:.3g}. "
            "Pass scale='unit' if they are in -1 to 1.",
            stacklevel=4,
        )


def _refresh_filters(tower: AudioTower, _: Any) -> None:
    """Computes the filters again from weights that were loaded."""
    tower.filters = analysis_filters(tower.fbsp, tower.window)
