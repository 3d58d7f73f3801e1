"""One video: the right frames, the right 3 s of sound, and outcomes for broken files."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np
import pytest
import soundfile
from avsl import clip_files
from avsl.clip_ids import ClipId, frame_rate
from avsl.preparation import excerpts, worker
from avsl.preparation.worker import Job, Outcome, file_rate, prepare
from PIL import Image

if TYPE_CHECKING:
    from conftest import Media

VIDEO = "a-b_cdefghi"


def ids(numbers: Sequence[int], rate: float) -> tuple[str, ...]:
    return tuple(f"{VIDEO}_{int(number / rate):03d}_{number:05d}" for number in numbers)


def job(path: Path, names: Sequence[str], *, cut: bool = False, side: int = 256, silence: float = -60.0) -> Job:
    rate = frame_rate(map(ClipId.parse, names), file_rate(path))
    return Job(path, tuple(names), rate, cut, path.parent / "out", side, silence)


def only(outcomes: list[Outcome]) -> tuple[str, str]:
    ((_, reason, detail, _),) = outcomes
    return reason, detail


def failing(error: Exception) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def written(out: Path) -> list[str]:
    return sorted(path.name for path in out.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("suffix", "codecs", "rate"),
    [
        (".mp4", ("libx264", "aac"), Fraction(30)),
        (".mp4", ("libx264", "aac"), Fraction(30_000, 1001)),
        (".webm", ("libvpx-vp9", "libopus"), Fraction(30)),  # times in whole milliseconds
        (".mkv", ("libx264", "libopus"), Fraction(24)),
        (".MP4", ("libx264", "aac"), Fraction(25)),
    ],
)
def test_frames_and_sounds(tmp_path: Path, media: Media, suffix: str, codecs: tuple[str, str], rate: Fraction) -> None:
    path = media.write(tmp_path / f"{VIDEO}{suffix}", 12, rate, codecs=codecs)
    numbers = [0, 7, 37, 100, int(6 * rate), int(12 * rate) - 1]
    names = ids(numbers, rate)
    assert prepare(job(path, names)) == [Outcome(name) for name in names]
    for name, number in zip(names, numbers, strict=True):
        assert media.number(tmp_path / "out" / "frames" / f"{name}.jpg") == number
        samples, sample_rate = soundfile.read(tmp_path / "out" / "audio" / f"{name}.wav", dtype="int16")
        assert (samples.shape, sample_rate) == ((48_000,), 16_000)
        start = min(max(number / rate - 1.5, 0), 9)  # inside the video, which the encoder fills up by up to 20 ms
        assert media.seconds(samples) == pytest.approx(float(start), abs=0.021 if start == 9 else 0.002)
        assert media.likeness(samples) > 0.95
    assert soundfile.info(tmp_path / "out" / "audio" / f"{names[0]}.wav").subtype == "PCM_16"
    assert len(written(tmp_path / "out")) == 12


def test_sparse_clips_are_sought(tmp_path: Path, media: Media, monkeypatch: pytest.MonkeyPatch) -> None:
    path = media.write(tmp_path / f"{VIDEO}.mp4", 24, 10)
    decoded = [0]
    whole = excerpts._decoded

    def counting(*arguments):
        for frame in whole(*arguments):
            decoded[0] += isinstance(frame, av.VideoFrame)
            yield frame

    monkeypatch.setattr(excerpts, "_decoded", counting)
    monkeypatch.setattr(worker, "_GAP", 5.0)
    numbers = (25, 220)
    names = ids(numbers, 10)
    assert prepare(job(path, names)) == [Outcome(name) for name in names]
    assert decoded[0] < 110  # of 240
    for name, number, start in zip(names, numbers, (1.0, 20.5), strict=True):
        assert media.number(tmp_path / "out" / "frames" / f"{name}.jpg") == number
        samples, _ = soundfile.read(tmp_path / "out" / "audio" / f"{name}.wav", dtype="int16")
        assert media.seconds(samples) == pytest.approx(start, abs=0.002)


def test_an_index_that_leads_too_far(tmp_path: Path, media: Media, monkeypatch: pytest.MonkeyPatch) -> None:
    path = media.write(tmp_path / f"{VIDEO}.mp4", 12, 10)
    monkeypatch.setattr(excerpts, "_seek", lambda container, _: container.seek(10_000_000))
    (name,) = ids([60], 10)
    assert prepare(job(path, [name])) == [Outcome(name)]
    assert media.number(tmp_path / "out" / "frames" / f"{name}.jpg") == 60
    samples, _ = soundfile.read(tmp_path / "out" / "audio" / f"{name}.wav", dtype="int16")
    assert media.seconds(samples) == pytest.approx(4.5, abs=0.002)


def test_variable_frame_rate(tmp_path: Path, media: Media) -> None:
    times = [0, 0.1, 0.9, 1.0, 2.5, 2.55, 4.0, 4.1, 4.2, 5.0, 5.9]  # 1.86 frames a second on average
    path = media.write(tmp_path / f"{VIDEO}.mp4", 6, times=times)
    names = (f"{VIDEO}_002_00060", f"{VIDEO}_003_00097")  # at 30 frames a second: 2 s and 3.233 s
    assert prepare(job(path, names)) == [Outcome(name) for name in names]
    assert [media.number(tmp_path / "out" / "frames" / f"{name}.jpg") for name in names] == [3, 5]


def test_a_download_at_another_rate(tmp_path: Path, media: Media) -> None:
    path = media.write(tmp_path / f"{VIDEO}.mp4", 6, 50)
    names = ids([25, 31, 100], 25)
    assert prepare(job(path, names)) == [Outcome(name) for name in names]
    assert [media.number(tmp_path / "out" / "frames" / f"{name}.jpg") for name in names] == [50, 62, 200]


@pytest.mark.parametrize(("cut", "frame", "start"), [(True, 50, 3.5), (False, 70, 5.5)])
def test_vggsound(tmp_path: Path, media: Media, cut: bool, frame: int, start: float) -> None:
    path = media.write(tmp_path / f"{VIDEO}.mp4", 10, 10)
    name = f"{VIDEO}_000002"
    assert prepare(job(path, [name], cut=cut)) == [Outcome(name)]
    assert media.number(tmp_path / "out" / "frames" / f"{name}.jpg") == frame
    samples, _ = soundfile.read(tmp_path / "out" / "audio" / f"{name}.wav", dtype="int16")
    assert media.seconds(samples) == pytest.approx(start, abs=0.002)


def test_a_video_that_does_not_start_at_zero(tmp_path: Path, media: Media) -> None:
    path = media.write(tmp_path / f"{VIDEO}.mkv", 8, 10, start=5)
    assert excerpts.inspect(path).origin == pytest.approx(5, abs=0.03)
    (name,) = ids([40], 10)
    assert prepare(job(path, [name])) == [Outcome(name)]
    assert media.number(tmp_path / "out" / "frames" / f"{name}.jpg") == 40
    samples, _ = soundfile.read(tmp_path / "out" / "audio" / f"{name}.wav", dtype="int16")
    assert media.seconds(samples) == pytest.approx(2.5, abs=0.025)


@pytest.mark.parametrize("matrix", [(0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)])
def test_rotated_videos_become_upright(tmp_path: Path, media: Media, matrix: tuple[int, int, int, int]) -> None:
    path = media.write(tmp_path / f"{VIDEO}.mp4", 4, 10)
    a, b, c, d = (value * 65_536 for value in matrix)
    content = bytearray(path.read_bytes())
    offset = content.index(b"tkhd") + 4 + 40  # of the first track, the picture's
    content[offset : offset + 36] = b"".join(
        v.to_bytes(4, "big", signed=True) for v in (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    )
    path.write_bytes(content)
    (name,) = ids([5], 10)
    assert prepare(job(path, [name])) == [Outcome(name)]
    capture = cv2.VideoCapture(str(path))  # turns videos upright too
    for _ in range(6):
        _, expected = capture.read()
    with Image.open(tmp_path / "out" / "frames" / f"{name}.jpg") as image:
        assert image.size == expected.shape[1::-1]
        assert np.abs(np.array(image.convert("L")) - expected[..., 1].astype(float)).mean() < 12


@pytest.mark.parametrize(("side", "size"), [(256, (96, 40)), (40, (96, 40)), (20, (48, 20)), (1, (2, 1))])
def test_size_of_frames(tmp_path: Path, media: Media, side: int, size: tuple[int, int]) -> None:
    path = media.write(tmp_path / f"{VIDEO}.mp4", 4, 10)
    (name,) = ids([5], 10)
    assert prepare(job(path, [name], side=side)) == [Outcome(name)]
    with Image.open(tmp_path / "out" / "frames" / f"{name}.jpg") as image:
        assert (image.size, image.mode) == (size, "RGB")


def test_no_sound(tmp_path: Path, media: Media) -> None:
    path = media.write(tmp_path / f"{VIDEO}.mp4", 4, 10, codecs=("libx264", None))
    assert only(prepare(job(path, ids([5], 10)))) == ("no audio stream", "")
    assert written(tmp_path / "out") == []


def test_no_picture(tmp_path: Path) -> None:
    path = tmp_path / f"{VIDEO}.mp4"
    soundfile.write(tmp_path / "a.wav", np.zeros(64_000), 16_000)
    (tmp_path / "a.wav").rename(path)
    assert only(prepare(job(path, ids([5], 10)))) == ("no video stream", "")


@pytest.mark.parametrize(
    ("level", "silence", "reason"),
    [
        (0.0, -60.0, ("silent", "-inf dBFS")),
        (0.0, float("-inf"), ("", "")),
        (10 ** (-66 / 20), -60.0, ("silent", "-66 dBFS")),
        (10 ** (-66 / 20), -70.0, ("", "")),
        (10 ** (-54 / 20), -60.0, ("", "")),
    ],
)
def test_silence(tmp_path: Path, media: Media, level: float, silence: float, reason: tuple[str, str]) -> None:
    path = media.write(tmp_path / f"{VIDEO}.mkv", 4, 10, codecs=("libx264", "pcm_s16le"), level=level)
    assert only(prepare(job(path, ids([5], 10), silence=silence))) == reason
    assert len(written(tmp_path / "out")) == (0 if reason[0] else 2)


def test_a_constant_sound_is_silent(tmp_path: Path, media: Media, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "noise", np.ones_like(media.noise))
    path = media.write(tmp_path / f"{VIDEO}.mkv", 6, 10, codecs=("libx264", "pcm_s16le"), level=0.1)
    reason, detail = only(prepare(job(path, ids([30], 10))))  # far from the edges, where resampling rings
    assert reason == "silent", detail


@pytest.mark.parametrize("content", [b"", b"not found\n" * 100, bytes(5000)])
def test_no_video_at_all(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / f"{VIDEO}.mp4"
    path.write_bytes(content)
    reason, detail = only(prepare(job(path, ids([5], 10))))
    assert (reason, detail) == ("cannot be decoded", "Invalid data found when processing input")


def test_a_vanished_file(tmp_path: Path) -> None:
    reason, detail = only(prepare(job(tmp_path / f"{VIDEO}.mp4", ids([5], 10))))
    assert (reason, detail) == ("cannot be decoded", "No such file or directory")


def test_too_short(tmp_path: Path, media: Media) -> None:
    path = media.write(tmp_path / f"{VIDEO}.mp4", 2.5, 10)
    assert only(prepare(job(path, ids([5], 10)))) == ("too short", "only 2.5 s of sound around 0.5 s")


def test_the_sound_ends_before_the_picture(tmp_path: Path, media: Media) -> None:
    path = media.write(tmp_path / f"{VIDEO}.mp4", 12, 10, sound_seconds=8)
    names = ids([50, 83, 110], 10)
    first, second, third = prepare(job(path, names))
    assert first == Outcome(names[0])
    assert second == Outcome(names[1])  # moved to the sound's last 3 s
    samples, _ = soundfile.read(tmp_path / "out" / "audio" / f"{names[1]}.wav", dtype="int16")
    assert media.seconds(samples) == pytest.approx(5, abs=0.025)
    assert third == Outcome(names[2], "too short", "its frame is at 11.0 s, where there is no sound")


def test_the_picture_ends_before_the_sound(tmp_path: Path, media: Media) -> None:
    path = media.write(tmp_path / f"{VIDEO}.mp4", 6, 10, sound_seconds=12)
    names = ids([50, 90], 10)
    assert prepare(job(path, names)) == [
        Outcome(names[0]),
        Outcome(names[1], "too short", "its picture ends at 6.0 s, its frame is at 9.0 s"),
    ]
    assert len(written(tmp_path / "out")) == 2


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_a_truncated_file_gives_what_it_holds(tmp_path: Path, media: Media, suffix: str) -> None:
    codecs = ("libvpx-vp9", "libopus") if suffix == ".webm" else ("libx264", "aac")
    path = media.write(tmp_path / f"{VIDEO}{suffix}", 20, 10, codecs=codecs)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    names = ids([20, 180], 10)
    first, second = prepare(job(path, names))
    assert first == Outcome(names[0])
    assert media.number(tmp_path / "out" / "frames" / f"{names[0]}.jpg") == 20
    assert second.reason == "too short"


def test_a_truncated_file_whose_index_is_lost(tmp_path: Path, media: Media) -> None:
    path = media.write(tmp_path / f"{VIDEO}.mp4", 6, 10)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])  # an MP4 keeps its index at the end
    assert only(prepare(job(path, ids([5], 10))))[0] == "cannot be decoded"


def test_damage_in_the_middle(tmp_path: Path, media: Media) -> None:
    path = media.write(tmp_path / f"{VIDEO}.mkv", 20, 10)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20_000] = np.random.default_rng(0).bytes(20_000)
    path.write_bytes(content)
    names = ids([20, 180], 10)
    assert prepare(job(path, names)) == [Outcome(name) for name in names]
    assert [media.number(tmp_path / "out" / "frames" / f"{name}.jpg") for name in names] == [20, 180]


@pytest.mark.parametrize("error", [av.error.PermissionError(1, "no"), av.error.MemoryError(12, "no")])
def test_errors_that_ffmpeg_has_for_damaged_data_do_not_stop_the_job(
    tmp_path: Path, media: Media, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    one = job(media.write(tmp_path / f"{VIDEO}.mp4", 4, 10), ids([5], 10))
    monkeypatch.setattr(worker, "read_sounds", failing(error))
    assert only(prepare(one))[0] == "cannot be decoded"


def test_the_rate_of_h264_in_avi(tmp_path: Path, media: Media) -> None:
    path = media.write(tmp_path / f"{VIDEO}.avi", 8, 10)
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate != 10  # else there is nothing to test
    assert file_rate(path) == 10


def test_random_bytes_never_raise(tmp_path: Path, media: Media) -> None:
    content = media.write(tmp_path / "good.mkv", 4, 10).read_bytes()
    rng = np.random.default_rng(0)
    for trial in range(20):
        broken = np.frombuffer(content, np.uint8).copy()
        broken[rng.integers(0, len(broken), 200)] = rng.integers(0, 256, 200)
        path = tmp_path / f"{trial}.mkv"
        path.write_bytes(broken.tobytes())
        (outcome,) = prepare(job(path, ids([20], 10)))
        streams = ("no audio stream", "no video stream")
        sounds = ("silent", "too short", "sound is not finite", "sound is out of range")
        assert outcome.reason in ("", "cannot be decoded", *streams, *sounds)


def test_a_full_disk_is_an_error(tmp_path: Path, media: Media, monkeypatch: pytest.MonkeyPatch) -> None:
    path = media.write(tmp_path / f"{VIDEO}.mp4", 4, 10)
    monkeypatch.setattr(clip_files.soundfile, "write", failing(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        prepare(job(path, ids([5], 10)))
    assert not [name for name in written(tmp_path / "out") if "partial" in name]


@pytest.mark.parametrize(
    "error", [RuntimeError("System error."), av.FFmpegError(5, "odd"), UnicodeEncodeError("a", "", 0, 1, "")]
)
def test_an_error_of_writing_is_not_one_of_the_video(
    tmp_path: Path, media: Media, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    one = job(media.write(tmp_path / f"{VIDEO}.mp4", 4, 10), ids([5], 10))
    monkeypatch.setattr(worker, "write_sound", failing(error))
    with pytest.raises(type(error)):
        prepare(one)


@pytest.mark.parametrize("reader", ["inspect", "read_sounds", "read_frames"])
@pytest.mark.parametrize("error", [MemoryError(), OSError(24, "Too many open files"), av.FFmpegError(24, "no")])
def test_an_error_of_the_machine_is_not_one_of_the_video(
    tmp_path: Path, media: Media, monkeypatch: pytest.MonkeyPatch, reader: str, error: Exception
) -> None:
    one = job(media.write(tmp_path / f"{VIDEO}.mp4", 4, 10), ids([5], 10))
    monkeypatch.setattr(worker, reader, failing(error))
    with pytest.raises(type(error)):
        prepare(one)


def test_too_few_file_descriptors(tmp_path: Path, media: Media) -> None:
    one = job(media.write(tmp_path / f"{VIDEO}.mp4", 4, 10), ids([5], 10))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            prepare(one)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_decoder_that_raises_anything(tmp_path: Path, media: Media, monkeypatch: pytest.MonkeyPatch) -> None:
    path = media.write(tmp_path / f"{VIDEO}.mp4", 4, 10)
    monkeypatch.setattr(worker, "read_frames", lambda *_: 1 / 0)
    assert only(prepare(job(path, ids([5], 10)))) == ("cannot be decoded", "ZeroDivisionError: division by zero")


def test_spans() -> None:
    times = [0.0, 0.2, 19.0, 40.0, 60.0, 80.1]
    assert [times[span] for span in worker._spans(times)] == [[0.0, 0.2, 19.0], [40.0, 60.0], [80.1]]
    long = [10.0 * index for index in range(100)]
    assert [len(long[span]) for span in worker._spans(long)] == [61, 39]


@pytest.mark.parametrize(
    ("moves", "second", "still"),
    [
        (lambda _: 0, 5, True),
        (lambda number: number // 10, 5, False),  # once a second
        (lambda number: number if 80 <= number < 90 else 0, 5, False),  # another picture for a second, 2 s before
        (lambda number: number if number >= 101 else 0, 5, True),  # it moves after the frame
    ],
)
def test_a_still_picture_before_the_frame_of_vggsound_is_told(tmp_path, media, monkeypatch, moves, second, still):
    frame = media.frame
    monkeypatch.setattr(media, "frame", lambda number: frame(moves(number)))
    path = media.write(tmp_path / f"{VIDEO}.mp4", 14, 10)
    (outcome,) = prepare(job(path, [f"{VIDEO}_{second:06d}"]))
    assert outcome == Outcome(f"{VIDEO}_{second:06d}", still=still)
