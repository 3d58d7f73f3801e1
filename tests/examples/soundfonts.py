"""Writes SoundFont 2 files of a few kilobytes."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from avsl.data.composed.recorded import PROGRAMS

Zone = Mapping[int, int]  # setting → value, with the numbers of the specification
INSTRUMENT, KEYS, VELOCITIES, SAMPLE, LOOPING = 41, 43, 44, 53, 54
PERIODS = 40  # of the sine, of which the first quarter comes before its loop


class Recording(NamedTuple):
    samples: np.ndarray  # int16
    rate: int
    root: int
    loop: tuple[int, int] = (0, 0)
    correction: int = 0
    type: int = 1


def sine(period: int = 100, rate: int = 44_100, root: int = 69, **other: int) -> Recording:
    """A sine with a whole number of periods in its loop; at 44.1 kHz, 100 samples are 441 Hz."""
    samples = np.round(20_000 * np.sin(2 * np.pi * np.arange(PERIODS * period) / period)).astype("<i2")
    return Recording(samples, rate, root, (PERIODS // 4 * period, PERIODS * period), **other)


def span(low: int, high: int) -> int:
    """The value of a range of keys or velocities."""
    return low | high << 8


def soundfont(
    recordings: Sequence[Recording],
    instruments: Sequence[Sequence[Zone]],
    programs: Mapping[int, Sequence[Zone]],
    *,
    bank: int = 0,
    version: int = 2,
) -> bytes:
    """A file with these programs. Zones name their instrument or recording by number; first zones may be global."""
    headers = [struct.pack("<20s3H12x", b"program", program, bank, bag) for program, bag in _bags(programs)]
    starts = [struct.pack("<20sH", b"instrument", bag) for _, bag in _bags(dict(enumerate(instruments)))]
    samples, at = [], 0
    for r in recordings:
        numbers = (at, at + len(r.samples), at + r.loop[0], at + r.loop[1], r.rate)
        samples.append(struct.pack("<20s5IBbHH", b"sample", *numbers, r.root, r.correction, 0, r.type))
        at += len(r.samples)
    samples.append(bytes(46))
    sound = b"".join(r.samples.astype("<i2").tobytes() for r in recordings)
    parts = [
        *((b"phdr", b"".join(headers)), *_zones(b"p", [z for zones in programs.values() for z in zones])),
        *((b"inst", b"".join(starts)), *_zones(b"i", [z for zones in instruments for z in zones])),
        (b"shdr", b"".join(samples)),
    ]
    lists = [
        (b"INFO", _chunk(b"INAM", b"tests") + _chunk(b"ifil", struct.pack("<2H", version, 1))),
        (b"sdta", _chunk(b"smpl", sound)),
        (b"pdta", b"".join(_chunk(*part) for part in parts)),
    ]
    return _chunk(b"RIFF", b"sfbk" + b"".join(_chunk(b"LIST", name + content) for name, content in lists))


def whole_soundfont(recording: Recording | None = None, settings: Zone | None = None) -> bytes:
    """All programs of the composed scenes, from one recording, which is a looped sine if none is given."""
    zone = {LOOPING: 1, **(settings or {}), SAMPLE: 0}
    return soundfont([recording or sine()], [[zone]], {number: [{INSTRUMENT: 0}] for number in PROGRAMS.values()})


def _bags(zones: Mapping[int, Sequence[Zone]]) -> list[tuple[int, int]]:
    """Pairs of a number and the index of its first zone; the last one ends the table."""
    ends = np.cumsum([0, *map(len, zones.values())]).tolist()
    return list(zip([*zones, 255], ends, strict=True))


def _zones(side: bytes, zones: Sequence[Zone]) -> list[tuple[bytes, bytes]]:
    ends = np.cumsum([0, *map(len, zones)]).tolist()
    bags = b"".join(struct.pack("<2H", end, 0) for end in ends)
    rows = [(kind, value if value < 2**15 else value - 2**16) for zone in zones for kind, value in zone.items()]
    settings = b"".join(struct.pack("<Hh", *row) for row in [*rows, (0, 0)])
    return [(side + b"bag", bags), (side + b"mod", bytes(10)), (side + b"gen", settings)]


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
