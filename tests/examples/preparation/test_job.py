"""The preparation commands, from videos to a folder for training."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from avsl.commands.prepare import MUSIC, VGGSOUND, main
from avsl.data.music import MusicFolder
from avsl.data.scenes import Scenes
from avsl.preparation import job, worker
from filelock import FileLock
from PIL import Image
from rich.console import Console

if TYPE_CHECKING:
    from conftest import Media

EXAMPLES = Path(job.__file__).parents[2]
SOLO, DUET, SILENT, LOST = "solo-video_", "duet_video-", "silentvideo", "lost-video-"


def names(video: str, *numbers: int) -> list[str]:
    return [f"{video}_{number // 10:03d}_{number:05d}" for number in numbers]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory, media: Media) -> Path:
    """videos/ and lists/ in the shape of MUSIC."""
    root = tmp_path_factory.mktemp("music")
    media.write(root / "videos" / "solo" / "flute" / f"{SOLO}.mp4", 6, 10)
    media.write(root / "videos" / "duet" / f"{DUET}.webm", 6, 10, codecs=("libvpx-vp9", "libopus"))
    media.write(root / "videos" / "solo" / f"{SILENT}.mp4", 4, 10, level=0)
    lists = root / "lists"
    lists.mkdir()
    lines = {
        "music_solo_train.txt": [f"{name},flute" for name in names(SOLO, 0, 2, 21) + names(SILENT, 3)],
        "music_solo_test.csv": [f"{name},flute" for name in names(SOLO, 35) + names(LOST, 0, 2)],
        "music_duet_train.txt": [f"{name},flute,cello" for name in names(DUET, 0, 12, 300)],
        "music_duet_test.csv": names(DUET, 40),
    }
    for name, content in lines.items():
        (lists / name).write_text("\n".join(content))
    box = [0.1, 0.1, 0.5, 0.5]
    solo = [{"file": name, "class": "flute", "bbox": box} for name in names(SOLO, 35) + names(LOST, 0, 2)]
    both = {"class_src1": "flute", "bbox_src1": box, "class_src2": "cello", "bbox_src2": box}
    (lists / "music_solo.json").write_text(json.dumps(solo))
    (lists / "music_duet.json").write_text(json.dumps([{"file": names(DUET, 40)[0], **both}]))
    return root


def arguments(source: Path, out: Path, *more: str, workers: int = 0) -> list[str]:
    places = {"--videos": source / "videos", "--lists": source / "lists", "--out": out, "--workers": workers}
    return [str(part) for pair in places.items() for part in pair] + list(more)


def state(root: Path) -> dict[str, int]:
    """Files and times that a second run must not change."""
    return {str(path): path.stat().st_mtime_ns for name in ("frames", "audio") for path in (root / name).iterdir()}


def test_music(
    source: Path, tmp_path: Path, media: Media, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    assert main(arguments(source, out), dataset=MUSIC) == 0
    shown = capsys.readouterr().out
    assert "files have no listed id" not in shown
    assert "0 of 1 test clips of music_solo_test.csv are also training clips, and 1 more are of the same" in caplog.text
    metadata = out / "metadata"
    prepared = names(SOLO, 0, 2, 21, 35) + names(DUET, 0, 12, 40)
    assert sorted(path.stem for path in (out / "frames").iterdir()) == sorted(prepared)
    assert sorted(path.stem for path in (out / "audio").iterdir()) == sorted(prepared)
    for name in prepared:
        assert media.number(out / "frames" / f"{name}.jpg") == int(name[-5:])
    kept = [f"{name},flute" for name in names(SOLO, 0, 2, 21)]
    assert (metadata / "music_solo_train.txt").read_text().split() == kept
    assert (metadata / "music_duet.json").read_bytes() == (source / "lists" / "music_duet.json").read_bytes()

    report = json.loads((metadata / "report.json").read_text())
    assert report["lists"]["music_solo_test.csv"] == {"listed": 3, "prepared": 1}
    assert report["lists"]["music_duet_test.csv"] == {"listed": 1, "prepared": 1}
    assert report["reasons"] == {"no video": 2, "silent": 1, "too short": 1}
    assert report["missing_videos"] == [LOST]
    assert report["unusable"][names(DUET, 300)[0]]["reason"] == "too short"
    assert "Incomplete: music_solo_test.csv. Metrics on part" in shown
    assert "33.3" in shown
    assert f"python examples/generate_captions.py --model NAME --data-root {out}" in shown
    assert f"python examples/train_music.py --data-root {out}" in shown

    folder = MusicFolder(out)
    for subset, training in (("solo", 3), ("duet", 2)):
        clips = [line.split(",")[0] for line in folder.listed(f"music_{subset}_train.txt").read_text().split()]
        clips += [clip.name for clip in folder.test_scenes(subset).clips]
        scenes = Scenes(folder.root, clips, 224)
        assert len(scenes) == training + 1
        assert scenes[0].frame.shape == (3, 224, 224)
        assert scenes[0].waveform.abs().max() > 0.05


def test_files_and_clips_to_know_about(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Files that no list names, and test clips that are in the training list, too."""
    copy = tmp_path / "source"
    (copy / "videos").mkdir(parents=True)
    (copy / "videos" / f"{SOLO}.mp4").symlink_to(source / "videos" / "solo" / "flute" / f"{SOLO}.mp4")
    for name in ("my duet.mp4", "b.mkv", "c.mov", "d.avi"):
        (copy / "videos" / name).touch()
    (copy / "lists").mkdir()
    clips = names(SOLO, 0, 2)
    (copy / "lists" / "music_solo_train.txt").write_text("".join(f"{name},flute\n" for name in clips))
    (copy / "lists" / "music_solo_test.csv").write_text(f"{clips[1]},flute\n")
    assert main(arguments(copy, tmp_path / "out"), dataset=MUSIC) == 0
    said = "4 files have no listed id in their names and are not used, first b.mkv, c.mov, d.avi"
    assert said in capsys.readouterr().out
    assert "1 of 1 test clips of music_solo_test.csv are also training clips, and 0 more are" in caplog.text


def test_again(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    assert main(arguments(source, out), dataset=MUSIC) == 0
    before, report = state(out), (out / "metadata" / "report.json").read_bytes()
    (gone,) = names(SOLO, 21)
    (out / "audio" / f"{gone}.wav").unlink()
    (out / "frames" / ".x.123.partial.jpg").touch()  # as a killed process leaves it
    asked = []
    prepare = worker.prepare
    monkeypatch.setattr(worker, "prepare", lambda job: asked.extend(job.names) or prepare(job))
    assert main(arguments(source, out), dataset=MUSIC) == 0
    assert sorted(asked) == sorted([gone, *names(DUET, 300), *names(SILENT, 3)])
    after = state(out)
    assert {path for path in before if before[path] != after.get(path)} == {
        str(out / "audio" / f"{gone}.wav"),
        str(out / "frames" / f"{gone}.jpg"),
    }
    assert set(after) == set(before)
    assert (out / "metadata" / "report.json").read_bytes() == report


def test_more_videos_later(source: Path, tmp_path: Path) -> None:
    out, part = tmp_path / "out", tmp_path / "part"
    shutil.copytree(source, part)
    (part / "videos" / "duet" / f"{DUET}.webm").unlink()
    assert main(arguments(part, out), dataset=MUSIC) == 0
    assert not (out / "metadata" / "music_duet_test.csv").exists()
    assert main(arguments(source, out), dataset=MUSIC) == 0
    assert (out / "metadata" / "music_duet_test.csv").read_text().split() == names(DUET, 40)
    assert main(arguments(part, out), dataset=MUSIC) == 0  # prepared clips are kept, even if the video is gone
    assert (out / "metadata" / "music_duet_test.csv").read_text().split() == names(DUET, 40)


def at_20_hz(*numbers: int) -> list[str]:
    return [f"{SOLO}_{number // 20:03d}_{number:05d}" for number in numbers]


@pytest.fixture
def slower(tmp_path: Path, media: Media) -> Path:
    """A video at 10 Hz whose ids count frames at 20 Hz, as the later ids tell."""
    media.write(tmp_path / "videos" / f"{SOLO}.mp4", 9, 10)
    (tmp_path / "lists").mkdir()
    list_clips(tmp_path, at_20_hz(7, 75, 139))
    return tmp_path


def list_clips(source: Path, clips: list[str]) -> None:
    (source / "lists" / "music_solo_train.txt").write_text("".join(f"{name},flute\n" for name in clips))


@pytest.mark.parametrize("listed", [(7, 75, 139), (7, 75), (7,)])
def test_a_clip_of_a_later_run_is_that_of_the_first(slower: Path, media: Media, listed: tuple[int, ...]) -> None:
    out, (first, *_) = slower / "out", at_20_hz(7)
    assert main(arguments(slower, out), dataset=MUSIC) == 0
    frame, sound = out / "frames" / f"{first}.jpg", out / "audio" / f"{first}.wav"
    assert media.number(frame) == 3  # at 0.35 s
    before = frame.read_bytes(), sound.read_bytes()
    frame.unlink()
    list_clips(slower, at_20_hz(*listed))
    assert main(arguments(slower, out), dataset=MUSIC) == 0
    assert (frame.read_bytes(), sound.read_bytes()) == before
    assert json.loads((out / "metadata" / "frame_rates.json").read_text()) == {SOLO: 20.0}


@pytest.mark.parametrize("between", [(), (75, 139)])
def test_clips_whose_rate_turns_out_wrong_are_made_again(
    slower: Path, media: Media, between: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    out, (first, *_) = slower / "out", at_20_hz(7)
    list_clips(slower, [first])  # which fits the rate of the file too
    assert main(arguments(slower, out), dataset=MUSIC) == 0
    assert media.number(out / "frames" / f"{first}.jpg") == 7
    if between:
        list_clips(slower, at_20_hz(*between))
        assert main(arguments(slower, out), dataset=MUSIC) == 0
    list_clips(slower, at_20_hz(7, 75, 139))
    assert main(arguments(slower, out), dataset=MUSIC) == 0
    assert [media.number(out / "frames" / f"{name}.jpg") for name in at_20_hz(7, 75, 139)] == [3, 37, 69]
    assert "other frame rates than before: 1 clips are deleted, and made again if listed" in caplog.text


def test_a_shorter_list_changes_no_rate_where_no_rate_fits_all_ids(slower: Path) -> None:
    out, clips = slower / "out", [*at_20_hz(7, 75), f"{SOLO}_001_00060"]
    list_clips(slower, clips)
    assert main(arguments(slower, out), dataset=MUSIC) == 0
    before = {path: path.read_bytes() for path in out.glob("frames/*")}
    (out / "frames" / f"{clips[-1]}.jpg").unlink()
    list_clips(slower, clips[-1:])
    assert main(arguments(slower, out), dataset=MUSIC) == 0
    assert {path: path.read_bytes() for path in out.glob("frames/*")} == before


def test_clips_without_a_kept_rate_are_told(slower: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = slower / "out"
    assert main(arguments(slower, out), dataset=MUSIC) == 0
    assert "no frame rate" not in caplog.text
    (out / "metadata" / "frame_rates.json").unlink()
    (out / "frames" / f"{at_20_hz(75)[0]}.jpg").unlink()
    assert main(arguments(slower, out), dataset=MUSIC) == 0
    assert "2 prepared clips have no frame rate in frame_rates.json, so they may show other moments" in caplog.text


def test_a_complete_folder_without_kept_rates_is_told(slower: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert main(arguments(slower, slower / "out"), dataset=MUSIC) == 0
    (slower / "out" / "metadata" / "frame_rates.json").unlink()
    assert main(arguments(slower, slower / "out"), dataset=MUSIC) == 0
    assert "3 prepared clips have no frame rate" in caplog.text


@pytest.mark.parametrize("content", ["[]", '{"a": "x"}', '{"a": 0}', "{"])
def test_malformed_rates(slower: Path, content: str, caplog: pytest.LogCaptureFixture) -> None:
    (slower / "out" / "metadata").mkdir(parents=True)
    (slower / "out" / "metadata" / "frame_rates.json").write_text(content)
    assert main(arguments(slower, slower / "out"), dataset=MUSIC) == 2
    assert "frame_rates.json to " in caplog.text


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
@pytest.mark.parametrize("folder", ["frames", "audio"])
def test_a_damaged_file_is_made_again(
    source: Path, tmp_path: Path, folder: str, share: float, caplog: pytest.LogCaptureFixture
) -> None:
    out, (name,) = tmp_path / "out", names(SOLO, 21)
    assert main(arguments(source, out), dataset=MUSIC) == 0
    (path,) = (out / folder).glob(f"{name}.*")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert main(arguments(source, out), dataset=MUSIC) == 0
    assert path.read_bytes() == whole
    assert "1 clips have a damaged frame or sound and are made again" in caplog.text


@pytest.mark.slow
def test_a_folder_whose_name_is_not_utf8(source: Path, tmp_path: Path) -> None:
    out = tmp_path / os.fsdecode(b"x\xff")
    script = [sys.executable, str(EXAMPLES / "prepare_music.py"), *arguments(source, out)]
    strict = os.environ | {"PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(script, capture_output=True, env=strict, check=False)
    assert done.returncode == 0, done.stderr
    assert len(state(out)) == 14
    assert rb"x\udcff/metadata/report.json lists every clip that was left out" in done.stdout


def test_vggsound(tmp_path: Path, media: Media, capsys: pytest.CaptureFixture[str]) -> None:
    videos, lists, out = (tmp_path / name for name in ("videos", "lists", "out"))
    media.write(videos / "train" / "aaaaaaaaaaa_000100.mp4", 10, 10)
    media.write(videos / "bbbbbbbbbbb.mkv", 20, 10)
    lists.mkdir()
    (lists / "vggsound.csv").write_text('aaaaaaaaaaa,100,"a, b",train\nddddddddddd,1,x,train\nbbbbbbbbbbb,8,c d,test\n')
    (lists / "vggsound_single_test.csv").write_text("bbbbbbbbbbb_000008,c_d\nccccccccccc_000001,e\n")
    (lists / "vggsound_duet_test.csv").write_text("bbbbbbbbbbb_000008,c_d,ccccccccccc_000001,e\n")
    (lists / "vggss.json").write_text("[]")
    assert main(arguments(tmp_path, out), dataset=VGGSOUND) == 0
    assert media.number(out / "frames" / "aaaaaaaaaaa_000100.jpg") == 50
    assert media.number(out / "frames" / "bbbbbbbbbbb_000008.jpg") == 130
    metadata = out / "metadata"
    assert sorted(path.name for path in metadata.iterdir()) == [
        "report.json",
        "vggsound_single_test.csv",
        "vggsound_train.csv",
        "vggss.json",
    ]
    assert (metadata / "vggsound_train.csv").read_text() == "aaaaaaaaaaa_000100,a_b\n"
    assert (metadata / "vggsound_single_test.csv").read_text() == "bbbbbbbbbbb_000008,c_d\n"
    assert "python examples/train_vggsound.py --data-root" in capsys.readouterr().out


def test_nothing_usable(source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "videos").mkdir()
    shutil.copytree(source / "lists", tmp_path / "lists")
    assert main(arguments(tmp_path, tmp_path / "out"), dataset=MUSIC) == 2
    assert "No clip could be prepared" in caplog.text
    assert len(json.loads((tmp_path / "out" / "metadata" / "report.json").read_text())["unusable"]) == 11


@pytest.mark.parametrize(
    ("missing", "text"),
    [("videos", "Expected `--videos` to be a folder"), ("lists", "Expected `--lists` to be a folder")],
)
def test_missing_folders(source: Path, tmp_path: Path, missing: str, text: str, caplog) -> None:
    part = tmp_path / "part"
    shutil.copytree(source, part)
    shutil.rmtree(part / missing)
    assert main(arguments(part, tmp_path / "out"), dataset=MUSIC) == 2
    assert text in caplog.text


def test_two_at_once(source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with FileLock(tmp_path / ".preparing.lock"):
        assert main(arguments(source, tmp_path), dataset=MUSIC) == 2
    assert f"Another process is preparing {tmp_path}" in caplog.text
    assert not (tmp_path / "frames").exists()


@pytest.mark.parametrize("option", ["--workers=-1", "--frame-side=0", "--silence=nan", "--nonsense"])
def test_wrong_options(source: Path, tmp_path: Path, option: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*arguments(source, tmp_path / "out"), option], dataset=MUSIC)


def test_interrupted(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    caplog.set_level("INFO")
    prepare = worker.prepare

    def interrupted(job):
        if SOLO in job.path.name:
            return prepare(job)
        raise KeyboardInterrupt

    out = tmp_path / "out"
    monkeypatch.setattr(worker, "prepare", interrupted)
    assert main(arguments(source, out), dataset=MUSIC) == 130
    assert "Run the same command again to resume" in caplog.text
    monkeypatch.setattr(worker, "prepare", prepare)
    assert main(arguments(source, out), dataset=MUSIC) == 0
    assert len(state(out)) == 14


@pytest.mark.slow
def test_worker_processes_and_a_crash(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder crashes its process on one of the videos."""
    (tmp_path / "crashing.py").write_text(
        "import os\nfrom avsl.preparation.worker import prepare as real\n\n"
        f"def prepare(job):\n    return os.abort() if {DUET!r} in job.path.name else real(job)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from crashing import prepare

    monkeypatch.setattr(worker, "prepare", prepare)
    out = tmp_path / "out"
    assert main(arguments(source, out, workers=2), dataset=MUSIC) == 0
    report = json.loads((out / "metadata" / "report.json").read_text())
    assert report["reasons"] == {"decoder crashed": 4, "no video": 2, "silent": 1}
    assert report["unusable"][names(DUET, 40)[0]] == {"reason": "decoder crashed", "detail": "SIGABRT"}
    assert len(state(out)) == 8


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_killed(source: Path, tmp_path: Path, media: Media, number: int, code: int) -> None:
    """Stopped in the middle of a video, the script leaves no incomplete file, and the same command resumes."""
    part, out = tmp_path / "part", tmp_path / "out"
    shutil.copytree(source, part)
    # Long enough that the signal finds it at work, whatever else the machine does.
    media.write(part / "videos" / "solo" / "flute" / f"{SOLO}.mp4", 20, 10)
    clips = names(SOLO, *range(200))
    (part / "lists" / "music_solo_train.txt").write_text("\n".join(f"{name},flute" for name in clips))
    script = [sys.executable, str(EXAMPLES / "prepare_music.py"), *arguments(part, out, workers=1)]
    process = subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ)
    while process.poll() is None and not any((out / "audio").glob("[!.]*")):
        pass
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert ("Run the same command again to resume" in said) == (code == 130)
    assert main(arguments(part, out), dataset=MUSIC) == 0
    assert len((out / "metadata" / "music_solo_train.txt").read_text().split()) == 200
    for path in (out / "frames").iterdir():
        with Image.open(path) as image:
            image.load()
    assert all(path.stat().st_size == 96_044 for path in (out / "audio").iterdir())
    assert not list(out.rglob("*.partial*"))


def test_the_next_commands_can_be_pasted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "my [old] folder"
    job.print_next_steps(Console(), MUSIC, out, {})
    shown = capsys.readouterr().out
    assert f"python examples/train_music.py --data-root '{out}'" in shown
    assert "my [old] folder/metadata/report.json" in shown


def test_still_clips_and_unlisted_videos_are_told_in_every_run(
    tmp_path: Path, media: Media, monkeypatch, capsys
) -> None:
    frame = media.frame
    monkeypatch.setattr(media, "frame", lambda _: frame(0))
    media.write(tmp_path / "videos" / f"{SOLO}_000030.mp4", 10, 10)
    monkeypatch.setattr(media, "frame", frame)
    media.write(tmp_path / "videos" / f"{SILENT}_000000.mp4", 10, 10)
    (tmp_path / "videos" / "my [own] clip.mp4").touch()
    (tmp_path / "lists").mkdir()
    rows = f'{SOLO},30,"playing flute",train\n{SILENT},0,"playing flute",train\n'
    (tmp_path / "lists" / "vggsound.csv").write_text(rows)
    for _ in range(2):  # the second run makes no clip
        assert main(arguments(tmp_path, tmp_path / "out"), dataset=VGGSOUND) == 0
        report = json.loads((tmp_path / "out" / "metadata" / "report.json").read_text())
        assert report["still"] == [f"{SOLO}_000030"]
        shown = " ".join(capsys.readouterr().out.split())
        assert "1 files have no listed id in their names and are not used, first my [own] clip.mp4" in shown
        assert f"Still pictures: 1 of the prepared clips, such as {SOLO}_000030" in shown
