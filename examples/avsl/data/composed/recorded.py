"""Plays instruments from the recordings of a SoundFont, with the notes of the synthesized ones."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.signal import firwin, lfilter, resample_poly

from ...constants import SAMPLE_RATE, SAMPLES
from .soundfont import INSTALL, Layer, Setting, SoundFont
from .timbres import TIMBRES, notes

#: General MIDI programs, counted from 0. General MIDI has no erhu; the fiddle is the closest bowed instrument.
PROGRAMS = {
    "accordion": 21,
    "acoustic_guitar": 25,
    "cello": 42,
    "erhu": 110,
    "saxophone": 65,
    "trumpet": 56,
    "tuba": 58,
    "xylophone": 13,
}
VELOCITIES = (64, 127)
#: Notes are rendered at three times the rate of the clip. Interpolation errors are then mostly above the clip's band.
OVERSAMPLING = 3
RATE = OVERSAMPLING * SAMPLE_RATE
#: Passes up to 7 kHz and reduces what would alias, from 8 kHz on, by 80 dB.
_DECIMATION = firwin(301, 7500, fs=RATE, window=("kaiser", 8.0))
FARTHEST = 60  # semitones; the tuning of a file that asks for more is wrong
_FLOOR = 100.0  # dB by which a note has faded after its decay time or release time


class RecordedInstruments:
    """The instruments of a SoundFont.

    Raises:
        FileNotFoundError: if there is no file at ``path``.
        ValueError: if it is no SoundFont 2, is damaged, or lacks a program or one of its notes; the message has all.
    """

    def __init__(self, path: Path) -> None:
        self._font = SoundFont(path)
        self._layers = {
            name: [layer for layer in self._font.layers(program) if _is_near(layer, name)]
            for name, program in PROGRAMS.items()
        }
        if missing := [name for name in PROGRAMS if not self._covers(name)]:
            listed = ", ".join(f"{PROGRAMS[name]} ({name})" for name in missing)
            raise ValueError(
                f"Expected `--soundfont` to have the General MIDI programs of all instruments, counted from 0, but "
                f"{path} lacks notes of {listed}. {INSTALL}"
            )

    def _covers(self, name: str) -> bool:
        """Whether every note of an instrument has a recording, at the softest and at the loudest velocity."""
        keys = range(TIMBRES[name].low, TIMBRES[name].high + 1)
        return all(any(lay.sounds(key, v) for lay in self._layers[name]) for key in keys for v in VELOCITIES)

    def play(self, name: str, rng: np.random.Generator, held_out: bool = False) -> NDArray[np.float32]:
        """Plays random notes of one instrument, (48000,) float32 in [−1, 1] at 16 kHz.

        Notes are those of :func:`~avsl.data.composed.timbres.play`, with random velocities. The tuning of ``held_out``
        clips is a quarter tone higher.

        Raises:
            ValueError: if the recordings are silent.
        """
        out = np.zeros(OVERSAMPLING * SAMPLES)
        for note in notes(name, rng, held_out):
            velocity = int(rng.integers(VELOCITIES[0], VELOCITIES[1] + 1))
            first = int(note.start * RATE)
            for layer in self._layers[name]:
                if layer.sounds(int(note.pitch), velocity):
                    voice = self._voice(layer, note.pitch, velocity, TIMBRES[name].held(note.length), len(out) - first)
                    out[first : first + len(voice)] += voice
        clip = resample_poly(out, 1, OVERSAMPLING, window=_DECIMATION)
        peak = float(np.abs(clip).max())
        if peak == 0:
            raise ValueError(f"Expected `--soundfont` to have sound, but program {PROGRAMS[name]} ({name}) is silent")
        return (0.9 * clip / peak).astype(np.float32)

    def _voice(self, layer: Layer, pitch: float, velocity: int, held: float, longest: int) -> NDArray[np.float64]:
        """Renders one recording for a note that is held for ``held`` seconds, then released; at most ``longest``."""
        step = 2 ** (_transposition(layer, pitch) / 12) * layer.rate / RATE  # samples of the recording per sample
        length = min(longest, math.ceil((held + _seconds(layer[Setting.RELEASE])) * RATE))
        recording = self._recording(layer, math.ceil(length * step) + 2, math.ceil(held * RATE * step))
        length = min(length, int((len(recording) - 1) / step) + 1)
        tone = map_coordinates(recording, [step * np.arange(length)], order=3, mode="nearest")
        # Decibels as in the specification: amplitude is proportional to the square of the velocity.
        gain = 10 ** (-layer[Setting.ATTENUATION] / 200) * (velocity / 127) ** 2
        return gain * _envelope(layer, int(pitch), held, length) * _filtered(layer, tone)

    def _recording(self, layer: Layer, length: int, released: int) -> NDArray[np.float64]:
        """The first ``length`` samples of the recording, with its loop repeated, or fewer if it ends."""
        looping = layer[Setting.LOOPING] & 3
        if looping not in (1, 3) or not layer.start <= layer.loop_start < layer.loop_end <= layer.end:
            return self._font.samples(layer.start, min(layer.end, layer.start + length))
        head = self._font.samples(layer.start, layer.loop_end)
        loop = head[layer.loop_start - layer.start :]
        until = length if looping == 1 else min(length, released)
        repeated = [loop] * math.ceil(max(0, until - len(head)) / len(loop))
        rest = self._font.samples(layer.loop_end, layer.end) if looping == 3 else loop[:0]
        return np.concatenate([head, *repeated, rest])[:length]


def _transposition(layer: Layer, pitch: float) -> float:
    """Semitones by which the recording is raised for a note."""
    key = int(pitch)
    tuning = layer[Setting.COARSE_TUNE] + layer[Setting.FINE_TUNE] / 100
    return (key - layer.root) * layer[Setting.SCALE_TUNING] / 100 + pitch - key + tuning


def _is_near(layer: Layer, name: str) -> bool:
    """Whether all notes of an instrument are near enough to the recording to be played from it."""
    limits = max(layer.keys[0], TIMBRES[name].low), min(layer.keys[1], TIMBRES[name].high)
    return all(abs(_transposition(layer, key)) <= FARTHEST for key in limits)


def _seconds(timecents: float) -> float:
    return 2 ** (timecents / 1200)


def _envelope(layer: Layer, key: int, held: float, length: int) -> NDArray[np.float64]:
    """The loudness of a note over time: delay, attack, hold, decay to a level, and release."""
    time = np.arange(length) / RATE
    playing = np.minimum(time, held)
    delay, attack = _seconds(layer[Setting.DELAY]), _seconds(layer[Setting.ATTACK])
    hold = _seconds(layer[Setting.HOLD] + layer[Setting.KEY_TO_HOLD] * (60 - key))
    decay = _seconds(layer[Setting.DECAY] + layer[Setting.KEY_TO_DECAY] * (60 - key))
    rise = np.clip((playing - delay) / attack, 0, 1)
    fall = np.clip(_FLOOR * (playing - delay - attack - hold) / decay, 0, np.clip(layer[Setting.SUSTAIN] / 10, 0, 144))
    fade = _FLOOR * (time - playing) / _seconds(layer[Setting.RELEASE])
    return rise * 10 ** (-(fall + fade) / 20)


def _filtered(layer: Layer, tone: NDArray[np.float64]) -> NDArray[np.float64]:
    """Applies the layer's low-pass of second order, with its cutoff in cents; 13,500 (20 kHz) means none."""
    cutoff = layer[Setting.CUTOFF]
    if cutoff >= 13_500:
        return tone
    omega = 2 * math.pi * 440 * 2 ** ((cutoff - 6900) / 1200) / RATE
    # A resonance of 0 is that of a Butterworth filter, which is 3 dB down at its cutoff.
    alpha = math.sin(omega) / 2 / 10 ** ((layer[Setting.RESONANCE] / 10 - 3.01) / 20)
    b = (1 - math.cos(omega)) / 2 * np.array([1.0, 2.0, 1.0])
    return lfilter(b, [1 + alpha, -2 * math.cos(omega), 1 - alpha], tone)
