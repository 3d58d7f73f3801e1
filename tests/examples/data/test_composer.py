"""Drawn pictures, synthesized sounds and captions of scenes."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
from avsl.data.composed import timbres
from avsl.data.composed.arrangement import Placement, Scene, SceneObject, sample_scene
from avsl.data.composed.composer import DrawnSource, captions, render_audio, render_frame
from avsl.data.composed.drawing import BOWED, INSTRUMENTS, Palette
from PIL import Image
from scipy.signal import spectrogram

SOURCE = DrawnSource()
VOCABULARY = SOURCE.vocabulary
BACKGROUND = (1, 2, 3)


def painted(name: str, sounding: bool, box: Placement, seed: int, held_out: bool = False) -> np.ndarray:
    canvas = Image.new("RGB", (192, 192), BACKGROUND)
    SOURCE.paint(canvas, name, sounding, box, np.random.default_rng(seed), held_out)
    return np.asarray(canvas)


def box_of(name: str) -> Placement:
    aspect = (VOCABULARY.sounding | VOCABULARY.silent)[name]
    return (0.25, 0.25, 0.5 * min(1, aspect), 0.5 * min(1, 1 / aspect))


def inside(box: Placement) -> tuple[slice, slice]:
    x, y, w, h = (round(192 * v) for v in box)
    return slice(y, y + h), slice(x, x + w)


@pytest.mark.parametrize("name", [*VOCABULARY.sounding, *VOCABULARY.silent])
def test_a_silent_object_fills_its_box(name: str) -> None:
    box = box_of(name)
    x, y, w, h = (192 * v for v in box)
    for seed in range(4):
        rows, columns = (painted(name, False, box, seed) != BACKGROUND).any(2).nonzero()
        extent = np.array([columns.min() - x, rows.min() - y, x + w - columns.max(), y + h - rows.max()])
        assert (extent > -0.08 * np.array([w, h, w, h])).all()
        assert np.ptp(columns) > 0.8 * w
        assert np.ptp(rows) > 0.8 * h


@pytest.mark.parametrize("name", VOCABULARY.sounding)
def test_being_played_is_visible(name: str) -> None:
    part = inside(box_of(name))
    for seed in range(4):
        played, silent = (painted(name, state, box_of(name), seed)[part] for state in (True, False))
        assert (played != silent).any(2).mean() > 0.3


def test_what_is_known_of_an_instrument() -> None:
    assert INSTRUMENTS.keys() == timbres.TIMBRES.keys()
    assert set(BOWED) <= INSTRUMENTS.keys()


@pytest.mark.parametrize("held_out", [False, True])
def test_training_and_test_hues_lie_in_disjoint_bins(held_out: bool) -> None:
    palette = Palette(np.random.default_rng(0), held_out)
    places = []
    for _ in range(400):
        red, green, blue = palette.color((0.0, 1.0), (1.0, 1.0), (1.0, 1.0))
        places.append(32 * colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)[0])
    places = np.array([p for p in places if 0.05 < p % 1 < 0.95])  # 8-bit colors blur the bins' edges
    assert set(places.astype(int)) == set(range(int(held_out), 32, 2))


def test_a_frame_depends_on_seed_and_split_alone() -> None:
    scene = sample_scene(np.random.default_rng(0), VOCABULARY, 2)

    def frame(seed: int, held_out: bool) -> bytes:
        image = render_frame(scene, SOURCE, np.random.default_rng(seed), 64, held_out)
        assert (image.mode, image.size) == ("RGB", (64, 64))
        return image.tobytes()

    assert frame(0, False) == frame(0, False)
    assert len({frame(0, False), frame(1, False), frame(0, True)}) == 3


def test_a_frame_shows_the_objects_of_its_scene() -> None:
    box = (0.1, 0.2, 0.3, 0.7)
    other = SceneObject("chair", False, (0.6, 0.3, 0.3, 0.6))
    with_cello = Scene((SceneObject("cello", False, box), other))
    frames = [
        np.asarray(render_frame(scene, SOURCE, np.random.default_rng(0), 192, False)).astype(int)
        for scene in (with_cello, Scene((other,)))
    ]
    changed = (np.abs(frames[0] - frames[1]) > 20).any(2)
    assert changed[inside(box)].mean() > 0.3


@pytest.mark.parametrize("name", timbres.TIMBRES)
def test_a_sound(name: str) -> None:
    def sound(seed: int, held_out: bool = False) -> np.ndarray:
        return timbres.play(name, np.random.default_rng(seed), held_out)

    first = sound(0)
    assert (first.shape, first.dtype) == ((48_000,), np.float32)
    assert np.abs(first).max() <= 1
    assert np.sqrt(np.mean(first**2)) > 0.01
    assert np.array_equal(first, sound(0))
    assert not np.array_equal(first, sound(1))
    assert not np.array_equal(first, sound(0, held_out=True))


def test_test_notes_lie_a_quarter_tone_beside_training_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    pitches: list[float] = []
    note = timbres._note

    def recording(timbre, frequency, length, rng):
        pitches.append(69 + 12 * np.log2(frequency / 440))
        return note(timbre, frequency, length, rng)

    monkeypatch.setattr(timbres, "_note", recording)
    for held_out, offset in ((False, 0.0), (True, 0.5)):
        pitches.clear()
        for name in timbres.TIMBRES:
            timbres.play(name, np.random.default_rng(0), held_out)
        assert len(set(pitches)) > 20
        np.testing.assert_allclose(np.mod(pitches, 1), offset, atol=1e-9)


def test_a_note_has_its_pitch() -> None:
    timbre = timbres.TIMBRES["tuba"]
    note = timbres._note(timbre, 100.0, 1.0, np.random.default_rng(0))
    assert abs(np.fft.rfftfreq(len(note), 1 / 16_000)[np.abs(np.fft.rfft(note)).argmax()] - 100) < 2


def test_classes_are_told_apart_by_their_spectra() -> None:
    """Nearest mean spectrum of 6 training sounds, asked about sounds of the test split; chance is 1 in 8."""

    def feature(name: str, seed: int, held_out: bool) -> np.ndarray:
        sound = timbres.play(name, np.random.default_rng(seed), held_out)
        spectrum = np.log(spectrogram(sound, 16_000, nperseg=512)[2] + 1e-7).mean(1)
        return (spectrum - spectrum.mean()) / spectrum.std()

    means = np.stack([np.mean([feature(name, i, False) for i in range(6)], 0) for name in timbres.TIMBRES])
    right = [
        np.argmin(np.square(means - feature(name, 100 + i, True)).sum(1)) == index
        for index, name in enumerate(timbres.TIMBRES)
        for i in range(4)
    ]
    assert np.mean(right) > 0.6


PITCHES = {"low": 500, "high": 2000, "silent": 1000}


class Tones:
    """A source whose objects sound as pure tones."""

    def sound(self, name: str, *_: object) -> np.ndarray:
        return np.sin(2 * np.pi * PITCHES[name] * np.arange(48_000) / 16_000).astype(np.float32)


def test_the_audio_is_the_sum_of_what_sounds() -> None:
    box = (0.0, 0.0, 0.5, 0.5)
    scene = Scene(tuple(SceneObject(n, n != "silent", box) for n in ("low", "high", "silent")))
    audio = render_audio(scene, Tones(), np.random.default_rng(0), False)
    assert (audio.shape, audio.dtype) == ((48_000,), np.float32)
    assert 0.85 < np.abs(audio).max() <= 1
    power = np.abs(np.fft.rfft(audio)) / 24_000
    assert {f for f in PITCHES.values() if power[3 * f] > 0.2} == {500, 2000}
    assert power[3000] < 0.01
    again, other = (render_audio(scene, Tones(), np.random.default_rng(seed), False) for seed in (0, 1))
    assert np.array_equal(audio, again)
    assert not np.array_equal(audio, other)


def test_captions() -> None:
    box = (0.0, 0.0, 0.5, 0.5)
    sounding = [SceneObject(n, True, box) for n in ("acoustic_guitar", "cello")]
    silent = [SceneObject(n, False, box) for n in ("cello", "chair", "tuba")]
    assert captions(Scene((*sounding, *silent)), SOURCE) == {
        "foreground": [
            "an image of a person playing the acoustic guitar",
            "an image of a person playing the cello",
        ],
        "background": "an image of a silent cello, a chair and a silent tuba",
    }
    assert captions(Scene((sounding[0], silent[1])), SOURCE)["background"] == "an image of a chair"
