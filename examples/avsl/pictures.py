"""Pictures, read in one way for training, captions and localization: upright, in RGB, with 8 bits per channel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

ORIENTATION = 0x0112  # EXIF's tag; 1 is upright


def read_picture(path: Path) -> Image.Image:
    """Reads a picture as a viewer shows it, in RGB.

    The EXIF orientation is applied, transparent parts are white, and 16 bits per channel are scaled to 8.

    Raises:
        FileNotFoundError: if the file does not exist.
        OSError: naming the file, if it is not a readable picture or its numbers have no known range.
    """
    picture = read_stored(path)
    try:
        return _rgb(picture)
    except ValueError as error:  # Pillow can't convert every mode
        raise OSError(f"Expected {path} to be a picture, but it can't be converted to RGB: {error}") from error


def read_stored(path: Path) -> Image.Image:
    """Reads and decodes a picture, upright, with the channels that the file has.

    Raises:
        FileNotFoundError: if the file does not exist.
        OSError: naming the file, if it is not a readable picture.
    """
    try:
        # Given a path, Pillow maps an uncompressed TIFF into memory, and scrambles it if it is turned.
        with path.open("rb") as file, Image.open(file) as image:
            image.load()
            # A copy, even of an upright picture, would lose the name of the format.
            return ImageOps.exif_transpose(image) if image.getexif().get(ORIENTATION, 1) != 1 else image
    except FileNotFoundError:
        raise
    except Exception as error:  # decoders raise errors of any type for malformed files
        raise OSError(f"Expected {path} to be a picture, but it can't be read: {error}") from error


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in ("I", "F") or picture.mode.startswith("I;"):
        picture = _eight_bits(picture)
    if "transparency" in picture.info or picture.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Scales a gray picture of 16 bits; Pillow would clip it at 255 instead."""
    values = np.asarray(picture)
    # Mode "I" has 32 bits, but for PNG and PGM it is how older versions of Pillow store 16.
    if picture.mode == "F" or (picture.mode == "I" and picture.format not in ("PNG", "PPM")):
        raise ValueError(
            f"expected 8 or 16 bits per channel, but its {values.dtype} values from {values.min()} to {values.max()} "
            "have no known range"
        )
    return Image.fromarray((values.astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
