"""The log spectrogram of the field's public code: SciPy's ``spectrogram`` in torch, on any device."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WINDOW, OVERLAP = 512, 274


class LogSpectrogram(nn.Module):
    """Computes log(power density + 1e-7) / 12 of 16 kHz waveforms, (B, T) → (B, 1, 257, frames).

    The power density is that of ``scipy.signal.spectrogram(x, 16000, nperseg=512, noverlap=274)``: Tukey window 0.25,
    the mean of every segment removed, one-sided. The computation is in float32, even under autocast.

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
    # SciPy's periodic form: a window of one more point, without its last.
    n = torch.arange(length, dtype=torch.float64)
    ramp = alpha * length / 2
    edge = torch.minimum(n, length - n)
    return torch.where(edge < ramp, 0.5 * (1 - torch.cos(torch.pi * edge / ramp)), 1.0).float()
