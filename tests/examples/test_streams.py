"""Videos as players show them: the stream that counts, upright pictures, how long the last picture lasts."""

from __future__ import annotations

import io
import math
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import av.filter
import numpy as np
import pytest
from av.stream import Disposition
from avsl.localization.user_files import read_sound
from avsl.localization.video import localize_video
from avsl.preparation.excerpts import Unusable, inspect, read_frames, read_sounds
from avsl.sounds import blocks, joined, level, with_times
from avsl.streams import best_stream, upright
from PIL import Image

RATE = 16_000
WIDTH, HEIGHT = 64, 48
PICTURE = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
PICTURE[:, :32, 0] = PICTURE[:, 32:, 2] = 255
PICTURE[:12, :16] = 255  # red, blue and a white corner, so that every turn and mirror image differs
NONE, DEFAULT = Disposition(0), Disposition.default
TONE = 0.3 * np.sin(2 * np.pi * 440 * np.arange(4 * RATE) / RATE)
Picture = tuple[int, Disposition]  # its gray level
Sound = tuple[np.ndarray, Disposition]  # its channels


def write(
    path: Path,
    pictures: list[Picture],
    sounds: list[Sound],
    *,
    sizes: tuple[tuple[int, int], ...] = (),
    cover: bool = False,
) -> Path:
    """Four seconds at 5 Hz of each picture, with sounds of float samples."""
    with av.open(str(path), "w") as target:
        videos, audios = [], []
        white = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
        if cover and path.suffix == ".mkv":
            encoded = io.BytesIO()
            Image.fromarray(white).save(encoded, "JPEG")
            target.add_attachment("cover.jpg", "image/jpeg", encoded.getvalue())
        elif cover:
            stream = target.add_stream("mjpeg", rate=1)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
            stream.disposition = Disposition.attached_pic.value
        for number, (_, disposition) in enumerate(pictures):
            video = target.add_stream("libx264", rate=5)
            video.width, video.height = sizes[number] if sizes else (WIDTH, HEIGHT)
            video.pix_fmt, video.disposition = "yuv420p", disposition.value
            videos.append(video)
        for samples, disposition in sounds:
            codec = "aac" if path.suffix == ".mp4" else "pcm_f32le"
            audio = target.add_stream(codec, rate=RATE, layout={1: "mono", 2: "stereo", 6: "5.1"}[len(samples)])
            audio.disposition = disposition.value
            audios.append(audio)
        if cover and path.suffix == ".mp4":
            image = av.VideoFrame.from_ndarray(white, format="rgb24")
            target.mux(stream.encode(image.reformat(format="yuvj420p")))
            target.mux(stream.encode(None))
        for video, (gray, _) in zip(videos, pictures, strict=True):
            for _ in range(20):
                frame = av.VideoFrame.from_ndarray(
                    np.full((video.height, video.width, 3), gray, np.uint8), format="rgb24"
                )
                target.mux(video.encode(frame))
            target.mux(video.encode(None))
        for audio, (samples, _) in zip(audios, sounds, strict=True):
            piece = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(samples, dtype=np.float32), "fltp", audio.layout.name
            )
            piece.sample_rate, piece.pts, piece.time_base = RATE, 0, Fraction(1, RATE)
            target.mux(audio.encode(piece))
            target.mux(audio.encode(None))
    return path


def prepared(path: Path, time: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """The frame and the sound, in float, that preparation takes at a time."""
    origin = inspect(path).origin
    (frame,) = read_frames(path, [time], origin)
    (sound,) = read_sounds(path, [time], origin)
    assert not isinstance(frame, Unusable)
    assert not isinstance(sound, Unusable)
    return np.asarray(frame), sound / 32_768


class Model:
    """Maps that show the mean gray level of the frame."""

    device = "cpu"

    config = SimpleNamespace(image_size=32)

    def encode(self, frames, waveforms):
        return frames, waveforms

    def sound_map(self, encoded):
        frames, waveforms = encoded
        return frames.float().mean((1, 2, 3))[:, None, None] * waveforms.abs().amax(1).gt(0.01)[:, None, None]


SILENT, LOUD = np.zeros((2, 4 * RATE)), np.stack([TONE, TONE])


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize(
    ("pictures", "gray"),
    [
        ([(250, NONE), (60, DEFAULT)], 60),
        ([(60, DEFAULT), (250, NONE)], 60),
        ([(60, DEFAULT), (250, DEFAULT)], 60),
        ([(250, DEFAULT | Disposition.visual_impaired), (60, DEFAULT)], 60),
    ],
)
def test_the_default_video_is_taken(tmp_path: Path, suffix: str, pictures: list[Picture], gray: int) -> None:
    path = write(tmp_path / f"a{suffix}", pictures, [(LOUD, DEFAULT)])
    frame, _ = prepared(path)
    assert frame.mean() == pytest.approx(gray, abs=6)
    assert localize_video(Model(), path, 5).maps.mean() == pytest.approx(gray, abs=6)


def test_among_equal_videos_the_largest_is_taken(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.mkv", [(250, DEFAULT), (60, DEFAULT)], [(LOUD, DEFAULT)], sizes=((32, 32), (WIDTH, HEIGHT))
    )
    frame, _ = prepared(path)
    assert frame.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize(
    "sounds",
    [
        [(SILENT, NONE), (LOUD, DEFAULT)],
        [(LOUD, DEFAULT), (SILENT, NONE)],
        [(SILENT, DEFAULT | Disposition.comment), (LOUD, DEFAULT)],
    ],
)
def test_the_default_sound_is_taken(tmp_path: Path, suffix: str, sounds: list[Sound]) -> None:
    path = write(tmp_path / f"a{suffix}", [(60, DEFAULT)], sounds)
    _, sound = prepared(path)
    assert level(sound) > -20
    assert level(read_sound(path).numpy()) > -20
    assert localize_video(Model(), path, 5).maps.min() > 0


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_cover_art_is_never_the_video(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, [], [(LOUD, DEFAULT)], cover=True)
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
        assert best_stream(container, "video") is None
    with pytest.raises(Unusable, match="no video stream"):
        inspect(path)
    with pytest.raises(ValueError, match=rf"{name} to be a video, but it has no video stream\. For a sound, give"):
        localize_video(Model(), path, 5)
    assert level(read_sound(path).numpy()) > -20


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_cover_art_beside_a_video(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, [(60, NONE)], [(LOUD, DEFAULT)], cover=True)
    frame, _ = prepared(path)
    assert frame.mean() == pytest.approx(60, abs=6)
    assert localize_video(Model(), path, 5).maps.mean() == pytest.approx(60, abs=6)


def turned(path: Path, matrix: tuple[float, float, float, float]) -> Path:
    """Writes a video with a display matrix."""
    with av.open(str(path), "w") as target:
        video = target.add_stream("libx264", rate=5, options={"crf": "10"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv444p"
        for _ in range(20):
            target.mux(video.encode(av.VideoFrame.from_ndarray(PICTURE, format="rgb24")))
        target.mux(video.encode(None))
    content = bytearray(path.read_bytes())
    a, b, c, d = (round(value * 65_536) for value in matrix)
    offset = content.index(b"tkhd") + 4 + 40
    content[offset : offset + 36] = b"".join(
        v.to_bytes(4, "big", signed=True) for v in (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    )
    path.write_bytes(content)
    return path


def filtered(*filters: tuple[str, str]) -> np.ndarray:
    """The picture after FFmpeg's filters."""
    graph = av.filter.Graph()
    nodes = [graph.add_buffer(width=WIDTH, height=HEIGHT, format="rgb24", time_base=Fraction(1, 5))]
    nodes += [graph.add(name, options) if options else graph.add(name) for name, options in filters]
    nodes += [graph.add("format", "pix_fmts=rgb24"), graph.add("buffersink")]
    graph.link_nodes(*nodes).configure()
    frame = av.VideoFrame.from_ndarray(PICTURE, format="rgb24")
    frame.pts, frame.time_base = 0, Fraction(1, 5)
    graph.push(frame)
    return graph.pull().to_ndarray(format="rgb24")


def angle(degrees: float) -> tuple[float, float, float, float]:
    """Turns clockwise."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return cosine, sine, -sine, cosine


MATRICES = {
    "mirrored": ((-1, 0, 0, 1), ("hflip", "")),
    "flipped": ((1, 0, 0, -1), ("hflip", ""), ("transpose", "clock"), ("transpose", "clock")),
    "transposed": ((0, 1, 1, 0), ("transpose", "cclock_flip")),
    "transposed at the other diagonal": ((0, -1, -1, 0), ("transpose", "clock_flip")),
    "by 90°": ((0, 1, -1, 0), ("transpose", "clock")),
    "by 270°": ((0, -1, 1, 0), ("transpose", "cclock")),
    "by 180°": ((-1, 0, 0, -1), ("transpose", "clock"), ("transpose", "clock")),
    "by 2°": (angle(2), ("rotate", f"{math.radians(2)}")),
    "by -2°": (angle(-2), ("rotate", f"{math.radians(-2)}")),
    "by 30°": (angle(30), ("rotate", f"{math.radians(30)}")),
    "by 0.3°": (angle(0.3),),
    "by 90.4°": (angle(90.4), ("transpose", "clock")),
    "twice as wide": ((2, 0, 0, 1),),
    "mirrored and twice as large": ((-2, 0, 0, 2), ("hflip", "")),
    "to a line": ((1, 0, 1, 0),),
    "to nothing": ((0, 0, 0, 0),),
}


@pytest.mark.parametrize("name", MATRICES)
def test_pictures_are_turned_and_mirrored_as_ffmpeg_does(tmp_path: Path, name: str) -> None:
    matrix, *filters = MATRICES[name]
    path = turned(tmp_path / "a.mp4", matrix)
    expected = filtered(*filters).astype(float)
    (frame,) = read_frames(path, [2.0], 0.0)
    with av.open(str(path)) as container:
        localized = upright(next(container.decode(video=0)))
    for picture in (np.asarray(frame), localized):
        assert picture.shape == expected.shape
        assert np.abs(picture - expected).mean() < 4
        assert picture.flags.c_contiguous


def stills(path: Path, count: int, seconds: int) -> Path:
    """A slide show: ``count`` pictures of some seconds each, and sound to the end."""
    with av.open(str(path), "w") as target:
        video = target.add_stream("libx264", rate=1)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        audio = target.add_stream("aac", rate=RATE, layout="mono")
        packets = []
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(np.full((HEIGHT, WIDTH, 3), 60 + 60 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number * seconds * 1000, Fraction(1, 1000)
            packets += video.encode(frame)
        for packet in packets + video.encode(None):
            packet.duration = seconds * 1000
            target.mux(packet)
        tone = np.tile(TONE, 9)[None, : count * seconds * RATE].astype(np.float32)
        piece = av.AudioFrame.from_ndarray(tone, "fltp", "mono")
        piece.sample_rate, piece.pts, piece.time_base = RATE, 0, Fraction(1, RATE)
        target.mux(audio.encode(piece))
        target.mux(audio.encode(None))
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(("count", "seconds"), [(1, 12), (2, 6)])
def test_the_last_picture_is_shown_for_its_duration(tmp_path: Path, suffix: str, count: int, seconds: int) -> None:
    path = stills(tmp_path / f"a{suffix}", count, seconds)
    first, middle, last, late = read_frames(path, [1.0, 5.0, 11.0, 13.0], 0.0)
    shown = [np.asarray(frame).mean() for frame in (first, middle, last)]
    assert shown == pytest.approx([60, 60, 60 * count], abs=6)
    assert isinstance(late, Unusable)
    assert (late.reason, late.detail) == ("too short", "its picture ends at 12.0 s, its frame is at 13.0 s")


def test_channels_of_a_video_are_joined_as_those_of_a_file(tmp_path: Path) -> None:
    """In preparation and in localization: one inverted, center only, right only."""
    empty = np.zeros_like(TONE)
    for name, channels in {
        "inverted": [TONE, -TONE],
        "center": [empty, empty, TONE, empty, empty, empty],
        "right": [empty, TONE],
    }.items():
        path = write(tmp_path / f"{name}.mkv", [(60, DEFAULT)], [(np.stack(channels), DEFAULT)])
        _, sound = prepared(path)
        assert level(sound) == pytest.approx(level(TONE), abs=0.1)
        assert level(read_sound(path).numpy()) == pytest.approx(level(TONE), abs=0.1)


def test_nan_in_the_sound_of_a_video(tmp_path: Path) -> None:
    samples = LOUD.copy()
    samples[1, 2 * RATE] = np.nan
    path = write(tmp_path / "a.mkv", [(60, DEFAULT)], [(samples, DEFAULT)])
    (sound,) = read_sounds(path, [2.0], 0.0)
    assert isinstance(sound, Unusable)
    assert (sound.reason, sound.detail) == ("sound is not finite", "NaN or infinite samples around 2.0 s")
    with pytest.raises(ValueError, match=r"a\.mkv to hold finite samples"):
        localize_video(Model(), path, 5)


def test_a_sound_in_other_units(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "a.mkv", [(60, DEFAULT)], [(32_768 * LOUD, DEFAULT)])
    (sound,) = read_sounds(path, [2.0], 0.0)
    assert isinstance(sound, Unusable)
    assert sound.reason == "sound is out of range"
    assert sound.detail.endswith(", but full scale is 1")
    localize_video(Model(), path, 5)
    assert "a.mkv has samples up to 98" in caplog.text


def test_a_sound_whose_channels_change_in_the_middle() -> None:
    def frames():
        for number in range(30):
            channels = 2 if number < 15 else 1
            tone = TONE[number * 1600 : (number + 1) * 1600].astype(np.float32)
            frame = av.AudioFrame.from_ndarray(
                np.stack([tone] * channels), "fltp", "stereo" if channels == 2 else "mono"
            )
            frame.sample_rate, frame.pts, frame.time_base = RATE, number * 1600, Fraction(1, RATE)
            yield frame

    parts = [samples for _, samples in joined(blocks(with_times(frames())))]
    assert {len(samples) for samples in parts} == {2}
    assert np.abs(np.concatenate(parts, 1) - TONE[: 30 * 1600]).max() < 1e-6
