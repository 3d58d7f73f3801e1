"""Objects from photographs with alpha and recordings: a folder tree of ``name.png``, ``name.ogg``, ``name.txt``."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance
from scipy.signal import resample_poly

from ...constants import SAMPLE_RATE, SAMPLES
from ...pictures import read_stored
from ...sounds import read_recording
from . import drawing
from .arrangement import Placement, Vocabulary

MIN_SIDE_SOUNDING = 90  # pixels of the shorter side; smaller pictures are usually icons, not photographs
MIN_SIDE_SILENT = 60
MAX_CAPTION_LENGTH = 32
SOUNDING_FOLDERS = ("animals", "hobbies", "household", "vehicles", "town")
SILENT_FOLDERS = ("clothes", "food", "household", "plants", "hobbies", "sports", "vehicles", "animals")


class MediaSource:
    """Objects from a folder tree such as that of Debian's ``tuxpaint-stamps-default``.

    A picture with a sound file beside it is a sounding class. A picture without one, or with a silent one as four of
    that package, is a silent class. Waves drawn at its sides distinguish a sounding object from its silent twin. There
    is one picture and one recording per class, so training and test scenes share them and differ in composition,
    colors, mirroring and the section of the sound.

    Raises:
        FileNotFoundError: if ``root`` contains fewer than 7 sounding or no silent objects; the message has the layout.
    """

    def __init__(self, root: Path) -> None:
        self.pictures: dict[str, Path] = {}
        sounding: dict[str, float] = {}
        silent: dict[str, float] = {}
        for path in sorted(root.rglob("*.png")) if root.is_dir() else []:
            top, phrase, size = path.relative_to(root).parts[0], _phrase(path), _opaque_size(path)
            if path.stem in self.pictures or phrase is None or size is None:
                continue
            aspect, shorter = size[0] / size[1], min(size)
            sounds = path.with_suffix(".ogg").exists() and bool(_recording(path.with_suffix(".ogg")).any())
            if not 0.4 <= aspect <= 2.5:
                continue
            if sounds and top in SOUNDING_FOLDERS and shorter >= MIN_SIDE_SOUNDING:
                sounding[path.stem] = aspect
            elif not sounds and top in SILENT_FOLDERS and shorter >= MIN_SIDE_SILENT:
                silent[path.stem] = aspect
            else:
                continue
            self.pictures[path.stem] = path
        if len(sounding) < 7 or not silent:
            raise FileNotFoundError(
                f"Expected `media` to be a folder with at least 7 sounding objects (name.png with alpha, name.ogg, "
                f"name.txt) below {', '.join(SOUNDING_FOLDERS)}, and silent ones (no name.ogg) below "
                f"{', '.join(SILENT_FOLDERS)}, but {root} has {len(sounding)} and {len(silent)}. "
                f"On Debian: apt-get install tuxpaint-stamps-default, then --media /usr/share/tuxpaint/stamps"
            )
        self.vocabulary = Vocabulary(sounding, silent)

    def backdrop(self, rng: np.random.Generator, side: int, held_out: bool) -> Image.Image:
        """Draws sky and ground with small silent objects, RGB, ``side`` × ``side`` pixels."""
        palette = drawing.Palette(rng, held_out)
        image = Image.new("RGB", (side, side), palette.wall())
        ImageDraw.Draw(image).rectangle((0, rng.uniform(0.4, 0.8) * side, side, side), fill=palette.wall())
        for name in rng.choice(list(self.vocabulary.silent), size=int(rng.integers(0, 3))):
            size = rng.uniform(0.12, 0.22)
            box = (rng.uniform(0, 1 - size), rng.uniform(0, 1 - size), size * self.vocabulary.silent[str(name)], size)
            self.paint(image, str(name), False, box, rng, held_out)
        return image

    def paint(
        self, canvas: Image.Image, name: str, sounding: bool, box: Placement, rng: np.random.Generator, held_out: bool
    ) -> None:
        """Pastes the photograph into its box, with waves at its sides if it sounds."""
        side = canvas.width
        left, top = round(box[0] * side), round(box[1] * side)
        stamp = _picture(self.pictures[name]).resize((max(1, round(box[2] * side)), max(1, round(box[3] * side))))
        if rng.random() < 0.5:
            stamp = stamp.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        alpha = stamp.getchannel("A")
        tinted = ImageEnhance.Brightness(stamp.convert("RGB")).enhance(rng.uniform(0.75, 1.2))
        tinted = ImageEnhance.Color(tinted).enhance(rng.uniform(0.6, 0.9) if held_out else rng.uniform(0.9, 1.3))
        canvas.paste(tinted, (left, top), alpha)
        if sounding:
            pen = drawing.Pen(ImageDraw.Draw(canvas), (left, top, left + stamp.width, top + stamp.height))
            drawing.sound_waves(pen)

    def sound(self, name: str, rng: np.random.Generator, held_out: bool) -> NDArray[np.float32]:
        """3 s at 16 kHz: the recording, repeated with pauses, from a random point.

        Test clips use the same recording as training clips with another loudness contour.
        """
        recording = _recording(self.pictures[name].with_suffix(".ogg"))
        length = SAMPLES
        parts: list[NDArray[np.float32]] = []
        while sum(map(len, parts)) < 2 * length:
            pause = np.zeros(int(rng.uniform(0.0, 0.25) * SAMPLE_RATE), dtype=np.float32)
            parts += [recording * np.float32(rng.uniform(0.6, 1.0)), pause]
        track = np.concatenate(parts)
        start = int(rng.integers(min(len(recording), length)))
        clip = track[start : start + length]
        tilt = np.linspace(1.0, 0.7, length) if held_out else np.linspace(0.7, 1.0, length)
        return (0.9 * clip * tilt / max(float(np.abs(clip).max()), 1e-6)).astype(np.float32)

    def phrase(self, name: str, sounding: bool) -> str:
        """Names the object for a caption, from its ``name.txt``."""
        phrase = _phrase(self.pictures[name]) or name
        if sounding:
            return f"{phrase} making a sound"
        article, _, rest = phrase.partition(" ")
        return (
            f"{'a' if article in ('a', 'an') else article} silent {rest}"
            if name in self.vocabulary.sounding
            else phrase
        )


def _phrase(picture: Path) -> str | None:
    """First line of the text beside a picture as a noun phrase; ``None`` if it does not suit a caption."""
    text = picture.with_suffix(".txt")
    if not text.exists():
        return None
    first = text.read_text(encoding="utf-8-sig", errors="replace").partition("\n")[0].strip().rstrip(".")
    first = re.sub(r"\s*\(.*?\)", "", first)
    if not re.fullmatch(r"(A|An) [\w' -]+", first) or len(first) > MAX_CAPTION_LENGTH:
        return None
    return first[0].lower() + first[1:]


def _opaque_size(path: Path) -> tuple[int, int] | None:
    """Size of the opaque part of a picture; ``None`` if it has no alpha channel or no opaque part."""
    image = read_stored(path)
    if image.mode not in ("RGBA", "LA"):
        return None
    box = image.getchannel("A").getbbox()
    return (box[2] - box[0], box[3] - box[1]) if box else None


@lru_cache(maxsize=1024)
def _picture(path: Path) -> Image.Image:
    image = read_stored(path)
    return image.convert("RGBA").crop(image.getchannel("A").getbbox())


@lru_cache(maxsize=256)
def _recording(path: Path) -> NDArray[np.float32]:
    mono, rate = read_recording(path)
    return resample_poly(mono, SAMPLE_RATE, rate).astype(np.float32) if rate != SAMPLE_RATE else mono
