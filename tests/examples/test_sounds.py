"""One reader of sounds for training, localization and preparation."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.io.wavfile
import soundfile
import torch
from avsl.clip_ids import Sound
from avsl.data.scenes import Scenes
from avsl.localization.user_files import read_sound
from avsl.sounds import blocks, joined, level, mono, read_clip
from torch.utils.data import DataLoader

RATE = 16_000
RNG = np.random.default_rng(0)
TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(3 * RATE) / RATE)
NOISE = 0.2 * RNG.standard_normal(3 * RATE)


def in_training(path: Path) -> np.ndarray:
    return read_clip(Sound(path))


def in_localization(path: Path) -> np.ndarray:
    return read_sound(path).numpy()


READERS = [in_training, in_localization]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAW", "ULAW"])
def test_every_sample_format_is_read_at_the_same_level(tmp_path: Path, subtype: str, read: Callable) -> None:
    soundfile.write(tmp_path / "a.wav", TONE, RATE, subtype=subtype)
    waveform = read(tmp_path / "a.wav")
    assert (waveform.shape, waveform.dtype) == ((48_000,), np.float32)
    assert np.abs(waveform - TONE).max() < 0.02


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("kind", ["u1", "i2", "i4", "f4", "f8"])
def test_files_that_scipy_writes(tmp_path: Path, kind: str, read: Callable) -> None:
    scale, shift = {"u1": (127, 128), "i2": (32_767, 0), "i4": (2**31 - 1, 0)}.get(kind, (1, 0))
    scipy.io.wavfile.write(tmp_path / "a.wav", RATE, (TONE * scale + shift).astype(kind))
    assert np.abs(read(tmp_path / "a.wav") - TONE).max() < 0.02


@pytest.mark.parametrize("subtype", ["PCM_24", "FLOAT"])
def test_a_quiet_sound_is_not_rounded_to_16_bits(tmp_path: Path, subtype: str) -> None:
    soundfile.write(tmp_path / "a.wav", 1e-4 * TONE, RATE, subtype=subtype)
    assert np.abs(in_training(tmp_path / "a.wav") / 1e-4 - TONE).max() < 0.01


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("channels", [6, 8, 16, 33])  # 8 is 7.1
def test_sounds_of_many_channels(tmp_path: Path, channels: int, read: Callable) -> None:
    samples = np.zeros((3 * RATE, channels))
    samples[:, channels // 2 :] = TONE[:, None]
    soundfile.write(tmp_path / "a.wav", samples, RATE)
    assert np.abs(read(tmp_path / "a.wav") - TONE).max() < 0.02


CHANNELS = {
    "the second only": ([0, TONE], TONE),
    "the center of 5.1": ([0, 0, TONE, 0, 0, 0], TONE),
    "one inverted": ([TONE, -TONE], TONE),
    "one inverted and weaker": ([TONE, -0.6 * TONE], 0.8 * TONE),
    "one inverted and offset": ([TONE + 0.3, 0.3 - TONE], TONE),
    "two of three inverted": ([TONE, -TONE, -TONE], TONE),
    "a pair that cancels beside a louder sound": ([3 * NOISE, TONE, -TONE], (3 * NOISE + 2 * TONE) / 3),
    "equal": ([TONE, TONE], TONE),
    "different": ([TONE, NOISE], (TONE + NOISE) / 2),
    "one of four": ([TONE, 0, 0, TONE], TONE),
}


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("name", CHANNELS)
def test_channels_are_joined_without_cancelling(tmp_path: Path, name: str, read: Callable) -> None:
    channels, expected = CHANNELS[name]
    stacked = np.stack([np.broadcast_to(channel, TONE.shape) for channel in channels], 1)
    soundfile.write(tmp_path / "a.wav", stacked, RATE, subtype="FLOAT")
    waveform = read(tmp_path / "a.wav").astype(float)
    waveform -= waveform.mean()
    sign = np.sign(waveform @ expected)
    assert np.abs(sign * waveform - expected + expected.mean()).max() < 1e-3


def test_equal_channels_give_exactly_their_samples() -> None:
    samples = NOISE.astype(np.float32)
    assert np.array_equal(mono(np.stack([samples, samples])), samples)
    assert np.array_equal(mono(samples[None]), samples)
    assert mono(np.full((2, 9), 0.25, np.float32)).tolist() == [0.25] * 9


def test_level() -> None:
    assert level(TONE) == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)))
    assert level(TONE + 0.4) == pytest.approx(level(TONE))
    assert level(np.full(9, 0.5, np.float32)) == level(np.zeros(9)) == -np.inf


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_is_named_with_its_time(tmp_path: Path, value: float, read: Callable) -> None:
    samples = np.stack([NOISE, NOISE], 1)
    samples[24_000:24_010, 1] = value
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    with pytest.raises(ValueError, match=r"a\.wav to hold finite samples, but 10 of 48000 .*, the first at 1\.50 s"):
        read(tmp_path / "a.wav")


def test_a_file_that_holds_less_than_its_header_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.wav", NOISE, RATE)
    whole = soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda file, frames, **how: whole(file, frames // 2, **how))
    with pytest.raises(ValueError, match=r"a\.wav to hold 48000 samples, but it is truncated"):
        in_training(tmp_path / "a.wav")


def replace(root: Path, *names: str, samples: np.ndarray, subtype: str = "PCM_16") -> None:
    for name in names:
        soundfile.write(root / "audio" / f"{name}.wav", samples, RATE, subtype=subtype)


def test_silent_and_constant_sounds_are_reported_once(music: Path, caplog: pytest.LogCaptureFixture) -> None:
    replace(music, "b", samples=np.zeros(48_000))
    replace(music, "d", samples=np.full(48_000, 0.3))
    replace(music, "e", samples=32_767 * TONE, subtype="FLOAT")
    with caplog.at_level(logging.WARNING):
        scenes = Scenes(music, ["a", "b", "c", "d", "e"], 16)
        for index in (0, 1, 2, 3, 4, 1, 3):
            scenes[index]
    first, second, third = (record.getMessage() for record in caplog.records)
    assert first.endswith("b.wav is silent or constant: its level is -inf dBFS. Sounds with a warning so far: 1 of 5")
    assert "d.wav is silent or constant" in second
    assert "e.wav has samples up to 1638" in third
    assert third.endswith(", but full scale is 1. Sounds with a warning so far: 3 of 5")


def test_a_silent_sound_outside_the_sample_is_reported_when_it_is_read(
    music: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avsl.data.scenes._SAMPLE", 1)
    replace(music, "b", samples=np.zeros(48_000))
    with caplog.at_level(logging.WARNING):
        scenes = Scenes(music, ["a", "b"], 16)
        assert not caplog.records
        scenes[0, 1]
        scenes[1]
    assert len(caplog.records) == 1
    assert "b.wav is silent" in caplog.text


def test_worker_processes_share_what_was_reported(music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avsl.data.scenes._SAMPLE", 1)
    replace(music, "b", samples=np.zeros(48_000))
    scenes = Scenes(music, ["a", "b"], 16)
    for _ in DataLoader(scenes, batch_sampler=[[(1,)], [(0,)]], num_workers=1, collate_fn=list):
        pass
    assert scenes._flawed.tolist() == [False, True]


@pytest.mark.parametrize("samples", [np.zeros(48_000), np.full(48_000, -0.2), 1e-4 * NOISE])
def test_a_folder_without_any_sound_is_an_error(music: Path, samples: np.ndarray) -> None:
    replace(music, "a", "b", samples=samples)
    with pytest.raises(ValueError, match=r"above -60 dBFS, but all of the 2 .* silent or constant, first .*a\.wav"):
        Scenes(music, ["a", "b"], 16)
    assert len(Scenes(music, [], 16)) == 0


class Frame:
    """The part of a decoded frame that is read."""

    format, layout = SimpleNamespace(name="fltp"), SimpleNamespace(name="mono", nb_channels=1)
    sample_rate = RATE

    def __init__(self, time: float | None, samples: int) -> None:
        self.time, self.samples = time, samples


def test_a_pause_between_time_stamps_is_kept_and_small_steps_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    class Same:
        def __init__(self, *_: object) -> None: ...

        def resample(self, frame: Frame | None) -> list:
            layout = SimpleNamespace(nb_channels=1)
            ones = SimpleNamespace(layout=layout, to_ndarray=lambda: np.ones((1, frame.samples)))
            return [] if frame is None else [ones]

    monkeypatch.setattr("avsl.sounds.av.AudioResampler", Same)
    second = RATE
    frames = [(5.0, Frame(5.0, second)), (6.01, Frame(6.01, second)), (9.0, Frame(9.0, second))]
    parts = list(joined(blocks(frames)))
    assert {origin for origin, _ in parts} == {5.0}
    sound = np.concatenate([samples for _, samples in parts], 1)[0]
    assert len(sound) == 5 * second
    assert sound.reshape(5, second).mean(1).tolist() == [1, 1, 0, 0, 1]
    back = [(5.0, Frame(5.0, second)), (0.0, Frame(0.0, second)), (9e5, Frame(9e5, second))]  # clocks that jump
    assert sum(samples.shape[1] for _, samples in joined(blocks(back))) == 3 * second


def test_a_mixture_is_the_mean_of_float_sounds(music: Path) -> None:
    replace(music, "a", samples=TONE, subtype="FLOAT")
    replace(music, "b", samples=NOISE, subtype="FLOAT")
    mixture = Scenes(music, ["a", "b"], 16)[0, 1].waveform
    torch.testing.assert_close(mixture, torch.from_numpy((TONE + NOISE) / 2).float(), atol=1e-6, rtol=0)
