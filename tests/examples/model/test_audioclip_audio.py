"""AudioCLIP's audio tower: wavelets, frames, decibels and the network, each against a plain reference."""

from __future__ import annotations

import cmath
import copy
import math
import warnings

import numpy as np
import pytest
import torch
from avsl.model.encoders.audioclip.audio import AudioTower
from avsl.model.encoders.audioclip.sizes import SMALL
from avsl.model.encoders.audioclip.spectrogram import fbsp, split_frames
from scipy.signal import get_window
from torch import Tensor

from .audioclip_references import Values, gate, part, sound_map, varied_weights


@pytest.fixture(scope="module")
def values() -> Values:
    return part(varied_weights(), "audio.")


@pytest.fixture(scope="module")
def tower(values: Values) -> AudioTower:
    made = AudioTower(SMALL).double()
    made.load_state_dict(values)
    return made.eval()


def sounds(samples: int, count: int = 2) -> Tensor:
    """Noise that decays, in the range of 16-bit integers."""
    noise = torch.randn(count, samples, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return 3000 * noise * torch.linspace(0, -3, samples, dtype=torch.float64).exp()


# Wavelets


def wavelets(*triples: tuple[float, float, float], size: int) -> Tensor:
    return fbsp(*torch.tensor(triples, dtype=torch.float64).T, size)


@pytest.mark.parametrize(
    ("triple", "result", "norm"),
    [
        ((0, 1, 0), 6.708204, 1),
        ((0, 1, 1), -1.341641 - 0.894427j, 1),
        ((1, 1, 1), 1.341641 - 0.569410j, 0.601759),
        ((0.5, 0.3, 1), -0.309103 - 0.453888j, 0.472814),
        ((0.5, 0.3, 2), 0.417132, 0.472814),
    ],
)
def test_known_wavelets(triple: tuple[float, float, float], result: complex, norm: float) -> None:
    wavelet = wavelets(triple, size=5)[0]
    product = (wavelet * torch.arange(1, 6)).sum()
    assert abs(complex(product) - result) < 1e-5
    assert float(wavelet.abs().square().sum().sqrt()) == pytest.approx(norm, abs=1e-5)


def test_wavelets_equal_complex_powers() -> None:
    """The sinc of some of these is negative at some t."""
    triples = [(0.5, 1.7, 3.0), (0.21, 0.9, 0.3), (2.0, 7.0, 11.5), (1e-4, 1.0, 40.0)]
    for wavelet, (m, fb, fc) in zip(wavelets(*triples, size=12), triples, strict=True):
        for value, u in zip(wavelet.tolist(), np.linspace(-1, 1, 12), strict=True):
            t = math.pi * u + 1e-8
            x = fb * t / (m + 1e-8)
            power = cmath.exp(m * cmath.log(math.sin(x) / x)) * cmath.exp(-1j * fc * t)
            assert value == pytest.approx(math.sqrt(fb / 12) * power, abs=1e-9)


def test_powers_of_small_and_negative_numbers() -> None:
    """A fractional power of a negative number is not real, and log(0) · 0 is not a number."""
    assert wavelets((0.0, 1.0, 2.0), (0.5, 2.0, 1.0), (1.0, 1.0, 0.0), size=5).isfinite().all()


# Frames and decibels


@pytest.mark.parametrize(
    ("samples", "frames", "left", "right"),
    [
        (1, 1, 826, 827),
        (1654, 1, 0, 0),
        (1655, 2, 280, 280),
        (1654 + 561, 2, 0, 0),
        (132_300, 234, 33, 34),
        (220_500, 392, 252, 253),
    ],
)
def test_frames(samples: int, frames: int, left: int, right: int) -> None:
    sound = torch.arange(1.0, samples + 1)
    padded = torch.cat([torch.zeros(left), sound, torch.zeros(right)])
    split = split_frames(sound[None])
    assert split.shape == (1, frames, 1654)
    assert len(padded) == (frames - 1) * 561 + 1654
    for i in {0, frames // 2, frames - 1}:
        assert torch.equal(split[0, i], padded[561 * i : 561 * i + 1654])


def test_decibels(tower: AudioTower, values: Values) -> None:
    """Each value from one frame, padded to 2048 samples, and one wavelet."""
    sound = sounds(5000)
    spectrogram = tower.spectrogram(sound)
    assert spectrogram.shape == (2, 3, 341, 7)
    unit = 2 * (sound + 32768) / 65535 - 1
    total = 6 * 561 + 1654 - 5000
    padded = torch.nn.functional.pad(unit, (total // 2, total - total // 2))
    window = torch.from_numpy(get_window("blackmanharris", 1654)).float().double()
    for band, row, time in ((0, 0, 0), (0, 340, 3), (1, 0, 6), (1, 200, 1), (2, 0, 2), (2, 340, 5)):
        wavelet = fbsp(*(values[f"fbsp.{name}"][[341 * band + row]] for name in ("m", "fb", "fc")), 2048)[0]
        frame = torch.nn.functional.pad(padded[:, 561 * time : 561 * time + 1654] * window, (197, 197))
        expected = 20 * (frame.to(wavelet.dtype) @ wavelet).abs().log10()
        torch.testing.assert_close(spectrogram[:, band, row, time], expected, atol=1e-6, rtol=0)


def test_a_tone_is_in_its_bin() -> None:
    """A wavelet of bin k has k periods in 2048 samples, the end points included."""
    tone = 10_000 * torch.sin(2 * torch.pi * 400 * torch.arange(44_100) / 2047)
    spectrogram = AudioTower(SMALL).spectrogram(tone[None])
    assert (spectrogram.dtype, int(spectrogram[0, :, :, 30].argmax())) == (torch.float32, 400)


def test_no_power_at_all_is_minus_180_decibels() -> None:
    tower = AudioTower(SMALL)
    tower.filters.zero_()
    assert torch.equal(tower.spectrogram(sounds(2000)), torch.full((2, 3, 341, 2), -180.0))


def test_many_sounds_equal_few(tower: AudioTower) -> None:
    many = sounds(1700, 20)
    assert torch.equal(tower.spectrogram(many)[17:], tower.spectrogram(many[17:]))


def test_autocast_leaves_decibels_alone() -> None:
    tower = AudioTower(SMALL)
    expected = tower.spectrogram(sounds(3000))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(tower.spectrogram(sounds(3000)), expected)


# Range


def test_both_scales_are_the_same_sound(tower: AudioTower) -> None:
    assert torch.equal(tower.spectrogram(sounds(3000)), tower.spectrogram(sounds(3000) / 32768, "unit"))


def test_a_range_that_looks_wrong(tower: AudioTower) -> None:
    with pytest.warns(UserWarning, match=r"`waveforms` .* 16-bit integers, .* is 0\.5\. Pass scale='unit'"):
        tower(torch.full((1, 2000), -0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tower(torch.zeros(1, 2000))
        tower(torch.full((1, 2000), 0.5), "unit")
        tower(torch.full((1, 2000), 2.0))


def test_wrong_arguments(tower: AudioTower) -> None:
    with pytest.raises(ValueError, match=r"`scale` to be 'int16' or 'unit', but got 'float'"):
        tower(torch.ones(1, 2000), "float")
    with pytest.raises(ValueError, match="`waveforms` to have at least one sample, but got none"):
        tower(torch.ones(1, 0))


# The network


def test_the_network_equals_its_reference(tower: AudioTower, values: Values) -> None:
    spectrogram = tower.spectrogram(sounds(30_000))
    expected = sound_map(spectrogram, values)
    with torch.no_grad():
        features = tower.features(sounds(30_000))
        torch.testing.assert_close(features, expected)
        pooled = (features * gate(features, 5, (1, 1), values)).mean((2, 3))
        torch.testing.assert_close(tower.pool(features), pooled)
        embedding = pooled @ values["fc.weight"].T + values["fc.bias"]
        torch.testing.assert_close(tower.embed(features), embedding)
        torch.testing.assert_close(tower(sounds(30_000)), embedding)
    assert features.std() > 1e-3


def test_channels_are_added_after_pooling(tower: AudioTower) -> None:
    one, other = sounds(9000)
    with torch.no_grad():
        pooled = tower.pool(tower.features(torch.stack([one, other]))).sum(0)
        torch.testing.assert_close(tower(torch.stack([one, other])[None]), tower.fc(pooled)[None])


@pytest.mark.parametrize(("seconds", "frames", "width"), [(3, 234, 8), (5, 392, 13)])
def test_shapes_of_the_published_size(seconds: int, frames: int, width: int) -> None:
    with torch.device("meta"):
        tower = AudioTower().eval()
        waveforms = torch.empty(2, 44_100 * seconds)
        assert tower.spectrogram(waveforms, "unit").shape == (2, 3, 341, frames)
        assert tower.features(waveforms, "unit").shape == (2, 2048, 11, width)
        assert tower(waveforms, "unit").shape == (2, 1024)
    assert sum(p.numel() for n, p in tower.named_parameters() if n.startswith("att")) == 7_023_616


def test_wavelets_follow_loaded_weights_and_are_not_trained(values: Values) -> None:
    tower, sound = AudioTower(SMALL).double().eval(), sounds(3000)
    before = tower.spectrogram(sound)
    tower.load_state_dict(values)
    assert (tower.spectrogram(sound) - before).abs().max() > 1
    assert torch.equal(copy.deepcopy(tower).spectrogram(sound), tower.spectrogram(sound))
    assert not any("fbsp" in name for name, _ in tower.named_parameters())
    assert "filters" not in tower.state_dict()


def test_filters_are_not_sent_between_processes_nor_rounded() -> None:
    """DistributedDataParallel sends all buffers before each step; other precisions convert all of them."""
    tower, sound = AudioTower(SMALL), sounds(3000)
    assert sum(buffer.nbytes for name, buffer in tower.named_buffers() if "bn" not in name) < 100_000
    expected = tower.spectrogram(sound)
    rounded = copy.deepcopy(tower).bfloat16().spectrogram(sound)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), expected, rtol=2**-8, atol=0)
    assert torch.equal(copy.deepcopy(tower).half().float().spectrogram(sound), expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("channels", [(), (2,)])
def test_no_sounds(channels: tuple[int, ...], training: bool) -> None:
    tower = AudioTower(SMALL).train(training)
    for scale in ("int16", "unit"):
        assert tower(torch.zeros(0, *channels, 3000), scale).shape == (0, 16)
    assert tower.features(torch.zeros(0, 3000)).shape == (0, 512, 11, 1)
    with pytest.raises(ValueError, match="`waveforms` to have at least one channel, but got none"):
        tower(torch.zeros(2, 0, 3000))


def test_the_floor_of_decibels() -> None:
    """A power of exactly 0 is at -180 dB; that of silence, which has a half step of 16 bits, can be lower."""
    sounds = torch.tensor([[-0.5], [0.0]]).expand(2, 44_100) / 32768
    zero, silence = AudioTower(SMALL).spectrogram(sounds, "unit")
    assert torch.equal(zero, torch.full_like(zero, -180))
    assert (round(float(silence.median())), round(float(silence.min()))) == (-214, -264)
