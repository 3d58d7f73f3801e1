"""The preparation of Flickr-SoundNet, from archives of every layout to a folder for training and evaluation."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from avsl.commands.prepare_flickr import main
from avsl.data.flickr import ANY_CLASS, FlickrFolder
from avsl.data.scenes import Scenes
from avsl.preparation import flickr, pairs
from filelock import FileLock
from PIL import Image

EXAMPLES = Path(flickr.__file__).parents[2]
TRAINED, TESTED = ("10000255784", "10000422513"), ("10000130166", "10007936344")
RATE = 22_050
BOX = "<bbox><xmin>{}</xmin><ymin>0</ymin><xmax>256</xmax><ymax>128</ymax></bbox>"


def picture(path: Path, shade: int, size: tuple[int, int] = (64, 64)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 0, 255 - shade)).save(path)
    return path


def sound(path: Path, frequency: float, *, seconds: float = 9.0, level: float = 0.2) -> Path:
    """The center 3 s, or all of a shorter sound, have ``frequency``; before and after is another tone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(round(seconds * RATE)) / RATE
    center = abs(times - seconds / 2) < 1.6
    soundfile.write(path, level * np.sin(2 * np.pi * np.where(center, frequency, 3000) * times), RATE)
    return path


def boxes(folder: Path, clip: str, content: str | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    both = f"<annotation>{BOX.format(0)}{BOX.format(128)}</annotation>"
    (folder / f"{clip}.xml").write_text(both if content is None else content)


def side_by_side(root: Path, clip: str) -> tuple[Path, Path]:
    return root / "Data" / clip[-1] / f"{clip}.jpg", root / "Data" / clip[-1] / f"{clip}.wav"


def apart(root: Path, clip: str) -> tuple[Path, Path]:
    return root / "Test" / "frames" / f"{clip}.jpg", root / "Test" / "audio" / f"{clip}.flac"


def one_folder(root: Path, clip: str) -> tuple[Path, Path]:
    return root / clip / "frame.jpg", root / clip / "sound.ogg"


def soundnet(root: Path, clip: str) -> tuple[Path, Path]:
    nested = Path(*clip[-8:])
    return root / "frames" / "videos" / nested / f"{clip}.mp4" / "2.jpg", root / "mp3" / nested / f"{clip}.mp3"


LAYOUTS = {
    "side by side": side_by_side,
    "frames and audio": apart,
    "folder per clip": one_folder,
    "SoundNet": soundnet,
}


def fill(root: Path, layout: Callable[[Path, str], tuple[Path, Path]] = side_by_side) -> Path:
    """An archive of both training and both test clips, whose n-th sound is a tone of 400 + 100 n Hz, and two lists."""
    for number, clip in enumerate((*TRAINED, *TESTED)):
        frame, audio = layout(root, clip)
        picture(frame, 60 * number)
        sound(audio, 400 + 100 * number)
    for clip in TESTED:
        boxes(root / "Annotations", clip)
    (root.parent / "train.txt").write_text("".join(f"{clip}\n" for clip in TRAINED))
    (root.parent / "test.csv").write_text("".join(f"{clip},202\n" for clip in TESTED))
    return root


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return fill(tmp_path / "archive")


def arguments(archive: Path, *more: str, workers: int = 0) -> list[str]:
    places = {
        "--archive": archive,
        "--train-list": archive.parent / "train.txt",
        "--test-list": archive.parent / "test.csv",
        "--out": archive.parent / "out",
        "--workers": workers,
    }
    return [str(part) for pair in places.items() for part in pair] + list(more)


def frequency(path: Path) -> float:
    samples, rate = soundfile.read(path)
    assert (rate, samples.shape) == (16_000, (48_000,))
    return float(np.abs(np.fft.rfft(samples)).argmax()) / 3


def report(out: Path) -> dict:
    return json.loads((out / "metadata" / "report.json").read_text())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path: Path, layout: str, capsys: pytest.CaptureFixture[str]) -> None:
    archive, out = fill(tmp_path / "archive", LAYOUTS[layout]), tmp_path / "out"
    # Files that are none of the listed clips' own.
    for other in ("99999999999", TESTED[0]):
        picture(archive / "Test" / "extend_frames" / f"{other}.jpg", 250)
        if layout != "SoundNet":  # where sounds may be in any folder
            sound(archive / "Test" / "an_audio" / f"{other}.flac", 2000)
        picture(archive / "Data" / "9" / f"._{other}.jpg", 250)
    assert main(arguments(archive)) == 0
    shown = capsys.readouterr().out
    assert f"4 listed clips, layout: {layout}" in shown
    for number, clip in enumerate((*TRAINED, *TESTED)):
        assert (out / "frames" / f"{clip}.jpg").read_bytes() == LAYOUTS[layout](archive, clip)[0].read_bytes()
        assert frequency(out / "audio" / f"{clip}.wav") == pytest.approx(400 + 100 * number, abs=1)
    metadata = out / "metadata"
    assert (metadata / "flickr_train.txt").read_text().split() == list(TRAINED)
    assert (metadata / "flickr_single_test.csv").read_text().split() == list(TESTED)
    assert report(out)["lists"]["flickr_single_test.csv"] == {"listed": 2, "prepared": 2}
    assert report(out)["unusable"] == {}
    assert f"python examples/train_flickr.py --data-root {out}" in shown
    assert "flickr_train.txt is no public list" in shown


def test_the_folder_can_be_read(archive: Path) -> None:
    out = archive.parent / "out"
    assert main(arguments(archive)) == 0
    folder = FlickrFolder(out)
    clips, size = folder.training_pool("single", captions=False)
    assert ([(clip.name, clip.classes) for clip in clips], size) == ([(name, ANY_CLASS) for name in TRAINED], 1)
    test = folder.test_scenes("single")
    assert [clip.name for clip in test.clips] == list(TESTED)
    assert test.scenes == [(0,), (1,)]
    assert test.boxes[0] == (((0, 0, 1, 0.5), (0.5, 0, 1, 0.5)),)
    scenes = Scenes(out, TESTED, 32)
    assert scenes[1].frame[0].float().mean() == pytest.approx(180, abs=3)


@pytest.mark.parametrize(("count", "shown"), [(1, 1), (3, 2), (4, 2), (11, 6)])
def test_the_middle_picture_counts(tmp_path: Path, count: int, shown: int) -> None:
    archive = fill(tmp_path / "archive", soundnet)
    folder = soundnet(archive, TESTED[0])[0].parent
    (folder / "2.jpg").unlink()
    made = [picture(folder / f"{number}.jpg", 20 * number) for number in range(1, count + 1)]
    assert main(arguments(archive)) == 0
    frame = archive.parent / "out" / "frames" / f"{TESTED[0]}.jpg"
    assert frame.read_bytes() == made[shown - 1].read_bytes()


def test_pictures_that_are_large_or_no_jpeg(archive: Path) -> None:
    large, _ = side_by_side(archive, TESTED[0])
    picture(large, 0, size=(600, 300))
    other, _ = side_by_side(archive, TESTED[1])
    other.unlink()
    picture(other.with_suffix(".png"), 0)
    assert main(arguments(archive, "--frame-side", "100")) == 0
    for clip, size in zip(TESTED, ((200, 100), (64, 64)), strict=True):
        with Image.open(archive.parent / "out" / "frames" / f"{clip}.jpg") as image:
            assert (image.format, image.size) == ("JPEG", size)


def test_a_short_sound_is_repeated(archive: Path) -> None:
    sound(side_by_side(archive, TESTED[0])[1], 700, seconds=1)
    assert main(arguments(archive)) == 0
    samples, _ = soundfile.read(archive.parent / "out" / "audio" / f"{TESTED[0]}.wav")
    assert len(samples) == 48_000
    np.testing.assert_allclose(samples[:16_000], samples[16_000:32_000])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


@pytest.mark.parametrize(
    ("damage", "reason", "detail"),
    [
        (lambda frame, _: cut(frame), "cannot be decoded", "to be a picture"),
        (lambda frame, _: frame.write_text("no picture"), "cannot be decoded", "to be a picture"),
        (lambda _, audio: cut(audio), "cannot be decoded", "cut off after 6.0 s"),
        (lambda _, audio: audio.write_text("no sound"), "cannot be decoded", "Invalid data"),
        (lambda _, audio: sound(audio, 400, seconds=0), "cannot be decoded", "no sample"),
        (lambda _, audio: sound(audio, 400, level=0), "silent", "-inf dBFS"),
        (lambda _, audio: soundfile.write(audio, np.full(99_999, np.nan), RATE, "FLOAT"), "sound is not finite", "NaN"),
        (lambda _, audio: audio.unlink(), "no sound", ""),
        (lambda frame, _: frame.unlink(), "no frame", ""),
        (lambda frame, audio: (frame.unlink(), audio.unlink()), "not in an archive", ""),
        (lambda _, audio: audio.rename(audio.parents[1] / audio.name), "frame and sound in different layouts", ""),
    ],
)
def test_broken_files_are_counted_and_named(archive: Path, damage: Callable, reason: str, detail: str) -> None:
    damage(*side_by_side(archive, TESTED[0]))
    assert main(arguments(archive)) == 0
    found = report(archive.parent / "out")
    assert found["lists"]["flickr_single_test.csv"] == {"listed": 2, "prepared": 1}
    assert found["reasons"] == {reason: 1}
    assert found["unusable"][TESTED[0]]["reason"] == reason
    assert detail in found["unusable"][TESTED[0]]["detail"]


def test_a_cut_off_flac(tmp_path: Path) -> None:
    archive = fill(tmp_path / "archive", apart)
    cut(apart(archive, TESTED[0])[1])
    assert main(arguments(archive)) == 0
    assert "cut off after" in report(tmp_path / "out")["unusable"][TESTED[0]]["detail"]


def test_a_wav_of_unknown_length(archive: Path) -> None:
    audio = side_by_side(archive, TESTED[0])[1]
    content = bytearray(audio.read_bytes())
    content[4:8] = content[40:44] = b"\xff" * 4  # as a program writes it whose output is a pipe
    audio.write_bytes(content)
    assert main(arguments(archive)) == 0
    assert report(archive.parent / "out")["unusable"] == {}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("<annotation><bbox>", "boxes cannot be read"),
        ("<annotation/>", "no boxes"),
        (f"<annotation>{BOX.format(256)}</annotation>", "no boxes"),
        (None, "no boxes"),
    ],
)
def test_a_test_clip_without_boxes(archive: Path, content: str | None, reason: str) -> None:
    out, path = archive.parent / "out", archive / "Annotations" / f"{TESTED[0]}.xml"
    path.unlink()
    if content is not None:
        path.write_text(content)
    # A training clip needs no boxes.
    (archive.parent / "train.txt").write_text(f"{TESTED[0]}\n")
    assert main(arguments(archive)) == 0
    assert report(out)["reasons"] == {reason: 1}
    assert str(path) in report(out)["unusable"][TESTED[0]]["detail"]
    assert (out / "metadata" / "flickr_train.txt").read_text().split() == [TESTED[0]]
    assert (out / "metadata" / "flickr_single_test.csv").read_text().split() == [TESTED[1]]
    assert [file.stem for file in (out / "metadata" / "flickr_boxes").iterdir()] == [TESTED[1]]


def test_two_archives_and_another_folder_of_boxes(tmp_path: Path) -> None:
    """The test clips are in one archive, the training clips in another; both have one clip, and the first counts."""
    archive, other = fill(tmp_path / "archive"), fill(tmp_path / "other", soundnet)
    for clip in TRAINED:
        for path in side_by_side(archive, clip):
            path.unlink()
    sound(soundnet(other, TESTED[0])[1], 1234)
    (archive / "Annotations").rename(tmp_path / "boxes")
    shutil.rmtree(other / "Annotations")
    line = arguments(archive, "--annotations", str(tmp_path / "boxes"))
    line.insert(2, str(other))
    assert main(line) == 0
    assert len(list((tmp_path / "out" / "frames").iterdir())) == 4
    assert frequency(tmp_path / "out" / "audio" / f"{TESTED[0]}.wav") == pytest.approx(600, abs=1)


def test_public_lists(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By default the test set is flickr-250, and training clips are not needed; an earlier list of them is kept."""
    out = archive.parent / "out"
    assert main(arguments(archive)) == 0
    capsys.readouterr()
    assert main(["--archive", str(archive), "--out", str(out), "--workers", "0"]) == 0
    shown = capsys.readouterr().out
    assert "flickr_single_test.csv is flickr-250" in shown
    assert "Incomplete: flickr_single_test.csv" in shown
    assert "train_flickr.py" not in shown
    assert report(out)["lists"] == {"flickr_single_test.csv": {"listed": 250, "prepared": 2}}
    assert report(out)["reasons"] == {"no boxes": 248}
    assert (out / "metadata" / "flickr_train.txt").read_text().split() == list(TRAINED)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--test-list", "flickr-251"), "`--test-list` to be a file or one of .*flickr-249, flickr-250"),
        (("--test-list", "flickr-10k"), "`--test-list` to be a file or one of .* but got 'flickr-10k'"),
        (("--train-list", "missing.txt"), "Expected `--train-list` to be a file"),
        (("--annotations", "missing"), "Expected `--annotations` to be a folder"),
        (("--archive", "missing"), "Expected `--archive` to be a folder"),
    ],
)
def test_wrong_places(archive: Path, more: tuple[str, str], message: str, caplog: pytest.LogCaptureFixture) -> None:
    assert main(arguments(archive, *more)) == 2
    assert re.search(message, caplog.text)


def test_no_annotations(archive: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.rmtree(archive / "Annotations")
    assert main(arguments(archive)) == 2
    assert "Expected `--annotations` to name the folder of the test clips' XML files" in caplog.text


def test_an_unknown_layout(archive: Path, caplog: pytest.LogCaptureFixture) -> None:
    (archive / "pictures").mkdir()
    for path in archive.glob("Data/*/*.jpg"):
        path.rename(archive / "pictures" / path.name)
    assert main(arguments(archive)) == 2
    for text in (
        "Expected `--archive` to hold some of the 4 listed clips in one of these layouts",
        "frames/<id>.jpg and audio/<id>.wav (frames and audio)",
        f"But {archive} holds 4 pictures such as pictures/{TESTED[0]}.jpg, 4 sounds such as Data/",
        "4 listed clips have a picture and 4 have a sound",
    ):
        assert text in caplog.text


@pytest.mark.parametrize("option", ["--workers=-1", "--frame-side=0", "--silence=nan", "--nonsense"])
def test_wrong_options(archive: Path, option: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments(archive, option))


def test_two_at_once(archive: Path, caplog: pytest.LogCaptureFixture) -> None:
    (archive.parent / "out").mkdir()
    with FileLock(archive.parent / "out" / ".preparing.lock"):
        assert main(arguments(archive)) == 2
    assert "Another process is preparing" in caplog.text


def test_nothing_usable(archive: Path, caplog: pytest.LogCaptureFixture) -> None:
    for clip in (*TRAINED, *TESTED):
        side_by_side(archive, clip)[1].write_text("no sound")
    assert main(arguments(archive)) == 2
    assert "No clip could be prepared" in caplog.text


def test_interrupted(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same command resumes: clips that are whole are not made again, others are."""
    out, asked, prepare = archive.parent / "out", [], pairs.prepare

    def interrupted(job: pairs.PairJob) -> list:
        asked.append(job.name)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return prepare(job)

    monkeypatch.setattr(pairs, "prepare", interrupted)
    assert main(arguments(archive)) == 130
    (out / "frames" / ".x.123.partial.jpg").touch()  # as a killed process leaves it
    assert main(arguments(archive)) == 0
    assert asked == [TRAINED[0], TRAINED[1], *TRAINED[1:], *TESTED]
    cut(out / "frames" / f"{TESTED[1]}.jpg")
    assert main(arguments(archive)) == 0
    assert asked[5:] == [TESTED[1]]
    assert sorted(path.stem for path in (out / "frames").iterdir()) == sorted((*TRAINED, *TESTED))


@pytest.mark.slow
def test_killed(archive: Path) -> None:
    """Killed at work, the script leaves no incomplete file, and the same command resumes."""
    out = archive.parent / "out"
    clips = [str(20_000_000_000 + number) for number in range(150)]
    for clip in clips:
        for source, target in zip(side_by_side(archive, TRAINED[0]), side_by_side(archive, clip), strict=True):
            target.parent.mkdir(exist_ok=True)
            os.link(source, target)
    (archive.parent / "train.txt").write_text("\n".join(clips))
    script = [sys.executable, str(EXAMPLES / "prepare_flickr.py"), *arguments(archive, workers=1)]
    process = subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while process.poll() is None and not any((out / "audio").glob("[!.]*")):
        pass
    process.send_signal(signal.SIGKILL)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, said
    assert main(arguments(archive)) == 0
    assert report(out)["unusable"] == {}
    assert len((out / "metadata" / "flickr_train.txt").read_text().split()) == 150
    assert not list(out.rglob("*.partial*"))


def test_parts(archive: Path) -> None:
    """Some of five parts have none of the four clips."""
    out = archive.parent / "out"
    (archive / "Annotations" / f"{TESTED[0]}.xml").unlink()
    side_by_side(archive, TRAINED[0])[1].unlink()
    assert main(arguments(archive)) == 0
    made = [
        {p: p.read_bytes() for p in out.rglob("*.*") if p.is_file() and "parts" not in p.parts and p.name[0] != "."}
    ]
    assert report(out)["reasons"] == {"no boxes": 1, "no sound": 1}
    shutil.rmtree(out)
    for more in (*[("--part", f"{number}/5") for number in range(1, 6)], ("--join",)):
        main(arguments(archive, *more))
    made += [{p: p.read_bytes() for p in made[0]}]
    assert made[0] == made[1]
