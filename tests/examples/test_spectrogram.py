"""The spectrogram against SciPy's, which the field's public code calls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from avsl.spectrogram import LogSpectrogram
from scipy.signal import spectrogram


def sound(kind: str) -> np.ndarray:
    rng, t = np.random.default_rng(0), np.arange(48_000) / 16_000
    if kind == "noise":
        return rng.uniform(-1, 1, 48_000)
    if kind == "tone":
        return 0.5 * np.sin(2 * np.pi * 440 * t) + 0.3
    return np.where(t < 1.5, 0, 0.1 * rng.standard_normal(48_000))  # silence, then a little noise


@pytest.mark.parametrize("kind", ["noise", "tone", "silence"])
def test_equals_scipy(kind: str) -> None:
    samples = sound(kind).astype(np.float32)
    _, _, power = spectrogram(samples.astype(np.float64), 16_000, nperseg=512, noverlap=274)
    expected = np.log(power + 1e-7) / 12
    ours = LogSpectrogram()(torch.from_numpy(samples)[None])
    assert ours.shape == (1, 1, 257, 200)
    np.testing.assert_allclose(ours[0, 0], expected, atol=1e-5)


def test_rows_of_a_batch_are_independent() -> None:
    batch = torch.from_numpy(np.stack([sound("noise"), sound("tone")])).float()
    assert torch.equal(LogSpectrogram()(batch)[1:], LogSpectrogram()(batch[1:]))
    assert LogSpectrogram()(batch.half()).dtype == torch.float32
