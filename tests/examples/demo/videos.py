"""Writes a small video with a tone."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np


def write_video(path: Path, *, count: int, audio: bool = True) -> Path:
    """An MP4 of 64 × 48 pixels and 10 frames per second, whatever its name is."""
    with av.open(str(path), "w", format="mp4") as target:
        pictures = target.add_stream("libx264", rate=10)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        sounds = target.add_stream("aac", rate=16_000, layout="mono") if audio else None
        for number in range(count):
            pixels = np.full((48, 64, 3), 60 + 10 * number, np.uint8)
            target.mux(pictures.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        target.mux(pictures.encode(None))
        if sounds:
            tone = (8000 * np.sin(np.arange(count * 1600) / 20)).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
            frame.sample_rate, frame.pts = 16_000, 0
            target.mux(sounds.encode(frame))
            target.mux(sounds.encode(None))
    return path
