"""Resampling of waveforms to higher rates, in torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scipy.signal import firwin
from torch import Tensor, nn


class Upsample(nn.Module):
    """Resamples waveforms by a factor ``up / down``, (B, T) → (B, ⌈T · up / down⌉) float64, with a polyphase filter.

    Equal to ``scipy.signal.resample_poly(x, up, down, window=taps)`` with ``taps = firwin(64 * up + 1, 1 / up,
    window=("kaiser", 9))``: a sinc of 32 samples on either side, half amplitude at the old Nyquist frequency, zeros
    beyond the ends.

    Args:
        up: numerator of the factor.
        down: denominator of the factor, at most ``up`` and without a common divisor.
    """

    taps: Tensor
    REACH = 32

    def __init__(self, up: int, down: int = 1) -> None:
        super().__init__()
        self.up, self.down, reach = up, down, self.REACH * up
        taps = F.pad(up * torch.from_numpy(firwin(2 * reach + 1, 1 / up, window=("kaiser", 9.0))), (0, up - 1))
        # Phase p of the output at sample n is Σ_k taps[p + up·k] · x[n + REACH − k].
        phases = taps.view(-1, up).T.flip(1)
        # `down` input samples give `up` output samples: number r is phase (down·r mod up) at sample ⌊down·r / up⌋.
        period = torch.zeros(up, down - 1 + phases.shape[1], dtype=torch.float64)
        for r in range(up):
            sample, phase = divmod(down * r, up)
            period[r, sample : sample + phases.shape[1]] = phases[phase]
        self.register_buffer("taps", period.unsqueeze(1), persistent=False)

    def forward(self, waveforms: Tensor) -> Tensor:
        samples = waveforms.shape[-1]
        padding = self.REACH, self.REACH + -samples % self.down
        padded = F.pad(waveforms.double(), padding).unsqueeze(1)
        resampled = F.conv1d(padded, self.taps, stride=self.down).transpose(1, 2).flatten(1)
        return resampled[:, : -(-samples * self.up // self.down)]
