"""Checks uploads before anything else reads them: what they are, and how large they get when they are decoded.

A file's name and what it says of its length may lie, so the length is counted while decoding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
from PIL import Image
from torch import Tensor

from ..localization.user_files import decode, read_sound
from ..localization.video import Progress
from ..machine_errors import of_this_machine
from ..pictures import read_picture
from ..streams import best_stream
from .limits import Limits

# Pillow reads more, but hands some formats to other programs, as EPS to Ghostscript.
PICTURES = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "MPO")
# FFmpeg reads more, but a playlist can name other files and addresses.
MEDIA = (
    *("wav", "w64", "aiff", "au", "caf", "flac", "ogg", "mp3", "aac", "ac3", "eac3", "amr"),
    *("mov", "mp4", "matroska", "webm", "avi", "mpegts", "mpeg", "asf", "flv"),
)
_STARTS = (
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"%PDF", "a PDF"),
    (b"%!PS", "a PostScript file"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"fLaC", "a sound"),
    (b"OggS", "a sound or a video"),
    (b"ID3", "a sound"),
    (b"\x1aE\xdf\xa3", "a video"),
)


class UploadError(ValueError):
    """An upload that the page does not accept; the text says what was expected and what came."""


@contextlib.contextmanager
def refusing(**uploads: Path) -> Iterator[None]:
    """Turns errors of reading the uploads into :class:`UploadError`, with the name of each upload in place of its path.

    Errors of this machine, such as a full disk, stay what they are.
    """
    try:
        yield
    except (OSError, ValueError, ArithmeticError, LookupError, Image.DecompressionBombError) as error:
        if of_this_machine(error):
            raise
        text = str(error) or type(error).__name__
        for name, path in uploads.items():
            text = text.replace(str(path), f"the {name}")
        raise UploadError(text) from error


def open_picture(path: Path, limits: Limits) -> Image.Image:
    """Reads a picture that is within the limits, as :func:`~avsl.pictures.read_picture`.

    Raises:
        OSError, ValueError: naming the file, if it is not.
    """
    try:
        with path.open("rb") as file, Image.open(file) as image:  # reads no more than the header
            kind, (width, height) = image.format, image.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UploadError(
            f"Expected {path} to have {_millions(limits.picture_pixels)} or less, but got more"
        ) from error
    except Exception as error:  # decoders raise errors of any type for malformed files
        if of_this_machine(error):
            raise
        kind = None
    if kind not in PICTURES:
        known = ", ".join(PICTURES[:-1])
        raise UploadError(f"Expected {path} to be a picture ({known}), but got {kind or kind_of(path)}")
    if width * height > limits.picture_pixels:
        raise UploadError(
            f"Expected {path} to have {_millions(limits.picture_pixels)} or less, but got {width} × {height} pixels"
        )
    return read_picture(path)


def open_sound(path: Path, limits: Limits) -> Tensor:
    """Reads the center 3 s of a sound that is within the limits, (48000,).

    Raises:
        ValueError: naming the file, if it is not.
    """
    check_stream(path, "audio", limits)
    return read_sound(path)


def all_frames(frames: Iterator[Any], _: av.stream.Stream, __: str) -> Iterator[Any]:
    """Yields all frames, and shows no progress."""
    return frames


def check_stream(path: Path, kind: str, limits: Limits, progress: Progress = all_frames) -> int:
    """Decodes the video or audio stream of a file to its end, or to the first limit; returns its number of frames.

    Raises:
        ValueError: naming the file, if it has no such stream, can't be decoded or exceeds a limit.
    """
    noun, missing = ("sound", "sound") if kind == "audio" else ("video", "moving picture")
    options = {"format_whitelist": ",".join(MEDIA), "protocol_whitelist": "file"}
    try:
        container = av.open(str(path), container_options=options, metadata_errors="replace")
    except av.FFmpegError as error:
        if of_this_machine(error):
            raise
        raise UploadError(f"Expected {path} to be a {noun}, but got {kind_of(path)}") from error
    with container:
        stream = best_stream(container, kind)
        if stream is None:
            raise UploadError(f"Expected {path} to hold a {noun}, but there is no {missing} in it")
        _check_size(stream.codec_context, path, kind, limits)
        if kind == "video":
            stream.thread_type = "AUTO"
        first, counted, count = None, 0.0, 0
        for count, frame in enumerate(progress(decode(container, stream, path), stream, "checking"), 1):
            _check_size(frame, path, kind, limits)
            if kind == "audio":
                counted += frame.samples / max(frame.sample_rate, 1)
            elif count > limits.frames_per_second * limits.seconds:
                most = limits.frames_per_second * limits.seconds
                raise UploadError(f"Expected {path} to have {most:,.0f} frames or less, but got more")
            if frame.time is not None:
                first = frame.time if first is None else first
                counted = max(counted, frame.time - first)
            if counted > limits.seconds:
                raise UploadError(f"Expected {path} to last {limits.seconds:g} s or less, but it is longer")
        if not count:
            raise UploadError(f"Expected {path} to be a {noun}, but it is empty")
        return count


def _check_size(shaped: av.CodecContext | av.frame.Frame, path: Path, kind: str, limits: Limits) -> None:
    """Checks the size of frames or the number of channels; both may change in the middle of a stream."""
    if kind == "video":
        if shaped.width * shaped.height > limits.frame_pixels:
            raise UploadError(
                f"Expected frames of {path} to have {_millions(limits.frame_pixels)} or less, but got "
                f"{shaped.width} × {shaped.height} pixels"
            )
    elif shaped.layout.nb_channels > limits.channels:
        raise UploadError(
            f"Expected {path} to have {limits.channels} channels or less, but got {shaped.layout.nb_channels}"
        )


def kind_of(path: Path) -> str:
    """Says what a file looks like, by its first bytes."""
    with path.open("rb") as file:
        head = file.read(4096)
    if not head:
        return "an empty file"
    for start, kind in _STARTS:
        if head.startswith(start):
            return f"{kind} that can't be read" if "picture" in kind or "sound" in kind or "video" in kind else kind
    if head[:4] == b"RIFF" or head[4:8] == b"ftyp":
        return "a damaged file"
    text = head.decode("utf-8", errors="replace")
    if "\0" in text or text.count("\ufffd") > 3:
        return "data of an unknown kind"
    if "<svg" in text.lower():
        return "an SVG drawing"
    if text.startswith(("#EXTM3U", "ffconcat", "<MPD")):
        return "a playlist"
    return "text"


def _millions(pixels: int) -> str:
    return f"{pixels / 1e6:g} million pixels"
