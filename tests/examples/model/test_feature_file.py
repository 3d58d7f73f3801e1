"""Features on disk: equal to computed ones, computed once, resumed after a kill, and errors of disks and values."""

from __future__ import annotations

import os
import pickle
import sqlite3
import weakref
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from avsl.data.music import MusicFolder
from avsl.data.scenes import Scenes
from avsl.evaluation.held_out import load_held_out
from avsl.evaluation.predict import Prediction, _stack
from avsl.evaluation.sheet import draw_sheet
from avsl.model import feature_file
from avsl.model.encoders import Features, Tower
from avsl.model.feature_file import BATCH, CPU_BATCH, FeatureFile, compute_features, file_key
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..conftest import write_clip

COUNT = 2 * BATCH + 5


class Toy(Tower):
    """A frozen encoder that notes the number of inputs of each call."""

    def __init__(self, seed: int = 0, name: str = "toy") -> None:
        super().__init__(frozen=True)
        self.architecture = {"name": name}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.tower = nn.Conv2d(3, 4, 8, 8)
        self.head = nn.Conv2d(4, 2, 1)
        self.calls: list[int] = []
        self.freeze()

    def features(self, inputs: Tensor) -> Tensor:
        self.calls.append(len(inputs))
        return self.tower(inputs.float() / 255)


def frame(index: int, side: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(index)
    return torch.randint(256, (3, side, side), dtype=torch.uint8, generator=generator)


def keys(count: int = COUNT) -> list[bytes]:
    return [b"%016d" % i for i in range(count)]


def compute(encoder: Tower, folder: Path, load: Callable[[int], Tensor] = frame, count: int = COUNT) -> FeatureFile:
    return compute_features(encoder, keys(count), load, folder, kind="frames")


def rows(path: Path) -> dict[bytes, bytes]:
    with sqlite3.connect(path) as table:
        found = dict(table.execute("SELECT key, feature FROM features"))
    table.close()
    return found


# Reading and computing


def test_features_read_are_those_computed(tmp_path: Path) -> None:
    encoder = Toy()
    file = compute(encoder, tmp_path / "new" / "cache")
    assert file.shape == (4, 2, 2)
    for index in (0, BATCH - 1, BATCH, COUNT - 1):
        read = file.read(keys()[index])
        assert isinstance(read, Features)
        assert read.values.dtype == torch.float16
        expected = encoder.features(frame(index)[None])[0].half()
        torch.testing.assert_close(read.values, expected, atol=1e-3, rtol=1e-3)
    assert sorted(path.suffix for path in file.path.parent.iterdir()) == [".lock", ".sqlite"]  # no journal


def test_a_second_call_computes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, again, loaded = Toy(), Toy(), []

    def load(index: int) -> Tensor:
        loaded.append(index)
        return frame(index)

    path = compute(first, tmp_path).path
    before, _ = rows(path), capsys.readouterr()
    assert compute(again, tmp_path, load).path == path
    assert (first.calls, again.calls, loaded) == (
        [1, *[CPU_BATCH] * (COUNT // CPU_BATCH), COUNT % CPU_BATCH],
        [1],
        [0],
    )  # one for the shape
    assert rows(path) == before
    assert capsys.readouterr().err == ""


def test_inputs_of_equal_keys_are_computed_once(tmp_path: Path) -> None:
    encoder = Toy()
    file = compute_features(encoder, keys(3) * 2, lambda i: frame(i % 3), tmp_path, kind="frames")
    assert encoder.calls == [1, 3]
    assert rows(file.path).keys() == set(keys(3))


@pytest.mark.parametrize("at", [0, 3, BATCH + 1, COUNT - 1])
def test_a_killed_call_is_resumed(tmp_path: Path, at: int) -> None:
    killed, encoder, loaded = Toy(), Toy(), []

    def load_until(index: int) -> Tensor:
        if index == at:
            raise KeyboardInterrupt
        return frame(index)

    def load(index: int) -> Tensor:
        loaded.append(index)
        return frame(index)

    with pytest.raises(KeyboardInterrupt):
        compute(killed, tmp_path, load_until)
    done = at // BATCH * BATCH
    file = compute(encoder, tmp_path, load)
    assert loaded == [0, *range(done, COUNT)]
    assert sum(encoder.calls) == 1 + COUNT - done
    assert rows(file.path) == rows(compute(Toy(), tmp_path / "whole").path)


def test_memory_is_bounded(tmp_path: Path) -> None:
    """Only a batch of inputs is alive at any time, and the first one, which gives the shape."""
    alive: set[int] = set()
    most = 0

    def load(index: int) -> Tensor:
        nonlocal most
        loaded = frame(index)
        number = len(alive) and max(alive) + 1
        alive.add(number)
        weakref.finalize(loaded, alive.discard, number)
        most = max(most, len(alive))
        return loaded

    encoder = Toy()
    compute(encoder, tmp_path, load)
    assert max(encoder.calls) == CPU_BATCH
    assert BATCH <= most <= BATCH + 1


def test_other_weights_sizes_and_architectures_have_files_of_their_own(tmp_path: Path) -> None:
    files = {
        compute(encoder, tmp_path, lambda i, side=side: frame(i, side), 3).path
        for encoder, side in ((Toy(), 16), (Toy(1), 16), (Toy(), 24), (Toy(name="other"), 16))
    }
    assert len(files) == len(list(tmp_path.glob("*.sqlite"))) == 4
    trained = Toy()
    nn.init.zeros_(trained.head.weight)  # the head is trained, so it does not count
    assert compute(trained, tmp_path, count=3).path in files


def test_a_file_can_be_pickled_after_use(tmp_path: Path) -> None:
    file = compute(Toy(), tmp_path, count=3)
    read = file.read(keys()[1])
    again = pickle.loads(pickle.dumps(file))
    assert torch.equal(again.read(keys()[1]).values, read.values)
    assert torch.equal(file.read(keys()[1]).values, read.values)


def test_another_process_opens_the_file_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite forbids to use a connection after a fork."""
    file = compute(Toy(), tmp_path, count=3)
    file.read(keys()[1])
    opened = file._opened[1]
    file.read(keys()[2])
    assert file._opened[1] is opened
    monkeypatch.setattr(feature_file.os, "getpid", lambda: -1)
    file.read(keys()[1])
    assert file._opened[1] is not opened


# Errors


@pytest.mark.parametrize("damage", ["text", "cut", "empty table"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    path = compute(Toy(), tmp_path).path
    file = FeatureFile(path, (4, 2, 2))
    if damage == "text":
        path.write_bytes(b"hello" * 1000)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    else:
        path.unlink()
        sqlite3.connect(path).close()
    with pytest.raises(
        OSError, match=rf"Expected {path} to hold features, but .*delete it to have them computed again"
    ):
        file.read(keys()[0])
    if damage != "empty table":  # which is how a new file begins
        with pytest.raises(OSError, match=rf"Expected {path} to hold features, but .*delete it"):
            compute(Toy(), tmp_path)
        path.unlink()
    assert torch.equal(compute(Toy(), tmp_path).read(keys()[0]).values, Toy().features(frame(0)[None])[0].half())


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    file = FeatureFile(tmp_path / "nowhere" / "features.sqlite", (4, 2, 2))
    with pytest.raises(OSError, match=r"Expected .*nowhere/features\.sqlite to hold features, but unable to open"):
        file.read(keys()[0])


def test_a_path_that_can_not_be_opened(tmp_path: Path) -> None:
    path = compute(Toy(), tmp_path, count=3).path
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match=rf"Expected {path} to hold features, but unable to open"):
        compute(Toy(), tmp_path, count=3)


def test_an_input_that_is_not_in_the_file(tmp_path: Path) -> None:
    file = compute(Toy(), tmp_path, count=3)
    with pytest.raises(OSError, match=r"to hold the features of all inputs, but some were removed\. Run again"):
        file.read(b"another")


def test_a_full_disk_is_said_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The features of an input are 4 · 2 · 2 numbers of 2 bytes."""
    usage, encoder = namedtuple("usage", "free"), Toy()
    monkeypatch.setattr(feature_file.shutil, "disk_usage", lambda _: usage(COUNT * 32 - 1))
    with pytest.raises(OSError, match=r"The features of frames take 0\.0 GB in .*, but only .* --cache-features false"):
        compute(encoder, tmp_path)
    assert encoder.calls == [1]
    monkeypatch.setattr(feature_file.shutil, "disk_usage", lambda _: usage(COUNT * 32))
    compute(encoder, tmp_path)
    monkeypatch.setattr(feature_file.shutil, "disk_usage", lambda _: usage(0))
    compute(encoder, tmp_path)  # nothing is missing


def test_many_gigabytes_are_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    compute(Toy(), tmp_path / "few")
    assert caplog.text == ""
    monkeypatch.setattr(feature_file, "_LARGE", 32)
    compute(Toy(), tmp_path / "many")
    assert f"The features of frames take 0.0 GB in {tmp_path / 'many'}" in caplog.text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e5])
def test_values_that_half_precision_does_not_hold(tmp_path: Path, value: float) -> None:
    encoder = Toy()
    encoder.tower.bias.data[2] = value
    with pytest.raises(ValueError, match=r"features of frames to fit half precision, .* Use --cache-features false"):
        compute(encoder, tmp_path)
    assert not rows(next(tmp_path.glob("*.sqlite")))


# Scenes


@pytest.fixture
def scenes(music: Path) -> Scenes:
    return Scenes(music, ["a", "b", "c", "d"], 16)


def test_scenes_hold_features_in_place_of_frames(scenes: Scenes, music: Path, tmp_path: Path) -> None:
    encoder = Toy()
    plain = [scenes[(0,)], scenes[(1, 2)]]
    scenes.use_features("frames", encoder, tmp_path)
    for before, example in zip(plain, (scenes[(0,)], scenes[(1, 2)]), strict=True):
        assert isinstance(example.frame, Features)
        computed = torch.cat([encoder.features(part[None])[0] for part in before.frame.chunk(len(before.clips), 2)], 2)
        torch.testing.assert_close(example.frame.values.float(), computed, atol=1e-3, rtol=1e-3)
        assert torch.equal(example.waveform, before.waveform)
        assert torch.equal(scenes.pixels(before.clips), before.frame)
    kept = Scenes(music, ["a", "b", "c", "d"], 16, in_memory=True)
    assert torch.equal(kept[0].frame, plain[0].frame)
    kept.use_features("frames", Toy(), tmp_path)  # what was decoded before is not served
    for _ in range(2):
        assert torch.equal(kept[0].frame.values, scenes[0].frame.values)


@pytest.mark.parametrize("change", ["time", "content", "size"])
def test_a_changed_frame_alone_is_computed_again(scenes: Scenes, music: Path, tmp_path: Path, change: str) -> None:
    scenes.use_features("frames", Toy(), tmp_path)
    path, before = music / "frames" / "b.jpg", scenes[1].frame.values
    if change == "time":
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    elif change == "content":
        path.write_bytes((music / "frames" / "a.jpg").read_bytes())
    else:
        time = path.stat().st_mtime_ns
        path.write_bytes(path.read_bytes() + b" ")
        os.utime(path, ns=(time, time))
    encoder = Toy()
    again = Scenes(music, ["a", "b", "c", "d"], 16)
    again.use_features("frames", encoder, tmp_path)
    assert encoder.calls == [1, 1]
    assert torch.equal(again[1].frame.values, before) is (change != "content")
    assert torch.equal(again[0].frame.values, scenes[0].frame.values)


def test_keys_tell_files_and_parts_of_them_apart(music: Path) -> None:
    one, other = music / "audio" / "a.wav", music / "audio" / "b.wav"
    assert file_key(one) == file_key(music / "frames" / ".." / "audio" / "a.wav")
    assert len({file_key(one), file_key(other), file_key(one, "(0, 3)"), file_key(one, "(3, 6)")}) == 4
    assert len(file_key(one)) == 16


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:.*fork.*may lead to deadlocks:DeprecationWarning")
def test_worker_processes(scenes: Scenes, tmp_path: Path, method: str) -> None:
    scenes.use_features("frames", Toy(), tmp_path)
    expected = torch.stack([scenes[i].frame.values for i in range(4)])  # the file is open here
    loader = DataLoader(
        scenes, sampler=[(i,) for i in range(4)], batch_size=2, collate_fn=_stack, num_workers=1,
        multiprocessing_context=method,
    )  # fmt: skip
    frames, _ = zip(*loader, strict=True)
    assert all(isinstance(part, Features) for part in frames)
    assert torch.equal(torch.cat([part.values for part in frames]), expected)


def test_the_sheet_shows_frames_all_the_same(music: Path, tmp_path: Path) -> None:
    held_out = load_held_out(MusicFolder(music), "solo", 16)
    held_out.scenes.use_features("frames", Toy(), tmp_path / "cache")
    heat = torch.rand(1, 2, 2)
    draw_sheet(tmp_path / "sheet.png", [(held_out, Prediction(heat, heat[:, None], torch.ones(1, 1) > 0))], "")
    assert (tmp_path / "sheet.png").stat().st_size > 1000


def test_features_of_one_encoder_for_more_clips(music: Path, tmp_path: Path) -> None:
    Scenes(music, ["a", "b"], 16).use_features("frames", Toy(), tmp_path)
    write_clip(music, "f", np.random.default_rng(5))
    encoder = Toy()
    Scenes(music, ["f", "b", "a"], 16).use_features("frames", encoder, tmp_path)
    assert encoder.calls == [1, 1]
    assert len(list(tmp_path.glob("*.sqlite"))) == 1
