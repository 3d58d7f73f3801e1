"""What is refused: the text says what was expected and what came."""

from __future__ import annotations

import errno
import gzip
import io
import struct
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from avsl.demo.limits import Limits
from avsl.demo.uploads import UploadError, check_stream, open_picture, open_sound, refusing
from PIL import Image

from .conftest import write_sound
from .videos import write_video

LIMITS = Limits()
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and holds nothing."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = struct.pack(">I", 1000) + b"IDAT"
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + data


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("picture.png", bytes(100_000))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"to be a picture \(JPEG, .*\), but got an empty file"),
        (b"/etc/passwd", "but got text"),
        (SVG, "but got an SVG drawing"),
        (zipped(), "but got a ZIP archive"),
        (gzip.compress(SVG), "but got a gzip archive"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "but got EPS"),
        (b"P6 1 1 255\n\0\0\0", "but got PPM"),  # harmless, but one of many formats that nobody needs here
        (bytes(range(256)), "but got data of an unknown kind"),
        (b"\x89PNG\r\n\x1a\n1234", "but got a picture that can't be read"),
        (png_header(9000, 9000), "to have 50 million pixels or less, but got 9000 × 9000 pixels"),
        (png_header(14_000, 14_000), "to have 50 million pixels or less, but got more"),
        (png_header(60_000, 60_000), "to have 50 million pixels or less, but got more"),
        (png_header(10, 10), "to be a picture, but it can't be read"),
    ],
    ids=str.split("empty path svg zip gzip eps ppm bytes png large larger largest headless"),
)
def test_not_a_picture(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "upload"
    path.write_bytes(content)
    with pytest.raises(UploadError, match=f"^Expected the picture .*{reason}"), refusing(picture=path):
        open_picture(path, LIMITS)


def test_a_truncated_picture_and_one_of_unknown_range(tmp_path: Path, picture: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(picture.read_bytes()[:-300])
    with (
        pytest.raises(UploadError, match=r"^Expected the picture .* can't be read: .*truncated"),
        refusing(picture=path),
    ):
        open_picture(path, LIMITS)
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(path, format="TIFF")
    with pytest.raises(UploadError, match=r"^Expected the picture .* no known range"), refusing(picture=path):
        open_picture(path, LIMITS)


def test_the_smallest_picture_and_one_at_the_limit(tmp_path: Path) -> None:
    path, limits = tmp_path / "upload", replace(LIMITS, picture_pixels=12)
    for size in ((1, 1), (3, 4)):
        Image.new("RGBA", size, (1, 2, 3, 255)).save(path, format="PNG")
        assert open_picture(path, limits).size == size
    Image.new("RGB", (13, 1)).save(path, format="PNG")
    with pytest.raises(UploadError, match="but got 13 × 1 pixels"):
        open_picture(path, limits)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "to be a sound, but got an empty file"),
        (b"/etc/passwd", "but got text"),
        (SVG, "but got an SVG drawing"),
        (zipped(), "but got a ZIP archive"),
        (b"#EXTM3U\n#EXTINF:1,\nneighbor.wav\n#EXT-X-ENDLIST\n", "but got a playlist"),
        (b"ffconcat version 1.0\nfile neighbor.wav\n", "but got a playlist"),
        (b"fLaC" + bytes(50), "but got a sound that can't be read"),
        (b"RIFF\0\0\0\0WAVE", "but got a damaged file"),
    ],
    ids=str.split("empty path svg zip hls concat flac wav"),
)
def test_not_a_sound(tmp_path: Path, content: bytes, reason: str) -> None:
    write_sound(tmp_path / "neighbor.wav", np.zeros(16_000))  # what the playlists name
    path = tmp_path / "upload"
    path.write_bytes(content)
    with pytest.raises(UploadError, match=f"^Expected the sound .*{reason}"), refusing(sound=path):
        open_sound(path, LIMITS)


def test_a_picture_is_no_sound(picture: Path) -> None:
    with pytest.raises(UploadError, match=r"to be a sound, but got a picture"), refusing(sound=picture):
        open_sound(picture, LIMITS)


def test_sounds_that_are_too_long_too_many_or_not_numbers(tmp_path: Path) -> None:
    path, limits = tmp_path / "upload", replace(LIMITS, seconds=2, channels=2)
    # Constant samples take a few bytes per second: a small file could last for days.
    write_sound(path, np.zeros(16_000 * 60), "FLAC")
    assert path.stat().st_size < 20_000
    with pytest.raises(UploadError, match=r"to last 2 s or less, but it is longer"):
        open_sound(path, limits)
    write_sound(path, np.zeros((16_000, 3)))
    with pytest.raises(UploadError, match=r"to have 2 channels or less, but got 3"):
        open_sound(path, limits)
    write_sound(path, np.full(16_000, np.nan))
    with pytest.raises(UploadError, match=r"^Expected the sound to hold finite samples"), refusing(sound=path):
        open_sound(path, limits)
    write_sound(path, np.zeros(0))
    with pytest.raises(UploadError, match=r"the sound.* empty"), refusing(sound=path):
        open_sound(path, limits)


def test_a_sound_without_time_stamps_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_sound(tmp_path / "upload", np.zeros(16_000 * 3))
    monkeypatch.setattr("avsl.demo.uploads.decode", lambda *_: (untimed(frame) for frame in frames(path)))
    with pytest.raises(UploadError, match="to last 2 s or less"):
        check_stream(path, "audio", replace(LIMITS, seconds=2))


def frames(path: Path) -> list[av.AudioFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(audio=0))


def untimed(frame: av.AudioFrame) -> av.AudioFrame:
    frame.pts = None
    return frame


def test_mono_and_stereo_are_the_same(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000).astype(np.float32)
    mono = open_sound(write_sound(tmp_path / "mono", samples), LIMITS)
    stereo = open_sound(write_sound(tmp_path / "stereo", np.stack([samples, samples], 1)), LIMITS)
    assert mono.shape == (48_000,)
    np.testing.assert_allclose(mono, stereo, atol=1e-6)


def test_videos(tmp_path: Path, sound: Path) -> None:
    path = write_video(tmp_path / "upload", count=12)
    assert check_stream(path, "video", LIMITS) == 12
    for limits, reason in (
        (replace(LIMITS, seconds=1), "to last 1 s or less, but it is longer"),
        (replace(LIMITS, frame_pixels=3000), "Expected frames of .* 0.003 million pixels or less, but got 64 × 48"),
        (replace(LIMITS, frames_per_second=11 / LIMITS.seconds), "to have 11 frames or less, but got more"),
    ):
        with pytest.raises(UploadError, match=reason):
            check_stream(path, "video", limits)
    with pytest.raises(UploadError, match="to hold a video, but there is no moving picture in it"):
        check_stream(sound, "video", LIMITS)
    silent = write_video(tmp_path / "silent", count=3, audio=False)
    with pytest.raises(UploadError, match="to hold a sound, but there is no sound in it"):
        check_stream(silent, "audio", LIMITS)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UploadError, match="the video to be a video, but got a damaged file"), refusing(video=path):
        check_stream(path, "video", LIMITS)


def test_a_full_disk_is_no_fault_of_the_upload(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full") as raised, refusing(picture=tmp_path):
        raise OSError(errno.ENOSPC, "full")
    assert not isinstance(raised.value, UploadError)
