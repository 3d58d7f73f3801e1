"""The frames behind the maps of a picture sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sslosses.evaluate import sheet


@pytest.mark.parametrize("sixteen_bits", [False, True])
def test_frames_are_upright_and_keep_their_gray_levels(tmp_path: Path, sixteen_bits: bool) -> None:
    gray = np.repeat(np.array([[40, 200], [120, 250]]), 16, 0).repeat(16, 1)
    picture = Image.fromarray((gray * 257).astype(np.uint16) if sixteen_bits else gray.astype(np.uint8))
    orientation = Image.Exif()
    orientation[0x0112] = 6  # to be turned by a quarter
    picture.save(tmp_path / "a.png", exif=orientation)
    shown = sheet._picture(tmp_path, "a", 32)
    assert shown is not None
    assert np.array_equal(shown, np.rot90(gray, -1))
