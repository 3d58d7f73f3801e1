"""Videos as players show them: which of their streams counts, and which way up their pictures are."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

import av
import numpy as np
from av.stream import Disposition
from PIL import Image

_SECONDARY = (
    Disposition.comment | Disposition.karaoke | Disposition.hearing_impaired | Disposition.visual_impaired
)  # not made for everybody
_RIGHT_ANGLE = 1 / 60  # largest entry, about sin 1°, below which an angle counts as a multiple of 90°, as in FFmpeg


def best_stream(container: av.container.InputContainer, kind: Literal["video", "audio"]) -> av.stream.Stream | None:
    """Returns the video or audio stream that players choose, or ``None`` if there is none.

    Streams that are marked as default come first, then the largest picture or the most channels. Cover art, and streams
    without a decoder, do not count.
    """
    streams = [
        stream
        for stream in getattr(container.streams, kind)
        if stream.codec_context is not None and not stream.disposition & Disposition.attached_pic
    ]
    favorite = container.streams.best(kind)

    def rank(stream: av.stream.Stream) -> tuple[bool, bool, int, bool, int]:
        context = stream.codec_context
        size = context.width * context.height if kind == "video" else context.layout.nb_channels
        default, secondary = (bool(stream.disposition & flag) for flag in (Disposition.default, _SECONDARY))
        return default, not secondary, size, stream is favorite, -stream.index

    return max(streams, key=rank, default=None)


def frame_rate(stream: av.VideoStream) -> Fraction | None:
    """Returns the average frame rate of a video in Hz, ``None`` if it is not known.

    The smaller of FFmpeg's two numbers is right: its average counts ticks for H.264 in AVI, as 600 Hz.
    """
    return min((rate for rate in (stream.average_rate, stream.guessed_rate) if rate), default=None)


def upright(frame: av.VideoFrame) -> np.ndarray:
    """Converts a frame to the picture that a player shows, (H, W, 3) uint8: turned and mirrored by its matrix.

    A frame that is turned by no multiple of 90° keeps its size and gets black corners, as in FFmpeg.
    """
    picture = frame.to_ndarray(format="rgb24")
    matrix = _display_matrix(frame)
    if matrix is None:
        return picture
    right_angled = np.rint(matrix)
    if np.abs(matrix - right_angled).max() > _RIGHT_ANGLE:
        return _transformed(picture, matrix)
    (a, b), (c, d) = right_angled
    if b and c:  # x' = c y, y' = b x
        picture, a, d = picture.swapaxes(0, 1), c, b
    return np.ascontiguousarray(picture[:: int(d), :: int(a)])


def _display_matrix(frame: av.VideoFrame) -> np.ndarray | None:
    """The matrix ((a, b), (c, d)) of x' = a x + c y, y' = b x + d y, without its scale; ``None`` if it has no use."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    matrix = np.frombuffer(data, "<i4" if np.little_endian else ">i4").reshape(3, 3)[:2, :2] / 65_536
    scale = np.hypot(*matrix)
    if not scale.all():
        return None
    matrix = matrix / scale
    return matrix if abs(np.linalg.det(matrix)) > 0.5 else None


def _transformed(picture: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Applies a matrix around the center of a picture."""
    height, width = picture.shape[:2]
    swapped = abs(matrix[0, 1]) > abs(matrix[0, 0])
    size = (height, width) if swapped else (width, height)
    inverse = np.linalg.inv(matrix.T)
    shift = np.array([width, height]) / 2 - inverse @ (np.array(size) / 2)
    coefficients = (*inverse[0], shift[0], *inverse[1], shift[1])
    turned = Image.fromarray(picture).transform(
        size, Image.Transform.AFFINE, tuple(map(float, coefficients)), Image.Resampling.BILINEAR
    )
    return np.asarray(turned)
