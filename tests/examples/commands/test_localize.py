"""The command ``localize.py``, on pictures and videos."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from avsl.commands.localize import main
from avsl.data.music import MusicFolder
from avsl.evaluation.held_out import load_held_out
from avsl.evaluation.predict import predict
from avsl.localization.overlay import MAX_OPACITY, paint
from avsl.localization.user_files import SAMPLES, SoundAround, read_sound
from avsl.localization.video import VideoMaps, draw_heatmaps
from avsl.model.checkpoints import open_model
from PIL import Image

CPU = torch.device("cpu")
RATE = 44_100


def write_video(
    path: Path,
    *,
    count: int = 12,
    size: tuple[int, int] = (64, 48),
    fps: int = 10,
    audio: str | None = "aac",
    video: str | None = "libx264",
) -> Path:
    """A picture that grows brighter from left to right, and a stereo tone of the same length."""
    width, height = size
    ramp = np.broadcast_to(np.linspace(60, 180, width, dtype=np.uint8)[None, :, None], (height, width, 3))
    with av.open(str(path), "w") as target:
        if video:
            pictures = target.add_stream(video, rate=fps)
            pictures.width, pictures.height = size
            pictures.pix_fmt = "yuv420p" if width % 2 == height % 2 == 0 else "yuv444p"
        sounds = target.add_stream(audio, rate=RATE) if audio else None
        for _ in range(count if video else 0):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(ramp), format="rgb24")
            target.mux(pictures.encode(frame))
        if video:
            target.mux(pictures.encode(None))
        if sounds:
            tone = (8000 * np.sin(np.arange(count * RATE // fps) / 20)).astype(np.int16).repeat(2)[None]
            frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="stereo")
            frame.sample_rate, frame.pts = RATE, 0
            target.mux(sounds.encode(frame))
            target.mux(sounds.encode(None))
    return path


def frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as source:
        return [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]


def times(path: Path) -> list[Fraction]:
    with av.open(str(path)) as source:
        return [frame.pts * frame.time_base for frame in source.decode(video=0)]


def sound(path: Path) -> tuple[str, list[bytes]]:
    with av.open(str(path)) as source:
        stream = source.streams.audio[0]
        return stream.codec_context.name, [bytes(packet) for packet in source.demux(stream) if packet.size]


def moving_heat(width: int, height: int, every: int) -> VideoMaps:
    """High on the left at first, on the right at last."""
    left = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(4, 4)
    return VideoMaps(torch.tensor([0.0, 1.0]), torch.stack([left, left.flip(1)]), every, height, width)


def added(path: Path, out: Path) -> list[np.ndarray]:
    """The change of each frame by the heatmap, as red minus green per column."""
    pairs = zip(frames(path), frames(out), strict=True)
    changes = [after.astype(float) - before for before, after in pairs]
    return [(change[..., 0] - change[..., 1]).mean(0) for change in changes]


def test_heat_is_where_the_map_is_high(tmp_path: Path) -> None:
    path, out = write_video(tmp_path / "in.mp4", count=11), tmp_path / "out.mp4"
    draw_heatmaps(path, out, moving_heat(64, 48, every=10))
    red = added(path, out)
    assert [columns.shape for columns in red] == [(64,)] * 11
    first, middle, last = red[0], red[5], red[10]
    assert first[:8].mean() > 50
    assert last[-8:].mean() > 50
    assert max(abs(first[32:]).max(), abs(last[:32]).max()) < 12
    assert abs(middle[:8].mean() - middle[-8:].mean()) < 0.3 * first[:8].mean()  # halfway between the two
    assert list(tmp_path.iterdir()) == [path, out] or set(tmp_path.iterdir()) == {path, out}


def test_paint() -> None:
    picture = np.full((40, 60, 3), 100, np.uint8)
    assert np.array_equal(paint(picture, torch.zeros(7, 7)), picture)
    painted = paint(picture, torch.ones(7, 7))
    darkest_red = np.round([0.4796 * 255, 0.0158 * 255, 0.0106 * 255])  # the end of turbo
    expected = (1 - MAX_OPACITY) * 100 + MAX_OPACITY * darkest_red
    assert abs(painted - expected).max() <= 2
    assert picture.min() == picture.max() == 100


@pytest.mark.parametrize("size", [(64, 48), (65, 49)])
def test_a_video(run: Path, tmp_path: Path, size: tuple[int, int], capsys: pytest.CaptureFixture[str]) -> None:
    path, out = write_video(tmp_path / "own.mp4", size=size), tmp_path / "out"
    assert main([str(run), str(path), "--every", "5", "--out", str(out)]) == 0
    assert "3 maps, the last one at 1.0 s" in capsys.readouterr().out
    assert {file.name for file in out.iterdir()} == {"own-heat.mp4", "own-maps.npz"}
    made = frames(out / "own-heat.mp4")
    assert [picture.shape for picture in made] == [(size[1], size[0], 3)] * 12
    assert times(out / "own-heat.mp4") == times(path)
    assert sound(out / "own-heat.mp4") == sound(path)  # copied
    with np.load(out / "own-maps.npz") as saved:
        assert saved["sound"].shape == (3, 8, 8)
        assert saved["times"] == pytest.approx([0.0, 0.5, 1.0])
        assert saved["frame_size"].tolist() == [size[1], size[0]]
        heat = torch.from_numpy(saved["sound"][0])[None, None]
    fine = torch.nn.functional.interpolate(heat, size=size[::-1], mode="bicubic")[0, 0].numpy()
    change = abs(made[0].astype(float) - frames(path)[0]).mean(2)
    high, low = fine >= np.quantile(fine, 0.9), fine <= np.quantile(fine, 0.1)
    assert change[high].mean() > change[low].mean() + 10


def test_joined_recordings_whose_size_and_clock_jump(run: Path, tmp_path: Path) -> None:
    parts = [write_video(tmp_path / f"{width}.ts", count=30, size=(width, 48)) for width in (96, 64)]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert main([str(run), str(path), "--every", "20", "--out", str(tmp_path / "out")]) == 0
    out = tmp_path / "out" / "joined-heat.mp4"
    assert {picture.shape for picture in frames(out)} == {(48, 64, 3)}
    with av.open(str(out)) as container:
        lengths = [float(stream.duration * stream.time_base) for stream in container.streams]
    assert lengths == pytest.approx([6.0, 6.0], abs=0.2)


def test_a_folder_is_called_a_folder(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert main([str(run), str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "is a folder" in caplog.text


def test_sound_that_mp4_does_not_take(run: Path, tmp_path: Path) -> None:
    path, out = write_video(tmp_path / "own.mkv", audio="wavpack"), tmp_path / "out"
    assert main([str(run), str(path), "--out", str(out)]) == 0
    assert len(frames(out / "own-heat.mp4")) == 12
    codec, packets = sound(out / "own-heat.mp4")
    assert codec == "aac"
    assert packets
    heard, asked = (read_sound(file)[2000:14_000] for file in (out / "own-heat.mp4", path))
    assert float(heard.std()) == pytest.approx(float(asked.std()), rel=0.1)


@pytest.mark.parametrize(
    ("name", "codec", "rate", "layout"),
    [
        ("stereo.avi", "pcm_s16le", 44_100, "stereo"),
        ("stereo.mkv", "pcm_s16le", 44_100, "stereo"),
        ("surround.mkv", "pcm_s16le", 48_000, "5.1"),
        ("mono.mkv", "pcm_s16le", 16_000, "mono"),
        ("slow.mkv", "libmp3lame", 8000, "mono"),
        ("odd.mkv", "pcm_s16le", 5000, "mono"),
    ],
)
def test_sound_of_which_mp4_refuses_the_header(
    run: Path, tmp_path: Path, name: str, codec: str, rate: int, layout: str
) -> None:
    path, out = tmp_path / name, tmp_path / "out"
    with av.open(str(path), "w") as target:
        pictures = target.add_stream("libx264", rate=10)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        sounds = target.add_stream(codec, rate=rate, layout=layout)
        for _ in range(12):
            target.mux(pictures.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        target.mux(pictures.encode(None))
        tone = (0.3 * np.sin(np.arange(rate * 6 // 5) * 440 / rate * 2 * np.pi)).astype(np.float32)
        channels = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
        frame = av.AudioFrame.from_ndarray(np.stack([tone] * channels), "fltp", layout)
        frame.sample_rate, frame.pts = rate, 0
        target.mux(sounds.encode(frame))
        target.mux(sounds.encode(None))
    assert main([str(run), str(path), "--out", str(out)]) == 0
    drawn = out / f"{path.stem}-heat.mp4"
    assert len(frames(drawn)) == 12
    with av.open(str(drawn)) as video:
        assert video.streams.audio[0].layout.nb_channels == channels
    assert float(read_sound(drawn)[3000:14_000].std()) == pytest.approx(0.3 / np.sqrt(2), rel=0.2)  # AAC filters 5.1


@pytest.mark.parametrize("turned", [False, True])
def test_the_shape_of_pixels_stays_the_same(tmp_path: Path, turned: bool) -> None:
    path, out = tmp_path / "wide.mp4", tmp_path / "out.mp4"
    with av.open(str(path), "w") as target:
        pictures, sounds = target.add_stream("libx264", rate=10), target.add_stream("aac", rate=RATE)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        pictures.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for _ in range(11):
            target.mux(pictures.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        target.mux(pictures.encode(None))
        frame = av.AudioFrame.from_ndarray(np.ones((2, RATE), np.float32), "fltp", "stereo")
        frame.sample_rate, frame.pts = RATE, 0
        target.mux(sounds.encode(frame))
        target.mux(sounds.encode(None))
    if turned:
        content = bytearray(path.read_bytes())
        offset = content.index(b"tkhd") + 44
        quarter = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
        content[offset : offset + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in quarter)
        path.write_bytes(content)
    draw_heatmaps(path, out, moving_heat(*((48, 64) if turned else (64, 48)), every=10))
    with av.open(str(out)) as video:
        assert video.streams.video[0].sample_aspect_ratio == (Fraction(3, 4) if turned else Fraction(4, 3))
        assert video.streams.video[0].width == (48 if turned else 64)


def test_maps_are_kept_if_drawing_fails(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("avsl.localization.video.paint", refuse)
    monkeypatch.setattr("avsl.localization.job.paint", refuse)
    path, out = write_video(tmp_path / "own.mp4"), tmp_path / "out"
    Image.new("RGB", (40, 20)).save(tmp_path / "picture.png")
    assert main([str(run), str(path), "--out", str(out)]) == 2
    assert main([str(run), str(tmp_path / "picture.png"), str(path), "--out", str(out)]) == 2
    assert {file.name for file in out.iterdir()} == {"own-maps.npz", "picture-maps.npz"}


@pytest.mark.parametrize("level", [0.0, 1e-4])
def test_a_silent_sound_is_said(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, level: float) -> None:
    """For a video as long as there is no sound anywhere."""
    Image.new("RGB", (40, 20)).save(tmp_path / "own.png")
    noise = level * np.random.default_rng(0).standard_normal(64_000)
    soundfile.write(tmp_path / "own.wav", noise, 16_000, subtype="FLOAT")
    out = ["--out", str(tmp_path / "out")]
    assert main([str(run), str(tmp_path / "own.png"), str(tmp_path / "own.wav"), *out]) == 0
    assert "own.wav is silent or constant: its level is -" in caplog.text
    caplog.clear()
    with av.open(str(tmp_path / "own.mkv"), "w") as target:
        pictures, sounds = target.add_stream("libx264", rate=10), target.add_stream("pcm_f32le", rate=16_000)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        for _ in range(12):
            target.mux(pictures.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        target.mux(pictures.encode(None))
        frame = av.AudioFrame.from_ndarray(noise[None].astype(np.float32).repeat(2, 0), "fltp", "stereo")
        frame.sample_rate, frame.pts = 16_000, 0
        target.mux(sounds.encode(frame))
        target.mux(sounds.encode(None))
    assert main([str(run), str(tmp_path / "own.mkv"), *out]) == 0
    assert "own.mkv is silent or constant: its level is -" in caplog.text
    caplog.clear()
    assert main([str(run), str(write_video(tmp_path / "loud.mp4")), *out]) == 0
    assert "silent" not in caplog.text


def test_a_picture_with_its_sound(run: Path, duets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The maps of a test scene are those of the evaluation."""
    out = tmp_path / "out"
    line = [str(run), str(duets / "frames" / "e.jpg"), str(duets / "audio" / "e.wav"), "--out", str(out)]
    assert main([*line, "--sources", "2"]) == 0
    with np.load(out / "e-maps.npz") as saved:
        arrays = dict(saved)
    expected = predict(open_model(run, CPU), load_held_out(MusicFolder(duets), "duet", 64))
    assert arrays["sound"] == pytest.approx(expected.sound[0].numpy(), abs=1e-5)
    assert arrays["maps"] == pytest.approx(expected.maps[0].numpy(), abs=1e-4)
    assert arrays["valid"].tolist() == expected.valid[0].tolist()
    assert arrays["frame_size"].tolist() == [24, 32]
    number = int(arrays["valid"].sum())
    names = {"e-maps.npz", "e-sheet.png", "e-sound.png", *(f"e-source{i + 1}.png" for i in range(number))}
    assert {file.name for file in out.iterdir()} == names
    with Image.open(out / "e-sound.png") as image:
        assert image.size == (32, 24)
    assert f"{number} source{'' if number == 1 else 's'} found" in capsys.readouterr().out


def test_a_picture_held_upright_and_any_number_of_sources(run: Path, tmp_path: Path) -> None:
    picture, orientation = Image.new("RGB", (40, 20), "teal"), Image.Exif()
    orientation[0x0112] = 6  # to be turned by a quarter
    picture.save(tmp_path / "own.jpg", exif=orientation)
    write_video(tmp_path / "own.mp4", video=None)
    line = [str(run / "checkpoints" / "last.ckpt"), str(tmp_path / "own.jpg"), str(tmp_path / "own.mp4")]
    assert main([*line, "--out", str(tmp_path / "out")]) == 0
    with Image.open(tmp_path / "out" / "own-sound.png") as image:
        assert image.size == (20, 40)
    with np.load(tmp_path / "out" / "own-maps.npz") as saved:
        assert saved["valid"].all()
        assert saved["maps"].shape[1:] == saved["sound"].shape == (8, 8)


def test_sound_of_another_rate_and_several_channels(tmp_path: Path) -> None:
    at = np.arange(48_000 * 5) / 48_000
    tone = 0.5 * np.sin(2 * np.pi * 440 * at) * ((at >= 1) & (at < 4))
    soundfile.write(tmp_path / "tone.wav", np.stack([tone, tone], 1), 48_000)
    heard = read_sound(tmp_path / "tone.wav")  # seconds 1 to 4
    assert (heard.shape, heard.dtype) == ((SAMPLES,), torch.float32)
    strongest = np.fft.rfft(heard[:16_000].numpy())
    assert abs(strongest).argmax() == 440
    assert float(heard[: SAMPLES - 300].std()) == pytest.approx(0.5 / np.sqrt(2), rel=0.02)


def test_a_short_sound_is_repeated(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(-9000, 9000, 16_000, dtype=np.int16)
    soundfile.write(tmp_path / "short.wav", samples, 16_000)
    assert np.array_equal(32_768 * read_sound(tmp_path / "short.wav"), np.tile(samples, 3))


@pytest.mark.parametrize("seconds", [1.0, 3.0, 20.0])
def test_sound_around_a_time(seconds: float) -> None:
    """Reading in blocks gives the same samples as reading at once."""
    whole = np.random.default_rng(0).uniform(-1, 1, round(16_000 * seconds)).astype(np.float32)

    def pieces() -> Iterator[tuple[float, np.ndarray]]:
        for first in range(0, len(whole), 1024):
            yield 2.0, whole[None, first : first + 1024]

    around, most = SoundAround(pieces(), Path("whole.wav")), 0
    for time in np.arange(0, seconds + 3, 0.37):
        start = round((time - 2.0) * 16_000) - SAMPLES // 2
        start = max(min(start, len(whole) - SAMPLES), 0)
        assert np.array_equal(around.at(float(time)), np.resize(whole[start : start + SAMPLES], SAMPLES))
        most = max(most, around._samples.shape[1])
    assert most <= SAMPLES + 16_000


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda d: [d / "none.mp4"], "none.mp4"),
        (lambda d: [written(d / "empty.mp4", b"")], "can't be read"),
        (lambda d: [written(d / "text.mp4", b"no video at all\n" * 99)], "can't be read"),
        (lambda d: [write_video(d / "silent.mp4", audio=None)], "has no audio stream"),
        (lambda d: [write_video(d / "blind.mp4", video=None)], "has no video stream"),
        (lambda d: [written(d / "text.jpg", b"hello"), write_video(d / "own.mp4")], "text.jpg to be a picture"),
        (lambda d: [d / "none.jpg", write_video(d / "own.mp4")], "none.jpg"),
    ],
)
def test_unsuitable_media(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, make: object, said: str) -> None:
    media = [str(path) for path in make(tmp_path)]
    assert main([str(run), *media, "--out", str(tmp_path / "out")]) == 2
    assert said in caplog.text
    assert not list((tmp_path / "out").glob("*"))


def test_a_sound_without_samples(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.new("RGB", (40, 20)).save(tmp_path / "own.png")
    soundfile.write(tmp_path / "own.wav", np.zeros(0), 16_000)
    assert main([str(run), str(tmp_path / "own.png"), str(tmp_path / "own.wav"), "--out", str(tmp_path / "out")]) == 2
    assert "own.wav" in caplog.text


@pytest.mark.parametrize("line", [["a", "b", "c"], ["a", "--sources", "2"], ["a", "--every", "0"], []])
def test_wrong_arguments(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", *line])
    assert "usage:" in capsys.readouterr().err
