"""Synthesizes sounds of instruments from a spectrum, an envelope and a range of notes per class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...constants import SAMPLE_RATE, SAMPLES, SECONDS


@dataclass(frozen=True)
class Timbre:
    """The sound of an instrument.

    Args:
        partials: pairs of a multiple of the pitch and an amplitude.
        attack: duration of the attack, in seconds.
        decay: time constant of the decay, in seconds.
        low: lowest note, as MIDI number.
        high: highest note, as MIDI number.
        notes_per_second: average rate of notes.
        vibrato: depth of the vibrato, relative to the pitch.
        noise: amplitude of the noise.
    """

    partials: tuple[tuple[float, float], ...]
    attack: float
    decay: float
    low: int
    high: int
    notes_per_second: float
    vibrato: float = 0.0
    noise: float = 0.0

    def held(self, length: float) -> float:
        """Seconds that a note of this length sounds: plucked and struck notes ring on."""
        return max(length, min(4 * self.decay, 0.6)) if self.decay < 1 else length


def _harmonics(*amplitudes: float) -> tuple[tuple[float, float], ...]:
    return tuple((float(i + 1), a) for i, a in enumerate(amplitudes) if a)


def _detuned(partials: tuple[tuple[float, float], ...], by: float) -> tuple[tuple[float, float], ...]:
    return tuple((multiple * d, amplitude) for multiple, amplitude in partials for d in (1 - by, 1 + by))


ACCORDION = _detuned(_harmonics(1, 0.7, 0.8, 0.5, 0.5, 0.4, 0.3, 0.3), 0.006)
GUITAR = _harmonics(1, 0.7, 0.45, 0.3, 0.2, 0.12, 0.08)
CELLO = _harmonics(1, 0.9, 0.7, 0.55, 0.5, 0.35, 0.3, 0.25, 0.2, 0.15)
ERHU = _harmonics(0.5, 1, 0.9, 0.35, 0.6, 0.5, 0.2, 0.3)
SAXOPHONE = _harmonics(1, 0.4, 0.9, 0.3, 0.7, 0.25, 0.5, 0.2, 0.3)
TRUMPET = _harmonics(0.5, 0.8, 1, 0.95, 0.85, 0.7, 0.55, 0.4, 0.3, 0.2)
TUBA = _harmonics(1, 0.75, 0.4, 0.2, 0.1)
BARS = ((1.0, 1.0), (3.93, 0.5), (9.54, 0.25))  # the partials of a struck bar are not harmonic

TIMBRES: dict[str, Timbre] = {
    "accordion": Timbre(ACCORDION, attack=0.06, decay=9.0, low=53, high=77, notes_per_second=3.0),
    "acoustic_guitar": Timbre(GUITAR, attack=0.004, decay=0.35, low=45, high=69, notes_per_second=5.0),
    "cello": Timbre(CELLO, attack=0.12, decay=6.0, low=36, high=57, notes_per_second=1.8, vibrato=0.006, noise=0.02),
    "erhu": Timbre(ERHU, attack=0.09, decay=6.0, low=62, high=84, notes_per_second=2.5, vibrato=0.016, noise=0.02),
    "saxophone": Timbre(SAXOPHONE, 0.03, decay=5.0, low=49, high=76, notes_per_second=4.0, vibrato=0.005, noise=0.06),
    "trumpet": Timbre(
        TRUMPET, attack=0.025, decay=7.0, low=58, high=82, notes_per_second=4.0, vibrato=0.002, noise=0.01
    ),
    "tuba": Timbre(TUBA, attack=0.06, decay=4.0, low=28, high=46, notes_per_second=2.0, noise=0.03),
    "xylophone": Timbre(BARS, attack=0.001, decay=0.09, low=72, high=96, notes_per_second=7.0, noise=0.01),
}


class Note(NamedTuple):
    """When a note starts and how long it takes, in seconds; its pitch as MIDI number, with a fraction."""

    start: float
    length: float
    pitch: float


def notes(name: str, rng: np.random.Generator, held_out: bool) -> Iterator[Note]:
    """Draws the notes of a clip, each when it is asked for: between notes, the caller may draw from ``rng`` too.

    The tuning of ``held_out`` clips is a quarter tone higher, so that training and test clips share no notes.
    """
    timbre = TIMBRES[name]
    start = rng.uniform(0, 0.15)
    while start < SECONDS - 0.05:
        length = rng.uniform(0.6, 1.4) / timbre.notes_per_second
        yield Note(start, length, int(rng.integers(timbre.low, timbre.high + 1)) + 0.5 * held_out)
        start += length


def play(name: str, rng: np.random.Generator, held_out: bool = False) -> NDArray[np.float32]:
    """Plays random :func:`notes` of one instrument, (48000,) float32 in [−1, 1] at 16 kHz."""
    timbre = TIMBRES[name]
    out = np.zeros(SAMPLES, dtype=np.float64)
    for start, length, pitch in notes(name, rng, held_out):
        first = int(start * SAMPLE_RATE)
        note = _note(timbre, 440.0 * 2 ** ((pitch - 69) / 12), length, rng)[: len(out) - first]
        out[first : first + len(note)] += rng.uniform(0.6, 1.0) * note
    return (0.9 * out / np.abs(out).max()).astype(np.float32)


def _note(timbre: Timbre, frequency: float, length: float, rng: np.random.Generator) -> NDArray[np.float64]:
    t = np.arange(int(timbre.held(length) * SAMPLE_RATE)) / SAMPLE_RATE
    phase = 2 * np.pi * frequency * t
    if timbre.vibrato:
        rate = rng.uniform(4.5, 6.5)
        phase = phase + timbre.vibrato * frequency / rate * np.sin(2 * np.pi * rate * t)
    tone = np.zeros_like(t)
    for multiple, amplitude in timbre.partials:
        if multiple * frequency < 0.47 * SAMPLE_RATE:
            fading = np.exp(-t * (multiple - 1) / (6 * timbre.decay))
            tone += amplitude * fading * np.sin(multiple * phase + rng.uniform(0, 2 * np.pi))
    tone += timbre.noise * rng.standard_normal(len(t))
    release = np.clip((t[-1] - t) / 0.03, 0, 1) if len(t) else t
    return tone * np.clip(t / timbre.attack, 0, 1) * np.exp(-t / timbre.decay) * release
