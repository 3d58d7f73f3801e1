"""Ids of clips: the video and the time that they name, and where a clip's sound lies."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# A frame of MUSIC, `<video>_<second>_<frame>`, and a clip of VGGSound, `<video>_<start second>`. YouTube's ids have
# eleven characters and may hold "_" and "-".
_MUSIC = re.compile(r"([\w-]{11})_(\d{3,6})_(\d{5,8})", re.ASCII)
_VGGSOUND = re.compile(r"([\w-]{11})_(\d{6})", re.ASCII)
_CENTER = 5.0  # VGGSound's clips last 10 s; the boxes of VGG-SS are drawn on the frame in the middle
_USUAL_RATES = (30.0, 25.0, 24.0, 15.0, 20.0, 12.0)


_LONGEST = 200  # bytes: with a suffix, names of files may have 255


def check_name(name: str, where: str) -> None:
    """Check that a clip's id is the plain name of a file, which it becomes.

    Raises:
        ValueError: if not, saying ``where`` the id stands.
    """
    if name in ("", ".", "..") or any(letter in "/\\:" or not letter.isprintable() for letter in name):
        raise ValueError(f"Expected an id without path separators in {where}, but got {name[:80]!r}")
    if len(name.encode()) > _LONGEST:
        raise ValueError(f"Expected an id of at most {_LONGEST} bytes in {where}, but got {name[:80]!r}…")


@dataclass(frozen=True)
class ClipId:
    """The frame of a video that an id names.

    ``frame`` counts the frames of the video at its own rate, and ``second`` is the second that it lies in; ``frame`` is
    ``None`` for VGGSound, where ``second`` is the start of the clip.
    """

    video: str
    second: int
    frame: int | None = None

    @classmethod
    def parse(cls, name: str) -> ClipId:
        """Read ``name``.

        Raises:
            ValueError: if it is an id of neither data set.
        """
        if match := _MUSIC.fullmatch(name):
            return cls(match[1], int(match[2]), int(match[3]))
        if match := _VGGSOUND.fullmatch(name):
            return cls(match[1], int(match[2]))
        raise ValueError(
            f"Expected `name` to be an id like 'E7E1kMExVcg_053_01611' (video, second, frame) or 'zpWuikVorYg_000032' "
            f"(video, start second), but got {reprlib.repr(name)}"
        )

    @property
    def seconds(self) -> float:
        """The frame's time in the whole video, where the video's rate is not known: off by less than a second, and
        exact for most videos. :meth:`seconds_at` is exact."""
        if self.frame is None:
            return self.second + _CENTER
        fitting = (self.frame / rate for rate in _USUAL_RATES if int(self.frame / rate) == self.second)
        return next(fitting, self.second + 0.5)

    def seconds_at(self, rate: float) -> float:
        """The frame's time in the whole video, for a video of ``rate`` frames a second."""
        return self.second + _CENTER if self.frame is None else self.frame / rate

    def fits(self, rate: float) -> bool:
        """Whether the frame lies in its second at ``rate``, give or take what rates like 29.97 add up to."""
        return self.frame is None or self.second - 0.25 <= self.frame / rate < self.second + 1.25


def frame_rate(clips: Iterable[ClipId], rate: float) -> float:
    """The rate at which the frames of one video were counted.

    That is the file's own ``rate`` unless the ids contradict it: a download may have another rate than the one the
    lists were made from. Then the ids' is taken, 30 if they do not tell.
    """
    clips = list(clips)
    if all(clip.fits(rate) for clip in clips):
        return rate
    return min((clip.frame / clip.second for clip in clips if clip.frame and clip.second), default=30.0)


@dataclass(frozen=True)
class Sound:
    """A file, and the time in it around which the clip lies; ``None``: in its center."""

    path: Path
    seconds: float | None = None

    def first_sample(self, total: int, wanted: int, rate: int) -> int:
        """Where to start reading ``wanted`` of ``total`` samples; inside the file where it is long enough.

        Raises:
            ValueError: if the file ends before ``seconds``.
        """
        if self.seconds is None:
            return max(0, (total - wanted) // 2)
        if self.seconds > total / rate:
            raise ValueError(
                f"Expected {self.path} to hold the sound of the whole video, with a frame at {self.seconds:.1f} s, but "
                f"it lasts {total / rate:.1f} s"
            )
        return max(0, min(round(self.seconds * rate) - wanted // 2, total - wanted))


def find_sound(folder: Path, name: str) -> Sound:
    """The sound of clip ``name``: ``<name>.wav`` in ``folder``, else the part of ``<video>.wav`` around its frame.

    If neither is there, the path is that of the first.
    """
    own, *whole = (folder / file for file in sound_files(name))
    if not own.is_file():
        for path in whole:
            if path.is_file():
                return Sound(path, ClipId.parse(name).seconds)
    return Sound(own)


def sound_files(name: str) -> list[str]:
    """Names of the files that may hold the sound of clip ``name``, the first that is there counts."""
    try:
        return [f"{name}.wav", f"{ClipId.parse(name).video}.wav"]
    except ValueError:
        return [f"{name}.wav"]
