"""Reads the frames of clips."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from sslosses._optional import require

log = logging.getLogger(__name__)
SUFFIXES = (".jpg", ".png")


def read_frame(folder: Path, clip: str, size: int, mode: str, purpose: str) -> np.ndarray | None:
    """Reads a clip's frame, upright and ``size`` pixels wide and high; None, with a warning, if no file can be read.

    Args:
        folder: holds ``<clip>.jpg`` or ``<clip>.png``.
        clip: the clip's id.
        size: side of the result, in pixels.
        mode: ``"L"`` for gray, (size, size), or ``"RGB"``, (size, size, 3); uint8.
        purpose: what needs Pillow, for the error if it is missing.
    """
    image, ops = (require(f"PIL.{name}", extra="examples", purpose=purpose) for name in ("Image", "ImageOps"))
    for suffix in SUFFIXES:
        try:
            with image.open(folder / f"{clip}{suffix}") as opened:
                upright = ops.exif_transpose(opened)
                if upright.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255
                    upright = image.fromarray(
                        (np.asarray(upright).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)
                    )
                return np.asarray(upright.convert(mode).resize((size, size)))
        except Exception as error:  # decoders raise anything on broken files
            if not isinstance(error, FileNotFoundError):
                log.warning("Cannot read %s, so it is left out: %s", folder / f"{clip}{suffix}", error)
    return None
