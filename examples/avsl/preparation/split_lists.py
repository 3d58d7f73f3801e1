"""Reads the public lists, and writes them restricted to the prepared clips."""

from __future__ import annotations

import re
import reprlib
from collections import Counter
from collections.abc import Callable, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from ..clip_ids import ClipId
from ..constants import WHERE_LISTS_ARE
from ..files import read_rows, write_bytes, write_text


class Line(NamedTuple):
    """A line of a list, and the ids of the clips that it needs."""

    text: str
    clips: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class SplitList:
    """A list of clips. ``name`` is its file name in the prepared folder."""

    name: str
    lines: tuple[Line, ...]

    @property
    def test(self) -> bool:
        """Whether it lists a test set. Metrics on part of a test set are not comparable."""
        return "_test" in self.name

    def write(self, folder: Path, prepared: Set[str]) -> int:
        """Writes the lines whose clips are all ``prepared`` and returns their number. For 0 lines there is no file."""
        lines = [f"{line.text}\n" for line in self.lines if prepared.issuperset(line.clips)]
        path = folder / self.name
        if lines:
            write_text(path, "".join(lines))
        else:
            path.unlink(missing_ok=True)
        return len(lines)


def read_music(folder: Path) -> list[SplitList]:
    """Reads MUSIC's lists, with lines ``id``, ``id,class`` or ``id,class1,class2``."""
    names = [f"music_{subset}_{part}" for subset in ("solo", "duet") for part in ("train.txt", "test.csv")]
    return _read(folder, names, lambda path: _lines(path, lambda row: row[:1], frames=True))


def read_vggsound(folder: Path) -> list[SplitList]:
    """Reads VGGSound's test lists, with ``id,class`` per source, and the training part of ``vggsound.csv``.

    Raises:
        ValueError: naming the first malformed line.
    """
    names = [f"vggsound_{sources}_test.csv" for sources in ("single", "duet", "trio")]
    lists = _read(folder, [*names, "vggsound.csv"], _vggsound_lines)
    return [replace(part, name="vggsound_train.csv") if part.name == "vggsound.csv" else part for part in lists]


def _vggsound_lines(path: Path) -> tuple[Line, ...]:
    if path.name != "vggsound.csv":
        return _lines(path, lambda row: row[::2], frames=False)
    lines = []
    for number, row in read_rows(path):
        if len(row) != 4 or not re.fullmatch("[0-9]{1,6}", row[1]) or row[3] not in ("train", "test"):
            raise ValueError(
                f"Expected 'video,start second,class,train|test' in line {number} of {path}, "
                f"but got {reprlib.repr(row)}"
            )
        if row[3] == "train":
            name = f"{row[0]}_{int(row[1]):06d}"
            _check(path, number, name, frames=False)
            # Spelled as in the public test lists: female_speech_woman_speaking for "female speech, woman speaking".
            lines.append(Line(f"{name},{row[2].replace(', ', '_').replace(' ', '_')}", (name,)))
    return tuple(lines)


def _read(folder: Path, names: list[str], read: Callable[[Path], tuple[Line, ...]]) -> list[SplitList]:
    paths = [folder / name for name in names if (folder / name).is_file()]
    if not paths:
        raise FileNotFoundError(
            f"Expected `--lists` to be a folder with one or more of {', '.join(names)}, "
            f"but {folder.resolve()} has none. {WHERE_LISTS_ARE}"
        )
    return [SplitList(path.name, _checked(path, read(path))) for path in paths]


def _checked(path: Path, lines: tuple[Line, ...]) -> tuple[Line, ...]:
    """The lines, if training can read a list of them."""
    if not lines:
        raise ValueError(f"Expected {path} to list clips, but it lists none")
    repeated = next((line for line, count in Counter(line.clips for line in lines).items() if count > 1), None)
    if repeated:
        raise ValueError(f"Expected each clip of {path} once, but {', '.join(repeated)} is there several times")
    return lines


def _lines(path: Path, clips: Callable[[list[str]], list[str]], *, frames: bool) -> tuple[Line, ...]:
    lines = []
    for number, row in read_rows(path):
        for name in clips(row):
            _check(path, number, name, frames=frames)
        lines.append(Line(",".join(row), tuple(clips(row))))
    return tuple(lines)


def _check(path: Path, number: int, name: str, *, frames: bool) -> None:
    try:
        clip = ClipId.parse(name)
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: {error}") from error
    if (clip.frame is not None) != frames:
        raise ValueError(
            f"Expected an id of {'MUSIC' if frames else 'VGGSound'} in line {number} of {path}, but got {name!r}"
        )


def copy(path: Path, folder: Path) -> None:
    """Copies a file of boxes to ``folder``."""
    write_bytes(folder / path.name, path.read_bytes())
