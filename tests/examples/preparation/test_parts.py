"""Preparation by several machines: parts at once on one folder, resumed, joined, and what a join refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from avsl.commands.prepare import MUSIC, VGGSOUND, main
from avsl.parts import Part
from avsl.preparation import job
from filelock import FileLock

if TYPE_CHECKING:
    from conftest import Media

EXAMPLES = Path(job.__file__).parents[2]
PARTS = ("1/3", "2/3", "3/3")
VIDEOS = ("video-00003", "video-00002", "video-00000")  # one in each part of three
LONG = VIDEOS[1]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory, media: Media) -> Path:
    """Three videos and lists that mix them; one clip is too late, one video is missing."""
    root = tmp_path_factory.mktemp("parts")
    for video in VIDEOS:
        media.write(root / "videos" / f"{video}.mp4", 12 if video == LONG else 4, 10)
    (root / "lists").mkdir()
    clips = [f"{video}_{n // 10:03d}_{n:05d}" for n in (0, 12, 33) for video in (*VIDEOS, "video-00001")]
    clips += [f"{LONG}_{n // 10:03d}_{n:05d}" for n in range(40, 110)] + [f"{VIDEOS[0]}_060_00600"]
    (root / "lists" / "music_solo_train.txt").write_text("".join(f"{clip},flute\n" for clip in clips[3:]))
    (root / "lists" / "music_solo_test.csv").write_text("".join(f"{clip},flute\n" for clip in clips[:3]))
    (root / "lists" / "music_solo.json").write_text("[]")
    return root


def run(source: Path, out: Path, *more: str) -> int:
    return main(options(source, out, *more), dataset=MUSIC)


def options(source: Path, out: Path, *more: str) -> list[str]:
    places = ["--videos", str(source / "videos"), "--lists", str(source / "lists"), "--out", str(out)]
    return [*places, "--workers", "0", *more]


def files(out: Path) -> dict[str, bytes]:
    """The content of all files but records of parts and locks."""
    paths = (path for path in out.rglob("*") if path.is_file() and "parts" not in path.parts)
    return {str(path.relative_to(out)): path.read_bytes() for path in paths if not path.name.endswith(".lock")}


@pytest.fixture(scope="session")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process makes."""
    out = tmp_path_factory.mktemp("whole")
    assert run(source, out) == 0
    return files(out)


@pytest.fixture(scope="session")
def parts(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three finished parts that are not joined."""
    out = tmp_path_factory.mktemp("parts")
    for part in PARTS:
        assert run(source, out, "--part", part) == 0
    return out


@pytest.fixture
def out(parts: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(parts, tmp_path / "out"))


def test_a_join_equals_one_process(source: Path, out: Path, whole: dict[str, bytes], capsys) -> None:
    assert not (out / "metadata" / "music_solo_train.txt").exists()
    for _ in range(2):  # a second join changes nothing
        assert run(source, out, "--join") == 0
        assert files(out) == whole
    assert "run the same command" not in capsys.readouterr().out
    assert json.loads(whole["metadata/report.json"])["reasons"] == {"no video": 3, "too short": 1}


def test_parts_in_folders_of_their_own(source: Path, tmp_path: Path, whole: dict[str, bytes], parts: Path) -> None:
    """Copying the folders together makes one of them; no file is in two."""
    for part in PARTS[:2]:
        assert run(source, tmp_path / part[0], "--part", part) == 0
    assert not set(files(tmp_path / "1")) & set(files(tmp_path / "2"))
    third = {path for path in parts.rglob("*") if "3-of-3" in path.name or VIDEOS[2] in path.name}
    for path in third:
        target = tmp_path / "1" / path.relative_to(parts)
        shutil.copy(path, target)
    shutil.copytree(tmp_path / "2", tmp_path / "1", dirs_exist_ok=True)
    assert run(source, tmp_path / "1", "--join") == 0
    assert files(tmp_path / "1") == whole


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
def test_three_at_once_and_one_killed(source: Path, tmp_path: Path, whole: dict[str, bytes]) -> None:
    out = tmp_path / "out"
    script = [sys.executable, str(EXAMPLES / "prepare_music.py"), *options(source, out)]
    processes = [
        subprocess.Popen([*script, "--part", part], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ)
        for part in PARTS
    ]
    while processes[1].poll() is None and not list((out / "audio").glob(f"{LONG}*")):
        pass
    processes[1].kill()
    for process, status in zip(processes, (0, -9, 0), strict=True):
        _, said = process.communicate(timeout=60)
        assert process.returncode == status, said
    assert run(source, out, "--part", PARTS[1]) == 0
    assert run(source, out, "--join") == 0
    for name, content in files(out).items():
        # Sounds of a video that is decoded in two runs differ by less than a sample.
        assert content == whole[name] or LONG in name
    assert set(files(out)) == set(whole)


def refused(source: Path, out: Path, caplog: pytest.LogCaptureFixture, *more: str) -> str:
    before = files(out)
    caplog.clear()
    assert run(source, out, *more) == 2
    assert files(out) == before
    return caplog.text


def test_missing_and_unfinished_parts(source: Path, tmp_path: Path, out: Path, caplog) -> None:
    assert "but there are none. Run the same command with --part" in refused(source, tmp_path / "x", caplog, "--join")
    records = out / "metadata" / "parts"
    (records / "1-of-3.json").unlink()
    record = json.loads((records / "3-of-3.json").read_text())
    (records / "3-of-3.json").write_text(json.dumps(record | {"finished": False}))
    text = refused(source, out, caplog, "--join")
    assert "finished records of all 3 parts, but these are missing or not finished: 1/3, 3/3" in text


def test_parts_of_other_settings(source: Path, tmp_path: Path, out: Path, caplog) -> None:
    said = refused(source, out, caplog, "--part", "2/3", "--frame-side", "20")
    assert "the same --frame-side, but part 2/3 had 256 and this run has 20" in said
    assert "the same --silence, but part 1/3 had -60.0" in refused(source, out, caplog, "--join", "--silence=-70")
    other = Path(shutil.copytree(source, tmp_path / "source"))
    (other / "lists" / "music_solo_test.csv").write_text(f"{LONG}_000_00000,cello\n")
    assert "the same music_solo_test.csv, but part 1/3 had" in refused(other, out, caplog, "--join")
    (other / "lists" / "music_solo_test.csv").unlink()
    assert 'music_solo_test.csv, but part 1/3 had "' in refused(other, out, caplog, "--join")
    record = out / "metadata" / "parts" / "2-of-3.json"
    record.write_text(record.read_text().replace('"MUSIC"', '"VGGSound"'))
    assert 'the same data, but part 2/3 had "VGGSound"' in refused(source, out, caplog, "--join")


def test_parts_of_another_number(source: Path, out: Path, caplog) -> None:
    assert "but there are parts of 3 and of 4, such as 1/3, 2/4" in refused(source, out, caplog, "--part", "2/4")
    records = out / "metadata" / "parts"
    shutil.copy(records / "1-of-3.json", records / "1-of-2.json")
    assert "but there are parts of 2 and of 3, such as 1/2, 1/3" in refused(source, out, caplog, "--join")


def test_wrong_clips_and_missing_files(source: Path, out: Path, caplog) -> None:
    path = out / "metadata" / "parts" / "1-of-3.json"
    record = json.loads(path.read_text())
    first = record["prepared"][0]
    path.write_text(json.dumps(record | {"prepared": record["prepared"][1:]}))
    assert f"of part 1/3, but it lacks a clip, {first}" in refused(source, out, caplog, "--join")
    path.write_text(json.dumps(record | {"prepared": [f"{LONG}_000_00000", *record["prepared"]]}))
    assert f"but it holds a clip of another part, {LONG}_000_00000" in refused(source, out, caplog, "--join")
    path.write_text(json.dumps(record))
    (out / "audio" / f"{first}.wav").unlink()
    assert f"but 1 are missing, first {first}.wav" in refused(source, out, caplog, "--join")


def test_only_own_temporary_files_are_deleted(source: Path, out: Path) -> None:
    own, other = (out / "frames" / f".{video}_000_00000.77.partial.jpg" for video in VIDEOS[:2])
    own.touch()
    other.touch()
    assert run(source, out, "--part", "1/3") == 0
    assert not own.exists()
    assert other.exists()


def test_locks(source: Path, out: Path, caplog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "LOOKING", 0)
    with FileLock(out / ".preparing-2-of-3.lock"):
        assert "by .preparing-2-of-3.lock" in refused(source, out, caplog, "--part", "2/3")
        assert "by .preparing-2-of-3.lock" in refused(source, out, caplog, "--join")
        assert "Another process is preparing" in refused(source, out, caplog)
        assert run(source, out, "--part", "1/3") == 0
    with FileLock(out / ".preparing.lock"):
        assert "by .preparing.lock" in refused(source, out, caplog, "--part", "1/3")


def test_still_clips_of_parts(tmp_path: Path, media: Media, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = media.frame
    monkeypatch.setattr(media, "frame", lambda _: frame(0))
    for video in VIDEOS[:2]:
        media.write(tmp_path / "videos" / f"{video}_000030.mp4", 10, 10)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "vggsound.csv").write_text("".join(f"{video},30,flute,train\n" for video in VIDEOS[:2]))
    for more in (*[("--part", part) for part in (*PARTS, *PARTS)], ("--join",)):  # an empty part, and every part twice
        assert main(options(tmp_path, tmp_path / "out", *more), dataset=VGGSOUND) == 0
    report = json.loads((tmp_path / "out" / "metadata" / "report.json").read_text())
    assert report["still"] == sorted(f"{video}_000030" for video in VIDEOS[:2])


def test_every_clip_is_in_one_part_with_its_video() -> None:
    clips = [f"{video:011d}_{n:03d}_{30 * n:05d}" for video in range(300) for n in (1, 2)] + ["10000255784", "d0"]
    numbers = {clip: [n for n in range(1, 9) if Part(n, 8).holds(clip)] for clip in clips}
    assert all(len(found) == 1 for found in numbers.values())
    assert all(numbers[clips[i]] == numbers[clips[i + 1]] for i in range(0, 600, 2))
    shares = [sum(found == [n] for found in numbers.values()) for n in range(1, 9)]
    assert min(shares) > 40
    assert numbers["d0"] == [4]  # the same on every machine, and in later versions


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "1", "1/3/3", "a/b", "-1/3", " 1/3"])
def test_wrong_parts(source: Path, tmp_path: Path, text: str, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(source, tmp_path, f"--part={text}")
    assert f"Expected `--part` to be one of 1/N to N/N, such as 3/8, but got {text!r}" in capsys.readouterr().err


def test_part_and_join_exclude_each_other(source: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(source, tmp_path, "--part", "1/3", "--join")
