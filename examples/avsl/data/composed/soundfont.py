"""Reads SoundFont 2 files: which recordings sound for a note of a program, and with which settings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

INSTALL = "On Debian: apt-get install fluid-soundfont-gm, then --soundfont /usr/share/sounds/sf2/FluidR3_GM.sf2"
_ROM = 0x8000  # type of a sample that is in the memory of a sound card
_BAG = [("setting", "<u2"), ("modulator", "<u2")]
_SETTING = [("kind", "<u2"), ("value", "<i2")]
_TABLES: dict[bytes, list[tuple[str, str]]] = {
    b"phdr": [("name", "S20"), ("program", "<u2"), ("bank", "<u2"), ("bag", "<u2"), ("unused", "S12")],
    b"pbag": _BAG,
    b"pgen": _SETTING,
    b"inst": [("name", "S20"), ("bag", "<u2")],
    b"ibag": _BAG,
    b"igen": _SETTING,
    b"shdr": [
        *(("name", "S20"), ("start", "<u4"), ("end", "<u4"), ("loop_start", "<u4"), ("loop_end", "<u4")),
        *(("rate", "<u4"), ("root", "u1"), ("correction", "i1"), ("link", "<u2"), ("type", "<u2")),
    ],
}


class Setting(IntEnum):
    """The settings that are known here, with the numbers of the specification, which calls them generators."""

    START = 0
    END = 1
    LOOP_START = 2
    LOOP_END = 3
    START_COARSE = 4
    CUTOFF = 8
    RESONANCE = 9
    END_COARSE = 12
    DELAY = 33
    ATTACK = 34
    HOLD = 35
    DECAY = 36
    SUSTAIN = 37
    RELEASE = 38
    KEY_TO_HOLD = 39
    KEY_TO_DECAY = 40
    INSTRUMENT = 41
    KEYS = 43
    VELOCITIES = 44
    LOOP_START_COARSE = 45
    FIXED_KEY = 46
    FIXED_VELOCITY = 47
    ATTENUATION = 48
    LOOP_END_COARSE = 50
    COARSE_TUNE = 51
    FINE_TUNE = 52
    SAMPLE = 53
    LOOPING = 54
    SCALE_TUNING = 56
    EXCLUSIVE_CLASS = 57
    ROOT = 58


_DEFAULTS: dict[int, int] = {Setting.CUTOFF: 13_500, Setting.SCALE_TUNING: 100, Setting.ROOT: -1}
_DEFAULTS |= dict.fromkeys(range(Setting.DELAY, Setting.SUSTAIN), -12_000) | {Setting.RELEASE: -12_000}
_RANGES = (Setting.KEYS, Setting.VELOCITIES)
#: Settings that a program may not change: they belong to the recording.
_OF_RECORDINGS = frozenset(
    {
        *(Setting.START, Setting.END, Setting.LOOP_START, Setting.LOOP_END, Setting.START_COARSE, Setting.END_COARSE),
        *(Setting.LOOP_START_COARSE, Setting.LOOP_END_COARSE, Setting.LOOPING, Setting.ROOT),
        *(Setting.FIXED_KEY, Setting.FIXED_VELOCITY, Setting.EXCLUSIVE_CLASS),
    }
)


@dataclass(frozen=True)
class Layer:
    """A recording that sounds for a range of keys and velocities.

    Args:
        keys: lowest and highest key, as MIDI numbers.
        velocities: lowest and highest velocity, 1 to 127.
        settings: values by number, in the units of the specification.
        start, end: place of the recording among the file's samples.
        loop_start, loop_end: place of the part that can be repeated.
        rate: sampling rate, in Hz.
        root: pitch of the recording, as MIDI number, with a fraction.
    """

    keys: tuple[int, int]
    velocities: tuple[int, int]
    settings: Mapping[int, int]
    start: int
    end: int
    loop_start: int
    loop_end: int
    rate: int
    root: float

    def __getitem__(self, setting: Setting) -> int:
        return self.settings.get(setting, _DEFAULTS.get(setting, 0))

    def sounds(self, key: int, velocity: int) -> bool:
        """Whether the recording sounds for this note."""
        return self.keys[0] <= key <= self.keys[1] and self.velocities[0] <= velocity <= self.velocities[1]


class SoundFont:
    """A SoundFont 2 file. Its samples stay on disk and are read where they are needed.

    Source: SoundFont Technical Specification 2.01, sections 3 to 9.

    Raises:
        FileNotFoundError: if there is no file at ``path``.
        ValueError: if the file is no SoundFont 2, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._expected = f"Expected `--soundfont` to be a SoundFont 2 file, but {path}"
        if not path.is_file():
            raise FileNotFoundError(f"{self._expected} is no file. {INSTALL}")
        content = np.memmap(path, np.uint8, mode="r") if path.stat().st_size else np.zeros(0, np.uint8)
        if content[:4].tobytes() != b"RIFF" or content[8:12].tobytes() != b"sfbk":
            raise self._error("does not begin as one")
        chunks = dict(self._chunks(content))
        if missing := [name.decode() for name in (b"smpl", *_TABLES) if name not in chunks]:
            raise self._error(f"lacks its part {', '.join(missing)}")
        if len(version := chunks.get(b"ifil", content[:0])) < 2 or version[:2].view("<u2")[0] != 2:
            raise self._error("is of another version; SoundFont 3, with compressed samples, is not supported")
        self._samples = self._table(chunks, b"smpl", np.dtype("<i2"))
        self._tables = {name: self._table(chunks, name, np.dtype(columns)) for name, columns in _TABLES.items()}

    def _error(self, flaw: str) -> ValueError:
        return ValueError(f"{self._expected} {flaw}")

    def _chunks(self, content: NDArray[np.uint8], start: int = 12) -> Iterator[tuple[bytes, NDArray[np.uint8]]]:
        """Yields the name and the content of each chunk, and those of the chunks in lists."""
        while start + 8 <= len(content):
            name, size = content[start : start + 4].tobytes(), int(content[start + 4 : start + 8].view("<u4")[0])
            end = start + 8 + size
            if end > len(content):
                raise self._error(f"is truncated: its part {name.decode('ascii', 'replace')} ends after the file")
            if name == b"LIST":
                yield from self._chunks(content[:end], start + 12)
            else:
                yield name, content[start + 8 : end]
            start = end + size % 2

    def _table(self, chunks: Mapping[bytes, NDArray[np.uint8]], name: bytes, row: np.dtype[Any]) -> NDArray[Any]:
        chunk = chunks[name]
        if len(chunk) % row.itemsize or not len(chunk):
            raise self._error(f"is damaged: its part {name.decode()} has {len(chunk)} bytes")
        return chunk.view(row)

    def samples(self, start: int, end: int) -> NDArray[np.float64]:
        """Samples from ``start`` to before ``end``, with full scale 1."""
        return self._samples[start:end] / 32_768

    def layers(self, program: int) -> list[Layer]:
        """The recordings of a program (0 to 127) in bank 0; an empty list if the file lacks it.

        Raises:
            ValueError: if the file is damaged.
        """
        headers = self._tables[b"phdr"]
        selected = np.flatnonzero((headers["program"][:-1] == program) & (headers["bank"][:-1] == 0))
        if not len(selected):
            return []
        found = []
        for outer in self._zones(b"phdr", b"pbag", b"pgen", int(selected[0]), Setting.INSTRUMENT):
            for inner in self._zones(b"inst", b"ibag", b"igen", outer[Setting.INSTRUMENT], Setting.SAMPLE):
                layer = self._layer(outer, inner)
                if layer is not None:
                    found.append(layer)
        return found

    def _zones(self, headers: bytes, bags: bytes, settings: bytes, index: int, target: Setting) -> list[dict[int, int]]:
        """The settings of each zone with a ``target``; a first zone without one has the defaults of the others."""
        first, last = self._span(headers, "bag", index)
        defaults: dict[int, int] = {}
        zones = []
        for bag in range(first, last):
            begin, end = self._span(bags, "setting", bag)
            rows = self._tables[settings][begin:end]
            if len(rows) < end - begin:
                raise self._error(f"is damaged: its part {settings.decode()} is too short")
            zone = dict(zip(rows["kind"].tolist(), rows["value"].tolist(), strict=True))
            if target in zone:
                zones.append(defaults | zone)
            elif bag == first:
                defaults = zone
        return zones

    def _span(self, table: bytes, column: str, index: int) -> tuple[int, int]:
        """What row ``index`` refers to: from its entry to that of the next row."""
        rows = self._tables[table][column]
        if not 0 <= index < len(rows) - 1 or rows[index] > rows[index + 1]:
            raise self._error(f"is damaged: its part {table.decode()} has no valid entry {index}")
        return int(rows[index]), int(rows[index + 1])

    def _layer(self, outer: dict[int, int], inner: dict[int, int]) -> Layer | None:
        """Joins a zone of a program and one of its instrument; ``None`` if no note is in both."""
        (low, high), (softest, loudest) = (_common(_range(outer, name), _range(inner, name)) for name in _RANGES)
        rows = self._tables[b"shdr"]
        number = inner[Setting.SAMPLE] & 0xFFFF
        if number >= len(rows) - 1:
            raise self._error(f"is damaged: it has no recording {number}")
        sample = rows[number]
        if low > high or softest > loudest or sample["type"] & _ROM:
            return None
        added = {kind: value for kind, value in outer.items() if kind not in _OF_RECORDINGS}
        settings = {kind: inner.get(kind, _DEFAULTS.get(kind, 0)) + added.get(kind, 0) for kind in inner | added}
        root = settings.get(Setting.ROOT, -1)
        layer = Layer(
            (low, high),
            (softest, loudest),
            settings,
            int(sample["start"]) + _offset(inner, Setting.START, Setting.START_COARSE),
            int(sample["end"]) + _offset(inner, Setting.END, Setting.END_COARSE),
            int(sample["loop_start"]) + _offset(inner, Setting.LOOP_START, Setting.LOOP_START_COARSE),
            int(sample["loop_end"]) + _offset(inner, Setting.LOOP_END, Setting.LOOP_END_COARSE),
            int(sample["rate"]),
            (root if root >= 0 else int(sample["root"])) - int(sample["correction"]) / 100,
        )
        if not (0 <= layer.start < layer.end <= len(self._samples) and 400 <= layer.rate <= 192_000):
            raise self._error(f"is damaged: its recording {number} lies outside of its samples, or has a rate of 0")
        return layer


def _range(zone: Mapping[int, int], setting: Setting) -> tuple[int, int]:
    """Lowest and highest value, which are the two bytes of the setting."""
    value = zone.get(setting, 0x7F00) & 0xFFFF
    return value & 0xFF, value >> 8


def _common(first: tuple[int, int], second: tuple[int, int]) -> tuple[int, int]:
    return max(first[0], second[0]), min(first[1], second[1])


def _offset(zone: Mapping[int, int], fine: Setting, coarse: Setting) -> int:
    return zone.get(fine, 0) + 32_768 * zone.get(coarse, 0)


class FontFile(NamedTuple):
    """A SoundFont, identified by its content, so that a moved file is the same one.

    Args:
        path: place of the file.
        size: number of bytes.
        sha256: hash of the content.
    """

    path: Path
    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FontFile:
        """Reads the whole file once. Errors are those of :class:`SoundFont`."""
        SoundFont(path)
        with path.open("rb") as file:
            return cls(path, path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())

    def as_json(self) -> dict[str, Any]:
        """What a data set records about the file."""
        return {"name": self.path.name, "bytes": self.size, "sha256": self.sha256}
