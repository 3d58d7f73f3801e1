"""The spectrogram of AudioCLIP's audio tower: products of a sound's frames and frequency B-spline wavelets (fbsp)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scipy.signal import get_window
from torch import Tensor, nn

RATE = 44_100  # Hz
SIZE = 2048  # samples of a wavelet
WINDOW = 1654  # samples of a frame; the wavelet is cut to these, in its middle
HOP = 561
BINS = SIZE // 2 + 1
BAND = BINS // 3  # bins of each of the three bands; the last two bins belong to none
FLOOR = 1e-18  # power in place of 0, −180 dB
EPSILON = 1e-8
INT16 = 32768


def blackman_harris() -> Tensor:
    """Returns the periodic Blackman-Harris window of a frame."""
    return torch.tensor(get_window("blackmanharris", WINDOW, fftbins=True), dtype=torch.float32)


def fbsp(m: Tensor, fb: Tensor, fc: Tensor, size: int) -> Tensor:
    """Computes frequency B-spline wavelets of order m, bandwidth fb and center fc, (K,) each → (K, size) complex128.

    w_k(t) = √(fb / size) · sinc(fb · t / (m + 1e-8))^m · exp(−i · fc · t) with sinc(x) = sin(x) / x, at ``size``
    equally spaced t from −π to π, both included. The power of a negative number s is |s|^m · exp(iπm).
    """
    m, fb, fc = (value.double()[:, None] for value in (m, fb, fc))
    t = torch.pi * torch.linspace(-1, 1, size, dtype=torch.float64, device=m.device) + EPSILON
    s = torch.sinc(fb * t / (m + EPSILON) / torch.pi)
    phase = torch.where(s < 0, torch.pi * m, 0.0) - fc * t
    return torch.polar((fb / size).sqrt() * s.abs() ** m, phase)


def split_frames(waveforms: Tensor) -> Tensor:
    """Splits sounds into overlapping frames, (B, samples) → (B, T, WINDOW), with zeros beyond both ends."""
    samples = waveforms.shape[-1]
    count = 1 + max(0, -(-(samples - WINDOW) // HOP))
    missing = (count - 1) * HOP + WINDOW - samples
    return F.pad(waveforms, (missing // 2, missing - missing // 2)).unfold(-1, WINDOW, HOP)


class Wavelets(nn.Module):
    """The parameters of the wavelets, one per bin. They are buffers, since they are not trained."""

    m: Tensor
    fb: Tensor
    fc: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("m", torch.zeros(BINS))
        self.register_buffer("fb", torch.ones(BINS))
        self.register_buffer("fc", torch.arange(BINS, dtype=torch.float32))
        self.register_buffer("bias", torch.empty(0))  # empty in checkpoints too


def analysis_filters(wavelets: Wavelets, window: Tensor) -> Tensor:
    """Computes the matrix that frames are multiplied with, (WINDOW, 2 · 3 · BAND): real parts, then imaginary parts.

    The product with it replaces three steps: a frame is multiplied by the window, padded to the size of the wavelets,
    and multiplied by each wavelet.
    """
    start = (SIZE - WINDOW) // 2
    middle = fbsp(wavelets.m, wavelets.fb, wavelets.fc, SIZE)[: 3 * BAND, start : start + WINDOW]
    windowed = middle * window.double()
    return torch.cat([windowed.real, windowed.imag]).T.contiguous()


def bands_in_decibels(frames: Tensor, filters: Tensor) -> Tensor:
    """Computes the power of each bin in dB, (B, T, WINDOW) → (B, 3, BAND, T); each band is one channel."""
    real, imaginary = (frames @ filters).unflatten(-1, (2, 3, BAND)).unbind(2)
    power = real.square() + imaginary.square()
    return 10 * power.masked_fill(power <= 0, FLOOR).log10().permute(0, 2, 3, 1)
