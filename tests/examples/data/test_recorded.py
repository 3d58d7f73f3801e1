"""Instruments played from recordings: pitch, loudness over time, loops, filter, and what a file has to hold."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from avsl.data.composed import timbres
from avsl.data.composed.recorded import PROGRAMS, RATE, RecordedInstruments
from avsl.data.composed.soundfont import Layer, SoundFont

from ..soundfonts import (
    INSTRUMENT,
    KEYS,
    LOOPING,
    SAMPLE,
    VELOCITIES,
    Recording,
    Zone,
    sine,
    soundfont,
    span,
    whole_soundfont,
)

FLUID = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")
CUTOFF, RESONANCE, DELAY, ATTACK, HOLD, DECAY, SUSTAIN, RELEASE = 8, 9, 33, 34, 35, 36, 37, 38
KEY_TO_HOLD, KEY_TO_DECAY, ATTENUATION, COARSE_TUNE, FINE_TUNE, SCALE_TUNING = 39, 40, 48, 51, 52, 56

#: An instrument that plays one note for at least 1.5 s.
LONG = timbres.Timbre((), attack=0, decay=4.0, low=33, high=33, notes_per_second=0.4)


def instruments(path: Path, content: bytes) -> RecordedInstruments:
    (path / "font.sf2").write_bytes(content)
    return RecordedInstruments(path / "font.sf2")


@pytest.fixture(scope="module")
def sines(tmp_path_factory: pytest.TempPathFactory) -> RecordedInstruments:
    return instruments(tmp_path_factory.mktemp("sines"), whole_soundfont())


def voice(path: Path, recording: Recording, settings: Zone, pitch: float, held: float, velocity: int = 127):
    """One note, up to a second, and the layer that it is from."""
    player = instruments(path, whole_soundfont(recording, settings))
    (layer,) = SoundFont(path / "font.sf2").layers(PROGRAMS["tuba"])
    return player._voice(layer, pitch, velocity, held, RATE), layer


def frequency(sound: np.ndarray, rate: int) -> float:
    """That of the highest peak of the spectrum, interpolated."""
    power = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 16 * len(sound)))
    return float(power.argmax() * rate / 16 / len(sound))


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_sound(sines: RecordedInstruments, name: str) -> None:
    def sound(seed: int, held_out: bool = False) -> np.ndarray:
        return sines.play(name, np.random.default_rng(seed), held_out)

    first = sound(0)
    assert (first.shape, first.dtype) == ((48_000,), np.float32)
    assert np.abs(first).max() == pytest.approx(0.9)
    assert np.sqrt(np.mean(first**2)) > 0.01
    assert np.array_equal(first, sound(0))
    assert not np.array_equal(first, sound(1))
    assert not np.array_equal(first, sound(0, held_out=True))


def test_every_class_has_a_program() -> None:
    assert PROGRAMS.keys() == timbres.TIMBRES.keys()
    assert len(set(PROGRAMS.values())) == len(PROGRAMS)


def test_the_notes_are_those_of_the_synthesized_instruments(
    sines: RecordedInstruments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pitches in the range of the instrument, a quarter tone higher for test clips, and several velocities."""
    played: list[tuple[float, int, float]] = []
    voice = sines._voice

    def listening(layer, pitch, velocity, held, longest):
        played.append((pitch, velocity, held))
        return voice(layer, pitch, velocity, held, longest)

    monkeypatch.setattr(sines, "_voice", listening)
    for held_out in (False, True):
        for name, timbre in timbres.TIMBRES.items():
            played.clear()
            for seed in range(3):
                sines.play(name, np.random.default_rng(seed), held_out)
            pitches, velocities, held = (np.array(column) for column in zip(*played, strict=True))
            np.testing.assert_array_equal(pitches % 1, 0.5 * held_out)
            assert timbre.low <= pitches.min() < pitches.max() <= timbre.high + 0.5
            assert 64 <= velocities.min() < velocities.max() <= 127
            assert len(played) / 9 == pytest.approx(timbre.notes_per_second, rel=0.4)
            assert (held >= 0.6 / timbre.notes_per_second).all()


@pytest.mark.parametrize(("held_out", "hertz"), [(False, 55.0), (True, 56.612)])
def test_test_clips_are_a_quarter_tone_higher(
    sines: RecordedInstruments, monkeypatch: pytest.MonkeyPatch, held_out: bool, hertz: float
) -> None:
    monkeypatch.setitem(timbres.TIMBRES, "tuba", LONG)
    sound = sines.play("tuba", np.random.default_rng(0), held_out)
    assert frequency(sound[8000:24_000], 16_000) == pytest.approx(hertz * 441 / 440, abs=0.1)


@pytest.mark.parametrize(
    ("recording", "settings", "pitch", "cents"),
    [
        (sine(), {}, 69, 0),
        (sine(), {}, 69.5, 50),
        (sine(), {}, 45, -2400),
        (sine(), {}, 96, 2700),
        (sine(rate=22_050), {}, 69, -1200),
        (sine(root=60), {}, 72.5, 1250),
        (sine(correction=-30), {}, 69, -30),
        (sine(), {FINE_TUNE: 20, COARSE_TUNE: -3}, 69, -280),
        (sine(), {SCALE_TUNING: 50}, 89.5, 1050),
    ],
)
def test_a_note_has_its_pitch(tmp_path: Path, recording: Recording, settings: Zone, pitch: float, cents: float) -> None:
    note, _ = voice(tmp_path, recording, settings, pitch, held=1.0)
    wanted = 441 * 2 ** (cents / 1200)
    assert 1200 * math.log2(frequency(note[4800:], RATE) / wanted) == pytest.approx(0, abs=1)


def reference(layer: Layer, period: int, pitch: float, held: float, velocity: int, length: int) -> np.ndarray:
    """The note, sample by sample as the specification says; the recording is a sine with whole periods in its loop."""

    def setting(number: int) -> float:
        return layer.settings.get(number, -12_000 if DELAY <= number < SUSTAIN or number == RELEASE else 0)

    key = math.floor(pitch)
    delay, attack, release = (2 ** (setting(kind) / 1200) for kind in (DELAY, ATTACK, RELEASE))
    hold = 2 ** ((setting(HOLD) + setting(KEY_TO_HOLD) * (60 - key)) / 1200)
    decay = 2 ** ((setting(DECAY) + setting(KEY_TO_DECAY) * (60 - key)) / 1200)

    def decibels_at(t: float) -> float:
        return -min(max(0.0, 100 * (t - delay - attack - hold) / decay), setting(SUSTAIN) / 10)

    out = []
    for index in range(length):
        t = index / RATE
        before = min(t, held)
        level = 0.0 if before < delay else min(1.0, (before - delay) / attack)
        decibels = decibels_at(before) - (100 * (t - held) / release if t > held else 0)
        decibels += 40 * math.log10(velocity / 127) - setting(ATTENUATION) / 10
        position = t * layer.rate * 2 ** ((pitch - layer.root) / 12)
        out.append(20_000 / 32_768 * level * 10 ** (decibels / 20) * math.sin(2 * math.pi * position / period))
    return np.array(out)


@pytest.mark.parametrize(
    ("settings", "pitch", "held", "velocity"),
    [
        ({LOOPING: 1}, 69, 0.5, 127),
        ({LOOPING: 1}, 57.5, 0.3, 80),
        ({LOOPING: 1, ATTENUATION: 60, RELEASE: -1200}, 81, 0.2, 100),
        ({LOOPING: 1, DELAY: -4800, ATTACK: -3600, HOLD: -3600, DECAY: 0, SUSTAIN: 200, RELEASE: -1200}, 70, 0.8, 127),
        ({LOOPING: 1, ATTACK: -1200, RELEASE: -1200}, 66, 0.2, 127),  # released during its attack
        ({LOOPING: 1, HOLD: -4800, KEY_TO_HOLD: 100, DECAY: 0, KEY_TO_DECAY: -50, SUSTAIN: 900}, 48, 0.9, 127),
        ({LOOPING: 3, RELEASE: -6000}, 69, 0.5, 127),
    ],
)
def test_a_note_follows_the_specification(
    tmp_path: Path, settings: Zone, pitch: float, held: float, velocity: int
) -> None:
    note, layer = voice(tmp_path, sine(), settings, pitch, held, velocity)
    released = held + 2 ** (settings.get(RELEASE, -12_000) / 1200)
    assert len(note) == min(RATE, math.ceil(released * RATE))
    np.testing.assert_allclose(note, reference(layer, 100, pitch, held, velocity, len(note)), atol=2e-4)


def test_loops(tmp_path: Path) -> None:
    """A constant with a step after its loop: what is heard before and after the release says what was repeated."""
    samples = np.repeat([8192, 16_384], [1000, 3000]).astype("<i2")
    recording = Recording(samples, RATE, 69, (200, 800))
    settings = {RELEASE: 0, SUSTAIN: 0}

    def levels(looping: int) -> np.ndarray:
        note, _ = voice(tmp_path, recording, {**settings, LOOPING: looping}, 69, held=0.5)
        fading = np.maximum(0, np.arange(len(note)) / RATE - 0.5) * 100
        return note * 10 ** (fading / 20)

    np.testing.assert_allclose(levels(1)[100:40_000], 0.25, atol=1e-3)
    until_release_only = levels(3)
    assert len(until_release_only) == pytest.approx(24_000 + 3200, abs=600)  # up to the next end of the loop, then on
    np.testing.assert_allclose(until_release_only[100:23_900], 0.25, atol=1e-3)
    np.testing.assert_allclose(until_release_only[-2900:-100], 0.5, atol=1e-3)
    for looping in (0, 2):
        assert len(levels(looping)) == 4000
    broken = recording._replace(loop=(900, 900))
    assert len(voice(tmp_path, broken, {LOOPING: 1}, 69, held=0.5)[0]) == 4000


@pytest.mark.parametrize(("resonance", "at_cutoff"), [(0, -3.0), (100, 7.0)])
def test_the_filter(tmp_path: Path, resonance: int, at_cutoff: float) -> None:
    """Its cutoff is 882 Hz. The sine is 441 Hz, so that keys one and three octaves higher are at and above it."""

    def decibels(pitch: float, settings: Zone) -> float:
        note, _ = voice(tmp_path, sine(), settings, pitch, held=1.0)
        return 20 * math.log10(np.sqrt(np.mean(note[12_000:36_000] ** 2)))

    cents = round(6900 + 1200 * math.log2(882 / 440))
    changes = [decibels(key, {CUTOFF: cents, RESONANCE: resonance}) - decibels(key, {}) for key in (45, 81, 105)]
    assert changes[0] == pytest.approx(0, abs=0.3)
    assert changes[1] == pytest.approx(at_cutoff, abs=0.2)
    assert changes[2] == pytest.approx(-24.1, abs=0.6)  # 12 dB per octave
    assert decibels(105, {CUTOFF: 13_500}) == decibels(105, {})


def test_what_lies_above_the_band_is_not_heard_within_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tones of 1, 9, 15 and 21 kHz at all keys: of the last three, no alias may remain."""
    time = np.arange(44_100) / 44_100
    tones = sum(np.sin(2 * np.pi * kilohertz * 1000 * time) for kilohertz in (1, 9, 15, 21))
    recording = Recording(np.round(8000 * tones).astype("<i2"), 44_100, 69, (0, 44_100))
    monkeypatch.setitem(timbres.TIMBRES, "tuba", LONG)
    sound = instruments(tmp_path, whole_soundfont(recording, {SCALE_TUNING: 0})).play("tuba", np.random.default_rng(0))
    power = np.abs(np.fft.rfft(sound[8000:20_000] * np.blackman(12_000))) ** 2
    hertz = np.fft.rfftfreq(12_000, 1 / 16_000)
    assert abs(hertz[power.argmax()] - 1000) < 5
    aliases = power[(hertz > 1500) & (hertz < 8000)].max()
    assert 10 * math.log10(aliases / power.max()) < -58


def test_the_velocity_selects_the_recording_and_its_loudness(tmp_path: Path) -> None:
    zones = [{VELOCITIES: span(0, 99), LOOPING: 1, SAMPLE: 0}, {VELOCITIES: span(100, 127), LOOPING: 1, SAMPLE: 1}]
    programs = {number: [{INSTRUMENT: 0}] for number in PROGRAMS.values()}
    player = instruments(tmp_path, soundfont([sine(), sine(50)], [zones], programs))
    starts: dict[str, set[int]] = {"soft": set(), "loud": set()}
    voice = player._voice

    def listening(layer, pitch, velocity, held, longest):
        starts["soft" if velocity < 100 else "loud"].add(layer.start)
        return voice(layer, pitch, velocity, held, longest)

    player._voice = listening
    player.play("xylophone", np.random.default_rng(0))
    assert starts == {"soft": {0}, "loud": {4000}}


def test_layers_sound_together(tmp_path: Path) -> None:
    """Left and right channel are two recordings of the same keys."""
    programs = {number: [{INSTRUMENT: 0}] for number in PROGRAMS.values()}
    (tmp_path / "both").mkdir()
    left = {LOOPING: 1, SAMPLE: 0}
    both = instruments(tmp_path / "both", soundfont([sine(), sine(50)], [[left, {**left, SAMPLE: 1}]], programs))
    power = np.abs(np.fft.rfft(both.play("tuba", np.random.default_rng(0))))
    one = np.abs(np.fft.rfft(instruments(tmp_path, whole_soundfont()).play("tuba", np.random.default_rng(0))))
    assert (power > 0.2 * power.max()).sum() > (one > 0.2 * one.max()).sum()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({42: None}, r"42 \(cello\)"),
        ({42: None, 110: None}, r"42 \(cello\), 110 \(erhu\)"),
        ({58: {KEYS: span(29, 127)}}, r"58 \(tuba\)"),  # the lowest note is missing
        ({58: {KEYS: span(0, 45)}}, r"58 \(tuba\)"),  # the highest
        ({58: {VELOCITIES: span(65, 127)}}, r"58 \(tuba\)"),
        ({13: {COARSE_TUNE: 100}}, r"13 \(xylophone\)"),  # a tuning that cannot be meant
    ],
)
def test_a_missing_program_or_note(tmp_path: Path, changes: dict[int, Zone | None], said: str) -> None:
    zones = {number: [{**(changes.get(number) or {}), INSTRUMENT: 0}] for number in PROGRAMS.values()}
    programs = {number: zone for number, zone in zones.items() if number not in changes or changes[number]}
    with pytest.raises(ValueError, match=rf"`--soundfont` .*font.sf2 lacks notes of {said}\. On Debian: apt-get"):
        instruments(tmp_path, soundfont([sine()], [[{LOOPING: 1, SAMPLE: 0}]], programs))


def test_silent_recordings(tmp_path: Path) -> None:
    player = instruments(tmp_path, whole_soundfont(Recording(np.zeros(999, "<i2"), 44_100, 60)))
    with pytest.raises(ValueError, match=r"`--soundfont` to have sound, but program 58 \(tuba\) is silent"):
        player.play("tuba", np.random.default_rng(0))


@pytest.mark.skipif(not FLUID.is_file(), reason="fluid-soundfont-gm is not installed")
def test_the_recordings_of_debian() -> None:
    player = RecordedInstruments(FLUID)
    spectra = {}
    for name in PROGRAMS:
        clips = [player.play(name, np.random.default_rng(seed), held_out) for seed in (0, 1) for held_out in (0, 1)]
        for clip in clips:
            assert 20 * math.log10(np.sqrt(np.mean(clip**2))) > -30
            assert np.isfinite(clip).all()
        # In bands of a third of an octave.
        edges = np.geomspace(50, 8000, 23)
        power = np.mean([np.abs(np.fft.rfft(clip)) ** 2 for clip in clips], axis=0)
        hertz = np.fft.rfftfreq(48_000, 1 / 16_000)
        bands = [power[(hertz >= low) & (hertz < high)].sum() for low, high in pairwise(edges)]
        spectra[name] = 10 * np.log10(bands / power.sum() + 1e-6)
    names = list(spectra)
    for i, name in enumerate(names):
        for other in names[:i]:
            assert np.abs(spectra[name] - spectra[other]).mean() > 2, (name, other)
