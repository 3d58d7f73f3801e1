"""Ids of MUSIC and VGGSound, and the sounds that belong to them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from avsl.clip_ids import ClipId, Sound, find_sound, frame_rate
from avsl.data.scenes import Scenes

METADATA = os.environ.get("SSLOSSES_METADATA")
real = pytest.mark.skipif(not METADATA, reason="SSLOSSES_METADATA names no folder of public lists")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("E7E1kMExVcg_053_01611", ClipId("E7E1kMExVcg", 53, 1611)),
        ("-_-TDDxoaAc_000_00000", ClipId("-_-TDDxoaAc", 0, 0)),
        ("____________123_45678", ClipId("___________", 123, 45678)),
        ("abcdefghijk_1234_105000", ClipId("abcdefghijk", 1234, 105_000)),
        ("zpWuikVorYg_000032", ClipId("zpWuikVorYg", 32)),
        ("a_b_c_d_e_f_000000", ClipId("a_b_c_d_e_f", 0)),
    ],
)
def test_ids(name: str, expected: ClipId) -> None:
    assert ClipId.parse(name) == expected


@pytest.mark.parametrize(
    "name",
    ["", "a", "E7E1kMExVcg", "E7E1kMExVcg_53_1611", "E7E1kMExVc_053_01611", "zpWuikVorYg_32", "zpWuikVor/g_000032",
     "zpWuikVorYg_000032\n", "zpWuikVorYé_000032"],
)  # fmt: skip
def test_what_is_no_id(name: str) -> None:
    with pytest.raises(ValueError, match="Expected `name` to be an id like 'E7E1kMExVcg_053_01611'"):
        ClipId.parse(name)


@pytest.mark.parametrize(
    ("clip", "seconds"),
    [
        (ClipId("v", 53, 1611), 53.7),  # 30 frames a second
        (ClipId("v", 100, 2512), 100.48),  # 25
        (ClipId("v", 84, 526), 84.5),  # 6.25, which a single id doesn't tell: the middle of the second
        (ClipId("v", 0, 0), 0.0),
        (ClipId("v", 32), 37.0),  # the middle of VGGSound's 10 s
    ],
)
def test_time_without_a_rate(clip: ClipId, seconds: float) -> None:
    assert clip.seconds == pytest.approx(seconds)


def test_time_at_a_rate() -> None:
    assert ClipId("v", 53, 1611).seconds_at(30.0) == pytest.approx(53.7)
    assert ClipId("v", 32).seconds_at(12.5) == 37.0


@pytest.mark.parametrize(
    ("clips", "of_file", "expected"),
    [
        ([ClipId("v", 1, 25), ClipId("v", 3, 87)], 25.0, 25.0),
        ([ClipId("v", 1, 25), ClipId("v", 3, 87)], 50.0, 25.0),  # another download than the lists were made from
        ([ClipId("v", 0, 7), ClipId("v", 300, 9000)], 30_000 / 1001, 30_000 / 1001),
        ([ClipId("v", 0, 0), ClipId("v", 0, 21)], 60.0, 30.0),  # served at 60 Hz, listed at 30
        ([ClipId("v", 0, 0), ClipId("v", 1, 75)], 60.0, 60.0),  # counted at 60 Hz
        ([ClipId("v", 53, 1611)], 60.0, 30.0),
        ([ClipId("v", 1, 59)], 60.0, 30.0),
        ([ClipId("v", 1, 59)], 60_000 / 1001, 30_000 / 1001),
        ([ClipId("v", 599, 17999)], 30_000 / 1001, 30_000 / 1001),  # second 599 by 30 Hz, at 600.6 s
        ([ClipId("v", 84, 526)], 30.0, 526 / 84),  # no usual rate
        ([ClipId("v", 53, 1611)], None, 30.0),
        ([ClipId("v", 0, 0), ClipId("v", 0, 21)], 12.5, 30.0),  # frame 21 would lie in second 1
        ([ClipId("v", 30)], 12.5, 12.5),
    ],
)
def test_rate_of_a_video(clips: list[ClipId], of_file: float, expected: float) -> None:
    assert frame_rate(clips, of_file) == pytest.approx(expected)


def test_sound_of_the_clip_before_that_of_the_video(tmp_path: Path) -> None:
    name = "E7E1kMExVcg_053_01611"
    own, whole = tmp_path / f"{name}.wav", tmp_path / "E7E1kMExVcg.wav"
    assert find_sound(tmp_path, name) == Sound(own)  # neither is there
    whole.touch()
    assert find_sound(tmp_path, name) == Sound(whole, pytest.approx(53.7))
    own.touch()
    assert find_sound(tmp_path, name) == Sound(own)
    assert find_sound(tmp_path, "a") == Sound(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("seconds", "total", "first"),
    [(None, 50, 10), (None, 20, 0), (2.0, 100, 5), (0.5, 100, 0), (9.9, 100, 70), (1.0, 20, 0)],
)
def test_section(seconds: float | None, total: int, first: int) -> None:
    assert Sound(Path("a.wav"), seconds).first_sample(total, 30, rate=10) == first


def test_section_behind_the_end() -> None:
    with pytest.raises(ValueError, match=r"a\.wav to hold the sound of the whole video, .* at 11\.0 s, .* 10\.0 s"):
        Sound(Path("a.wav"), 11.0).first_sample(100, 30, rate=10)


def test_both_layouts_are_read_alike(music: Path) -> None:
    whole = np.random.default_rng(0).integers(-9999, 9999, 20 * 16_000).astype(np.int16)
    names = [f"E7E1kMExVcg_{second:03d}_{30 * second + 7:05d}" for second in (0, 8, 19)]
    soundfile.write(music / "audio" / "E7E1kMExVcg.wav", whole, 16_000)
    for name in names:
        shutil.copy(music / "frames" / "a.jpg", music / "frames" / f"{name}.jpg")
    scenes = Scenes(music, names, 16)
    heard = [scenes[index].waveform for index in range(3)]
    starts = [0, round((8 + 7 / 30 - 1.5) * 16_000), 17 * 16_000]
    for name, start, waveform in zip(names, starts, heard, strict=True):
        expected = whole[start : start + 48_000]
        assert torch.equal(waveform * 32768, torch.from_numpy(expected).float())
        soundfile.write(music / "audio" / f"{name}.wav", expected, 16_000)
    (music / "audio" / "E7E1kMExVcg.wav").unlink()
    assert all(torch.equal(scenes[index].waveform, heard[index]) for index in range(3))


@real
@pytest.mark.parametrize(
    ("name", "clips", "videos"),
    [
        ("music_solo_train.txt", 44_532, 217),
        ("music_duet_train.txt", 48_348, 112),
        ("music_solo_test.csv", 2_124, 20),
        ("music_duet_test.csv", 1_020, 6),
        ("vggsound_single_test.csv", 5_158, 5_017),
        ("vggsound_duet_test.csv", 5_158, 5_017),
    ],
)
def test_public_lists(name: str, clips: int, videos: int) -> None:
    lines = Path(METADATA or "", name).read_text().split()
    parsed = [ClipId.parse(line.split(",")[0]) for line in lines]
    assert (len(parsed), len({clip.video for clip in parsed})) == (clips, videos)
    assert all(clip.frame is None or int(clip.seconds) == clip.second for clip in parsed)


@real
def test_public_ids_count_frames_at_the_rate_of_each_video() -> None:
    frames: dict[str, list[ClipId]] = {}
    for name in ("music_solo_train.txt", "music_duet_train.txt", "music_solo_test.csv", "music_duet_test.csv"):
        for line in Path(METADATA or "", name).read_text().split():
            clip = ClipId.parse(line.split(",")[0])
            frames.setdefault(clip.video, []).append(clip)
    assert len(frames) == 355
    rates = [frame_rate(clips, 1e-3) for clips in frames.values()]  # no file has this rate: the ids tell theirs
    assert {25.0, 30.0, 24.0, 6.25, 7.5} <= set(rates)
    assert all(clip.fits(rate) for clips, rate in zip(frames.values(), rates, strict=True) for clip in clips)
