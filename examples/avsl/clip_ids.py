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
CLIP_SECONDS = 10  # of VGGSound
_CENTER = CLIP_SECONDS / 2  # s; the boxes of VGG-SS belong to frame 125 at 25 Hz, counted from 0
_MAX_RATE = 31.0  # Hz; no public list counts faster
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


def is_public(name: str) -> bool:
    """Whether ``name`` is an id of MUSIC or of VGGSound."""
    return bool(_MUSIC.fullmatch(name) or _VGGSOUND.fullmatch(name))


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

    def seconds_at(self, rate: float | None) -> float:
        """Time of the frame in the whole video, which has ``rate`` frames per second.

        Raises:
            ValueError: if ``rate`` is ``None`` and the id counts frames.
        """
        if self.frame is None:
            return self.second + _CENTER
        if rate is None:
            raise ValueError(f"Expected the rate at which {self} counts frames, but got None")
        return self.frame / rate

    def fits(self, rate: float) -> bool:
        """Whether the frame lies in its second at ``rate``, or at the whole number that is meant, as 30 by 29.97."""
        return self.frame is None or any(int(self.frame / r) == self.second for r in (rate, _nominal(rate)))


def _nominal(rate: float) -> float:
    whole = round(rate)
    return whole if whole and abs(rate - whole) <= 0.002 * whole else rate


def frame_rate(clips: Iterable[ClipId], rate: float | None = None) -> float:
    """Returns the rate at which the frames of one video were counted.

    A download may have another rate than the video that the lists were made from. So this is the first of these rates
    that fits all ids: that of the file, or half of it above 31 Hz, since such files are also served at half their rate;
    one of the usual rates; that of the file if it is at most 62 Hz. If none fits, the rate is derived from the ids.

    Args:
        clips: all clips of the video that any list names. Fewer clips may give another rate.
        rate: rate of the file; ``None`` if it is not known.
    """
    clips = [clip for clip in clips if clip.frame is not None]
    of_file = () if rate is None or rate > 2 * _MAX_RATE else (rate,)  # no such video was listed, or it is a wrong rate
    likely = tuple(r if r <= _MAX_RATE else r / 2 for r in of_file)
    for candidate in (*likely, *_COMMON_RATES, *of_file):
        if all(clip.fits(candidate) for clip in clips):
            return candidate
    return min((clip.frame / clip.second for clip in clips if clip.frame and clip.second), default=_COMMON_RATES[0])


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
