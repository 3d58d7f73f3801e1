"""One reader of pictures for training, captions and localization: upright, RGB, 8 bits per channel."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from avsl.captioning.frames import data_url, load_frame
from avsl.data.scenes import _read_frame
from avsl.pictures import read_picture
from PIL import Image, ImageOps

COLORS = np.zeros((60, 80, 3), np.uint8)
COLORS[:, :40, 0] = COLORS[:, 40:, 2] = 255
COLORS[:20, :20] = 255  # red, blue and a white corner, so that every turn and mirror image differs


def jpeg(path: Path, orientation: int) -> np.ndarray:
    """Writes a picture with an orientation, and returns what a viewer shows."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLORS).save(path, quality=95, subsampling=0, exif=exif)
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_training_captions_and_localization_see_the_same_upright_picture(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "a.jpg"
    shown = jpeg(path, orientation)
    assert np.array_equal(np.asarray(read_picture(path)), shown)
    assert np.array_equal(np.asarray(load_frame(path, 1024)), shown)
    square = Image.fromarray(shown).resize((16, 16), Image.Resampling.BILINEAR)
    assert np.array_equal(_read_frame(path, 16).permute(1, 2, 0), np.asarray(square))
    sent = base64.b64decode(data_url(path, 1024).partition(",")[2])
    with Image.open(io.BytesIO(sent)) as image:  # servers may ignore the tag
        assert image.getexif().get(0x0112, 1) == 1
        assert np.abs(np.asarray(image).astype(float) - shown).mean() < 4
    assert (sent == path.read_bytes()) == (orientation == 1)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK"])
@pytest.mark.parametrize("orientation", [3, 5, 6])
def test_turned_tiff_files_are_upright(tmp_path: Path, mode: str, orientation: int) -> None:
    picture, exif = Image.fromarray(COLORS).convert(mode), Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "a.tif", exif=exif)
    turned = picture.convert("RGB")
    turned.getexif()[0x0112] = orientation
    assert np.array_equal(np.asarray(read_picture(tmp_path / "a.tif")), np.asarray(ImageOps.exif_transpose(turned)))


RAMP = np.linspace(0, 65_535, 64 * 64).reshape(64, 64)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
@pytest.mark.parametrize("kind", ["<u2", ">u2"])
def test_gray_of_16_bits_keeps_its_range(tmp_path: Path, suffix: str, kind: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "pgm":
        path.write_bytes(b"P5 64 64 65535\n" + RAMP.astype(">u2").tobytes())
    else:
        mode = "I;16" if kind == "<u2" else "I;16B"
        picture = Image.frombytes(mode, (64, 64), RAMP.astype(kind).tobytes())
        picture.save(path)
    gray = np.asarray(read_picture(path)).astype(float)
    assert gray.shape == (64, 64, 3)
    assert np.abs(gray - RAMP[..., None] / 257).max() <= 1
    assert np.abs(_read_frame(path, 64).permute(1, 2, 0).numpy() - gray).max() == 0
    assert np.abs(np.asarray(load_frame(path, 64)) - gray).max() == 0


def saved(path: Path, picture: Image.Image, **options: object) -> Path:
    picture.save(path, **options)
    return path


def test_transparent_parts_are_white_whatever_color_they_hide(tmp_path: Path) -> None:
    alpha = np.full((60, 80), 255, np.uint8)
    alpha[:, 40:] = 0
    half = COLORS.copy()
    half[:, 40:] = 255
    layers = Image.fromarray(np.dstack([COLORS, alpha]))
    palette = Image.fromarray(COLORS).quantize(4)
    blue = palette.getpixel((60, 50))
    for path in (
        saved(tmp_path / "rgba.png", layers),
        saved(tmp_path / "rgba.webp", layers, lossless=True, exact=True),
        saved(tmp_path / "palette.png", palette, transparency=blue),
        saved(tmp_path / "palette.gif", palette, transparency=blue),
        saved(tmp_path / "key.png", Image.fromarray(COLORS), transparency=(0, 0, 255)),
    ):
        assert np.array_equal(np.asarray(read_picture(path)), half), path.name
    gray = saved(tmp_path / "gray.png", Image.fromarray(np.dstack([COLORS[..., 0], alpha])))
    assert (np.asarray(read_picture(gray))[:, 40:] == 255).all()


def test_palettes_cmyk_and_two_levels(tmp_path: Path) -> None:
    picture = Image.fromarray(COLORS)
    for path in (
        saved(tmp_path / "palette.png", picture.quantize(4)),
        saved(tmp_path / "cmyk.tif", picture.convert("CMYK")),
    ):
        assert np.array_equal(np.asarray(read_picture(path)), COLORS), path.name
    cmyk = saved(tmp_path / "cmyk.jpg", picture.convert("CMYK"), quality=95)
    assert np.abs(np.asarray(read_picture(cmyk)).astype(float) - COLORS).mean() < 4
    with Image.open(io.BytesIO(base64.b64decode(data_url(cmyk, 1024).partition(",")[2]))) as image:
        assert image.mode == "RGB"
    two = saved(tmp_path / "two.png", Image.fromarray(COLORS[..., 0] > 0))
    assert np.array_equal(np.asarray(read_picture(two))[..., 0], COLORS[..., 0])


@pytest.mark.parametrize("kind", ["f4", "i4"])
def test_numbers_without_a_known_range_are_refused(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path / "a.tif", Image.fromarray((RAMP * 9).astype(kind)))
    with pytest.raises(OSError, match=r"a\.tif to be a picture, .*8 or 16 bits per channel, but its .* no known range"):
        read_picture(path)
