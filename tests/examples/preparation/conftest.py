"""Real videos whose frames and sounds encode their times."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from scipy import signal

RATE = 16_000
BARS = 12  # a frame shows its number in binary, as black and white bars


class Media:
    """Writes videos, and reads times from prepared frames and sounds."""

    noise = np.random.default_rng(0).standard_normal(24 * RATE).astype(np.float32)

    def frame(self, number: int) -> np.ndarray:
        bits = [number >> bit & 1 for bit in range(BARS)]
        return np.kron(np.array([bits]), np.ones((40, 8)))[..., None].repeat(3, 2).astype(np.uint8) * 255

    def number(self, path: Path) -> int:
        """The number that a frame shows."""
        with Image.open(path) as image:
            pixels = np.array(image.convert("L").resize((BARS, 1), Image.Resampling.BOX))[0]
        return sum(1 << bit for bit in range(BARS) if pixels[bit] > 127)

    def seconds(self, samples: np.ndarray) -> float:
        """Position of the samples in ``noise``, in seconds."""
        match = signal.correlate(self.noise, samples.astype(np.float32), mode="valid")
        return int(np.argmax(match)) / RATE

    def likeness(self, samples: np.ndarray) -> float:
        """Correlation with ``noise`` at its place: clicks and gaps lower it."""
        start = round(self.seconds(samples) * RATE)
        there = self.noise[start : start + len(samples)]
        return float(np.corrcoef(samples[: len(there)], there)[0, 1])

    def write(
        self,
        path: Path,
        seconds: float,
        rate: float | Fraction = 25,
        *,
        codecs: tuple[str, str | None] = ("libx264", "aac"),
        times: list[float] | None = None,
        level: float = 0.1,
        sound_seconds: float | None = None,
        start: int = 0,
    ) -> Path:
        """Frame n shows n, at n / ``rate`` or ``times[n]``; the sound is ``noise`` at ``level``. Clocks start at
        ``start``."""
        path.parent.mkdir(parents=True, exist_ok=True)
        rate = Fraction(rate).limit_denominator(1001)
        times = times or [float(n / rate) for n in range(int(seconds * rate))]
        with av.open(str(path), "w") as container:
            video = container.add_stream(codecs[0], rate=rate)
            video.width, video.height, video.pix_fmt = 8 * BARS, 40, "yuv420p"
            video.codec_context.time_base = Fraction(1, 90_000)
            video.codec_context.gop_size = 50
            quick = {"preset": "ultrafast"} if codecs[0] == "libx264" else {"deadline": "realtime", "cpu-used": "8"}
            video.codec_context.options = quick
            sound = None
            if codecs[1]:
                sound = container.add_stream(codecs[1], rate=48_000, layout="stereo")
                sound.bit_rate = 128_000
            for number, time in enumerate(times):
                picture = av.VideoFrame.from_ndarray(self.frame(number), format="rgb24")
                picture.pts, picture.time_base = round((start + time) * 90_000), Fraction(1, 90_000)
                container.mux(video.encode(picture))
            container.mux(video.encode())
            if sound is not None:
                mono = signal.resample_poly(self.noise[: round((sound_seconds or seconds) * RATE)], 3, 1) * level
                piece = av.AudioFrame.from_ndarray(np.stack([mono, mono]).astype(np.float32), "fltp", "stereo")
                piece.sample_rate, piece.pts, piece.time_base = 48_000, start * 48_000, Fraction(1, 48_000)
                container.mux(sound.encode(piece))
                container.mux(sound.encode())
        return path


@pytest.fixture(scope="session")
def media() -> Media:
    return Media()
