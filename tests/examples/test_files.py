"""Files are written as a whole or not at all, even where an encoder does not notice that the disk is full."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from avsl.clip_files import is_whole_frame, is_whole_sound, write_frame, write_sound
from avsl.files import atomic_buffer, atomic_write, write_bytes, write_json, write_text
from avsl.machine_errors import of_this_machine
from lightning.pytorch.plugins.io import TorchCheckpointIO
from PIL import Image

LIMIT = 8192  # bytes
NOISE = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may be larger than ``LIMIT``: a write beyond it is cut short, and the next one fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def through_buffer(encode: Callable) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with atomic_buffer(path) as buffer:
            encode(buffer)

    return write


def through_path(encode: Callable) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with atomic_write(path) as temporary:
            encode(temporary)

    return write


def plot(buffer) -> None:
    figure, axis = plt.subplots()
    axis.imshow(NOISE)
    figure.savefig(buffer, format="png")
    plt.close(figure)


def video(path: Path) -> None:
    with av.open(str(path), "w", options={"movflags": "faststart"}) as target:
        sink = target.add_stream("libx264", rate=10, options={"crf": "1"})
        sink.width, sink.height, sink.pix_fmt = 200, 200, "yuv420p"
        for _ in range(3):
            target.mux(sink.encode(av.VideoFrame.from_ndarray(NOISE, format="rgb24")))
        target.mux(sink.encode(None))


WRITERS = {
    "frame.jpg": lambda path: write_frame(path, Image.fromarray(NOISE), 95),
    "sound.wav": lambda path: write_sound(path, np.zeros(48_000)),
    "text.txt": lambda path: write_text(path, "x" * 2 * LIMIT),
    "values.json": lambda path: write_json(path, [0] * LIMIT),
    "bytes": lambda path: write_bytes(path, bytes(2 * LIMIT)),
    "maps.npz": through_buffer(lambda buffer: np.savez(buffer, maps=NOISE)),
    "plot.png": through_buffer(plot),
    "weights.pt": through_buffer(lambda buffer: torch.save(torch.zeros(LIMIT), buffer)),
    "arrays.npz": through_path(lambda path: np.savez(path, maps=NOISE)),
    "video.mp4": through_path(video),
    "last.ckpt": through_path(lambda path: TorchCheckpointIO().save_checkpoint({"a": torch.zeros(LIMIT)}, path)),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_is_an_error_and_leaves_the_old_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("old")
    with pytest.raises(OSError, match="File too large") as caught:
        WRITERS[name](path)
    assert of_this_machine(caught.value)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {name: "old"}


@pytest.mark.usefixtures("small_disk")
def test_an_error_of_the_disk_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"File too large: .*values\.json"):
        write_json(tmp_path / "values.json", [0] * LIMIT)


@pytest.mark.parametrize("name", WRITERS)
def test_with_room_it_is_written(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / "new" / name)
    assert [p.name for p in (tmp_path / "new").iterdir()] == [name]
    assert (tmp_path / "new" / name).stat().st_size > LIMIT  # so that the limit above matters


def test_a_failing_encoder_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        through_buffer(lambda _: 1 / 0)(tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_whole_files(tmp_path: Path) -> None:
    frame, sound = tmp_path / "a.jpg", tmp_path / "a.wav"
    assert not is_whole_frame(frame)
    assert not is_whole_sound(sound)
    write_frame(frame, Image.fromarray(NOISE), 95)
    write_sound(sound, np.zeros(48_000))
    assert is_whole_frame(frame)
    assert is_whole_sound(sound)
    for path, is_whole in ((frame, is_whole_frame), (sound, is_whole_sound)):
        content = path.read_bytes()
        for damaged in (b"", content[:100], content[: len(content) // 2], content[:-2], b"text", bytes(len(content))):
            path.write_bytes(damaged)
            assert not is_whole(path)


def test_a_file_that_this_machine_cannot_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(24, "Too many open files")

    write_frame(tmp_path / "a.jpg", Image.fromarray(NOISE), 95)
    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(OSError, match="Too many"):
        is_whole_frame(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (av.error.MemoryError(12, "no"), False),  # while there is memory, the data asks for an absurd size
        (av.error.PermissionError(1, "damaged sound", "avcodec_send_packet()"), False),
        (av.error.PermissionError(13, "no", "a.mp4"), True),
        (av.FFmpegError(5, "cannot go on", __file__), False),
        (OSError(5, "broken disk"), True),
        (OSError(28, "full"), True),
        (PermissionError(13, "no"), True),
        (av.FFmpegError(24, "too many"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes."), True),
        (RuntimeError("can't start new thread"), True),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), True),
        (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), True),
        (RuntimeError("Caught RuntimeError in DataLoader worker process 0."), False),
        (RuntimeError("System error."), False),
        (FileNotFoundError(2, "none"), False),
        (av.FFmpegError(1094995529, "invalid data"), False),
        (OSError("image file is truncated"), False),
        (ValueError(), False),
    ],
)
def test_errors_of_this_machine(error: Exception, expected: bool) -> None:
    assert of_this_machine(error) is expected


def test_errors_of_ffmpeg_are_of_this_machine_if_it_fails_without_ffmpeg_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    (tmp_path / "a.mp4").touch()
    error: Exception = OSError(5, "broken disk")
    monkeypatch.setattr(Path, "open", fail)
    assert of_this_machine(av.FFmpegError(5, "Input/output error", str(tmp_path / "a.mp4")))
    error = MemoryError()
    monkeypatch.setattr(np, "empty", fail)
    assert of_this_machine(av.error.MemoryError(12, "no"))
