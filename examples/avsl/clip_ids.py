"""Ids of clips: the video and time that they encode, and the file that holds the clip's sound."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# MUSIC names a frame `<video>_<second>_<frame>`, VGGSound names a clip `<video>_<start second>`. YouTube's ids have
# eleven characters, which may include "_" and "-".
_MUSIC = re.compile(r"([\w-]{11})_(\d{3,6})_(\d{5,8})", re.ASCII)
_VGGSOUND = re.compile(r"([\w-]{11})_(\d{6})", re.ASCII)
_CENTER = 5.0  # VGGSound's clips last 10 s; the boxes of VGG-SS belong to the middle frame
_COMMON_RATES = (30.0, 25.0, 24.0, 15.0, 20.0, 12.0)
_MAX_NAME_BYTES = 200  # file names, suffix included, may have 255


def check_name(name: str, where: str) -> None:
    """Checks that the id of a clip can be used as a file name.

    Raises:
        ValueError: if it can't; the message says ``where`` the id occurs.
    """
    if name in ("", ".", "..") or any(letter in "/\\:" or not letter.isprintable() for letter in name):
        raise ValueError(f"Expected an id without path separators in {where}, but got {name[:80]!r}")
    if len(name.encode()) > _MAX_NAME_BYTES:
        raise ValueError(f"Expected an id of at most {_MAX_NAME_BYTES} bytes in {where}, but got {name[:80]!r}…")


@dataclass(frozen=True)
class ClipId:
    """The frame of a video that an id refers to.

    For MUSIC, ``frame`` is the number of the frame at the video's own rate, and ``second`` is the second that contains
    it. For VGGSound, ``frame`` is ``None`` and ``second`` is the start of the clip.
    """

    video: str
    second: int
    frame: int | None = None

    @classmethod
    def parse(cls, name: str) -> ClipId:
        """Parses ``name``.

        Raises:
            ValueError: if it is neither an id of MUSIC nor of VGGSound.
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
        """Time of the frame in the whole video, without knowing the rate of the video.

        The error is less than a second, and zero for most videos. :meth:`seconds_at` is exact.
        """
        if self.frame is None:
            return self.second + _CENTER
        fitting = (self.frame / rate for rate in _COMMON_RATES if int(self.frame / rate) == self.second)
        return next(fitting, self.second + 0.5)

    def seconds_at(self, rate: float) -> float:
        """Time of the frame in the whole video, which has ``rate`` frames per second."""
        return self.second + _CENTER if self.frame is None else self.frame / rate

    def fits(self, rate: float) -> bool:
        """Whether the frame lies in its second at ``rate``, with tolerance for rates like 29.97."""
        return self.frame is None or self.second - 0.25 <= self.frame / rate < self.second + 1.25


def frame_rate(clips: Iterable[ClipId], rate: float) -> float:
    """Returns the rate at which the frames of one video were counted.

    This is the ``rate`` of the file unless it contradicts the ids: a download may have another rate than the video
    that the lists were made from. Then the rate is derived from the ids; it is 30 if they do not determine it.
    """
    clips = list(clips)
    if all(clip.fits(rate) for clip in clips):
        return rate
    return min((clip.frame / clip.second for clip in clips if clip.frame and clip.second), default=30.0)


@dataclass(frozen=True)
class Sound:
    """A sound file and the time of the clip's center in it; ``None`` stands for the center of the file."""

    path: Path
    seconds: float | None = None

    def __str__(self) -> str:
        return str(self.path) if self.seconds is None else f"{self.path} at {self.seconds:.1f} s"

    def first_sample(self, total: int, wanted: int, rate: int) -> int:
        """Returns where to start reading ``wanted`` of ``total`` samples.

        The samples lie inside the file if it is long enough.

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
    """Finds the sound of clip ``name``: its own ``<name>.wav``, or else the part of ``<video>.wav`` around its frame.

    If neither file exists, the path is that of the first.
    """
    clip_file, *video_files = (folder / file for file in sound_files(name))
    if not clip_file.is_file():
        for path in video_files:
            if path.is_file():
                return Sound(path, ClipId.parse(name).seconds)
    return Sound(clip_file)


def sound_files(name: str) -> list[str]:
    """Names of the files that may hold the sound of clip ``name``; the first one that exists is used."""
    try:
        return [f"{name}.wav", f"{ClipId.parse(name).video}.wav"]
    except ValueError:
        return [f"{name}.wav"]
