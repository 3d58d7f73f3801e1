"""Log spectrogram of the field's public code: SciPy's ``spectrogram`` in torch, on any device."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WINDOW, OVERLAP = 512, 274


class LogSpectrogram(nn.Module):
    """log(power density + 1e-7) / 12 of 16 kHz waveforms, (B, T) → (B, 1, 257, frames).

    Equal to ``scipy.signal.spectrogram(x, 16000, nperseg=512, noverlap=274)`` with its defaults: Tukey window 0.25,
    every segment's mean removed, one-sided power density. Computed in float32, under autocast too.

    Raises:
        ValueError: if a waveform is shorter than the window.
    """

    window: Tensor

    def __init__(self, sample_rate: int = 16_000) -> None:
        super().__init__()
        self.register_buffer("window", _tukey(WINDOW, 0.25), persistent=False)
        self.scale = 1.0 / (sample_rate * float(self.window.square().sum()))

    def forward(self, waveform: Tensor) -> Tensor:
        if waveform.shape[-1] < WINDOW:
            raise ValueError(f"Expected `waveform` to have at least {WINDOW} samples, but got {waveform.shape[-1]}")
        segments = waveform.float().unfold(-1, WINDOW, WINDOW - OVERLAP)
        segments = segments - segments.mean(-1, keepdim=True)
        power = torch.fft.rfft(segments * self.window).abs().square() * self.scale
        power[..., 1:-1] *= 2
        return ((power + 1e-7).log() / 12).transpose(-1, -2).unsqueeze(1)


def _tukey(length: int, alpha: float) -> Tensor:
    # SciPy's periodic form: one point more, the last left out.
    n = torch.arange(length, dtype=torch.float64)
    ramp = alpha * length / 2
    edge = torch.minimum(n, length - n)
    return torch.where(edge < ramp, 0.5 * (1 - torch.cos(torch.pi * edge / ramp)), 1.0).float()
