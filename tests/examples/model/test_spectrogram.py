"""The spectrogram against SciPy's, which the field's public code calls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from avsl.model.spectrogram import LogSpectrogram
from scipy.signal import spectrogram


def sound(kind: str, samples: int = 48_000) -> np.ndarray:
    rng, t = np.random.default_rng(0), np.arange(samples) / 16_000
    tone = np.sin(2 * np.pi * 440 * t)
    return {
        "noise": rng.uniform(-1, 1, samples),
        "tone": 0.5 * tone + 0.3,
        "square": np.sign(np.sin(2 * np.pi * 100.3 * t)),
        "half silent": np.where(np.arange(samples) < samples // 2, 0, 0.1 * rng.standard_normal(samples)),
        "faint on an offset": 0.99 + 1e-4 * tone,
        "click": (np.arange(samples) == samples // 2).astype(float),
    }[kind].astype(np.float32)


def scipys(samples: np.ndarray) -> np.ndarray:
    _, _, power = spectrogram(samples.astype(np.float64), 16_000, nperseg=512, noverlap=274)
    return np.log(power + 1e-7) / 12


@pytest.mark.parametrize("kind", ["noise", "tone", "square", "half silent", "faint on an offset", "click"])
def test_equals_scipy(kind: str) -> None:
    samples = sound(kind)
    ours = LogSpectrogram()(torch.from_numpy(samples)[None])
    assert ours.shape == (1, 1, 257, 200)
    np.testing.assert_allclose(ours[0, 0], scipys(samples), atol=1e-5, rtol=0)


@pytest.mark.parametrize("samples", [512, 513, 749, 750, 16_000, 48_001])
@pytest.mark.parametrize("loudness", [1e-5, 1e-3, 1.0])
def test_lengths_and_loudness(samples: int, loudness: float) -> None:
    for kind in ("noise", "tone"):
        scaled = np.float32(loudness) * sound(kind, samples)
        ours = LogSpectrogram()(torch.from_numpy(scaled)[None])[0, 0]
        np.testing.assert_allclose(ours, scipys(scaled), atol=1e-5, rtol=0)


@pytest.mark.parametrize("level", [0.0, 0.7, -1.0])
def test_silence(level: float) -> None:
    ours = LogSpectrogram()(torch.full((1, 48_000), level))
    torch.testing.assert_close(ours, torch.full_like(ours, np.log(1e-7) / 12), atol=1e-5, rtol=0)


def test_too_short() -> None:
    with pytest.raises(ValueError, match="`waveform` to have at least 512 samples, but got 511"):
        LogSpectrogram()(torch.zeros(2, 511))


def test_rows_of_a_batch_are_independent() -> None:
    batch = torch.from_numpy(np.stack([sound("noise"), sound("tone")]))
    assert torch.equal(LogSpectrogram()(batch)[1:], LogSpectrogram()(batch[1:]))
    assert LogSpectrogram()(batch.half()).dtype == torch.float32


def test_autocast_changes_nothing() -> None:
    samples = torch.from_numpy(sound("noise"))[None]
    expected = LogSpectrogram()(samples)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(LogSpectrogram()(samples), expected)


def test_no_step_leaves_the_device() -> None:
    ours = LogSpectrogram().to("meta")(torch.zeros(3, 48_000, device="meta"))
    assert (ours.shape, ours.dtype, ours.device.type) == ((3, 1, 257, 200), torch.float32, "meta")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu() -> None:
    samples = sound("noise")
    with torch.autocast("cuda", torch.bfloat16):
        ours = LogSpectrogram().cuda()(torch.from_numpy(samples)[None].cuda())
    np.testing.assert_allclose(ours[0, 0].cpu(), scipys(samples), atol=1e-5, rtol=0)
