"""What the page accepts at most; imports nothing, so that the command line can name the defaults."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of an upload.

    Args:
        megabytes: all its files together, in MB of 10⁶ bytes.
        seconds: length of a sound or a video.
        picture_pixels: width times height of a picture.
        frame_pixels: width times height of a frame of a video.
        frames_per_second: for videos, times ``seconds``, the largest number of frames.
        channels: channels of a sound.
        sources: largest number of sources to ask for.
    """

    megabytes: float = 100
    seconds: float = 120
    picture_pixels: int = 50_000_000
    frame_pixels: int = 9_500_000
    frames_per_second: int = 60
    channels: int = 8
    sources: int = 8
