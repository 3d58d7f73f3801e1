"""The composed data set: files in the public formats, composed once."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import soundfile
from avsl.data.composed import dataset
from avsl.data.composed.composer import DrawnSource
from avsl.data.composed.dataset import Description, ensure_composed
from avsl.data.music import MusicFolder
from avsl.data.vggsound import VggsoundFolder
from avsl.files import atomic_write, write_text
from PIL import Image

from sslosses.annotations import read_music_duet, read_music_solo, read_music_split

METADATA = os.environ.get("SSLOSSES_METADATA")
needs_metadata = pytest.mark.skipif(METADATA is None, reason="SSLOSSES_METADATA is not set")

DESCRIPTION = Description(seed=3, train=4, test=3, side=64)
LISTS = ("music_solo_train.txt", "music_solo_test.csv", "music_duet_train.txt", "music_duet_test.csv")
CLIP = re.compile(r"[\w-]{11}_\d{3}_\d{5}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Composed by worker processes without interruption."""
    return ensure_composed(tmp_path_factory.mktemp("whole"), DESCRIPTION)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def clips(folder: Path, part: str = "") -> list[str]:
    return [e.clip for name in LISTS if part in name for e in read_music_split(folder / "metadata" / name)]


def read(folder: Path, name: str):
    return json.loads((folder / "metadata" / name).read_text(encoding="utf-8"))


def test_the_same_scenes_as_vggsound(whole: Path) -> None:
    folder, music = VggsoundFolder(whole), MusicFolder(whole)
    assert folder.training_pool("duet") == (music.training_pool("solo").clips, 2)
    single, (clips, _, boxes) = folder.test_scenes("single"), music.test_scenes("solo")
    assert (single.clips, len(single.scenes)) == (clips, len(boxes))
    for ours, theirs in zip(single.boxes, boxes, strict=True):
        assert ours[0][0] == pytest.approx(theirs[0][0])
    for subset, size in (("duet", 2), ("trio", 3)):
        listed = (whole / "metadata" / f"vggsound_{subset}_test.csv").read_text().split()
        if listed:  # three clips may be of fewer classes
            test = folder.test_scenes(subset)
            assert all(len({test.clips[i].classes for i in scene}) == size for scene in test.scenes)


def test_layout(whole: Path) -> None:
    names = clips(whole)
    assert len(set(names)) == len(names) == 2 * (4 + 3)
    assert sorted(p.name for p in whole.parent.iterdir()) == sorted([whole.name, f".{whole.name}.lock"])
    metadata = (*LISTS, "music_solo.json", "music_duet.json", "silent_objects.json", "captions.jsonl")
    metadata += ("vggsound_train.csv", *(f"vggsound_{s}_test.csv" for s in ("single", "duet", "trio")), "vggss.json")
    assert set(contents(whole)) == {
        "dataset.json",
        *(f"metadata/{name}" for name in metadata),
        *(f"frames/{clip}.jpg" for clip in names),
        *(f"audio/{clip}.wav" for clip in names),
    }


def test_frames_and_sounds(whole: Path) -> None:
    for clip in clips(whole):
        with Image.open(whole / "frames" / f"{clip}.jpg") as image:
            image.load()
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 64))
        sound = soundfile.info(whole / "audio" / f"{clip}.wav")
        form = (sound.format, sound.subtype, sound.samplerate, sound.channels, sound.frames)
        assert form == ("WAV", "PCM_16", 16_000, 1, 48_000)
    assert len({content for name, content in contents(whole).items() if name.startswith(("frames", "audio"))}) == 28


def test_the_readers_take_the_lists_and_boxes(whole: Path) -> None:
    metadata = whole / "metadata"
    known = set(DrawnSource.vocabulary.sounding)
    for subset, boxes in (
        ("solo", read_music_solo(metadata / "music_solo.json", on_invalid="error")),
        ("duet", read_music_duet(metadata / "music_duet.json", on_invalid="error")),
    ):
        listed = read_music_split(metadata / f"music_{subset}_test.csv")
        assert [entry.clip for entry in listed] == [record.clip for record in boxes]
        for entry in listed:
            assert set(boxes[entry.clip].classes) <= known
            assert entry.classes in ((), boxes[entry.clip].classes)
            assert all(0 <= v <= 1 for source in boxes[entry.clip].boxes for box in source for v in box)
        training = read_music_split(metadata / f"music_{subset}_train.txt")
        assert len(training) == 4
        assert all(set(e.classes) <= known and len(set(e.classes)) == len(e.classes) for e in training)


@needs_metadata
@pytest.mark.parametrize("name", LISTS)
def test_lists_have_the_lines_of_the_public_ones(whole: Path, name: str) -> None:
    ours, public = ((folder / name).read_text().splitlines() for folder in (whole / "metadata", Path(METADATA)))
    fields = {len(line.split(",")) for line in public}
    assert len(fields) == 1
    assert {len(line.split(",")) for line in ours} == fields
    assert all(CLIP.fullmatch(line.split(",")[0]) for line in (*ours, *public[:100]))
    assert not any(" " in line for line in ours)


@needs_metadata
@pytest.mark.parametrize("name", ["music_solo.json", "music_duet.json"])
def test_boxes_have_the_form_of_the_public_ones(whole: Path, name: str) -> None:
    def form(value: object) -> object:
        return [type(v) for v in value] if isinstance(value, list) else type(value)

    ours, public = read(whole, name), json.loads((Path(METADATA) / name).read_text())
    assert type(ours) is type(public) is list
    wanted = {key: form(value) for key, value in public[0].items()}
    for entry in ours:
        assert {key: form(value) for key, value in entry.items()} == wanted
    assert list(ours[0]) == list(public[0])


def test_captions(whole: Path) -> None:
    lines = [json.loads(line) for line in (whole / "metadata" / "captions.jsonl").read_text().splitlines()]
    assert sorted(line["id"] for line in lines) == sorted(clips(whole))
    by_clip = {line["id"]: line for line in lines}
    assert all(list(line) == ["id", "foreground", "background"] for line in lines)
    for entry in (e for name in LISTS for e in read_music_split(whole / "metadata" / name) if e.classes):
        foreground = by_clip[entry.clip]["foreground"]
        assert len(foreground) == len(entry.classes)
        for caption, name in zip(foreground, entry.classes, strict=True):
            assert caption == f"an image of a person playing the {name.replace('_', ' ')}"
        assert by_clip[entry.clip]["background"].startswith("an image of a ")
        assert "playing" not in by_clip[entry.clip]["background"]


def test_silent_objects(whole: Path) -> None:
    listed = read(whole, "silent_objects.json")
    assert sorted(listed) == sorted(clips(whole, "test"))
    vocabulary = DrawnSource.vocabulary
    for objects in listed.values():
        assert objects
        for entry in objects:
            assert set(entry) == {"class", "bbox"}
            assert entry["class"] in vocabulary.sounding | vocabulary.silent
            x, y, w, h = entry["bbox"]
            assert 0 <= x < x + w <= 1
            assert 0 <= y < y + h <= 1


def test_a_second_call_does_nothing(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def times() -> dict[Path, int]:
        return {p: p.stat().st_mtime_ns for p in (whole, *whole.rglob("*"))}

    before = times()
    monkeypatch.setattr(dataset, "pool", None)
    assert ensure_composed(whole.parent, DESCRIPTION) == whole
    assert times() == before


@pytest.mark.usefixtures("serial")
def test_goes_on_after_an_interruption(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render, calls = dataset.render_audio, []

    def stopping(*arguments):
        calls.append(None)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return render(*arguments)

    monkeypatch.setattr(dataset, "render_audio", stopping)
    with pytest.raises(KeyboardInterrupt):
        ensure_composed(tmp_path, DESCRIPTION)
    (partial,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert partial.name.endswith(".partial")
    done = contents(partial)
    assert len([name for name in done if name.endswith(".jpg")]) == 6
    assert len([name for name in done if name.endswith(".wav")]) == 5
    # A frame and a sound are deleted. A killed process left an incomplete frame under its temporary name.
    next((partial / "frames").glob("*0_000_00000.jpg")).unlink()
    next((partial / "audio").glob("*2_000_00000.wav")).unlink()
    (partial / "frames" / ".emb10000002_000_00000.partial.jpg").write_bytes(b"half")
    kept = partial / "frames" / "emb00000001_000_00000.jpg"
    before = kept.stat().st_mtime_ns
    calls.extend(range(10))
    assert contents(ensure_composed(tmp_path, DESCRIPTION)) == contents(whole)
    assert (tmp_path / whole.name / "frames" / kept.name).stat().st_mtime_ns == before
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([whole.name, f".{whole.name}.lock"])


@pytest.mark.usefixtures("serial")
def test_stopped_before_the_lists_are_written(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(dataset, "_write_metadata", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ensure_composed(tmp_path, DESCRIPTION)
    assert contents(ensure_composed(tmp_path, DESCRIPTION)) == contents(whole)


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.usefixtures("serial")
def test_damaged_files_are_made_again(
    whole: Path, tmp_path: Path, finished: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """As a full disk left them: half a frame, an empty frame, half a sound; and one frame is gone."""
    folder = tmp_path / (whole.name if finished else f".{whole.name}.partial")
    shutil.copytree(whole, folder)
    frames, sounds = sorted((folder / "frames").iterdir()), sorted((folder / "audio").iterdir())
    for path, share in ((frames[0], 0.5), (frames[3], 0.0), (sounds[5], 0.5)):
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
    frames[7].unlink()
    assert contents(ensure_composed(tmp_path, DESCRIPTION)) == contents(whole)
    assert ("Making 4 missing or damaged scenes of" in caplog.text) == finished


@pytest.mark.usefixtures("serial")
def test_temporary_files_that_vanish(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker of a killed run may still move the file that is to be deleted."""
    folder = tmp_path / f".{whole.name}.partial"
    shutil.copytree(whole, folder)
    gone = folder / "frames" / ".a.1.partial.jpg"
    glob = Path.glob
    monkeypatch.setattr(Path, "glob", lambda path, pattern: [*glob(path, pattern), gone])
    assert contents(ensure_composed(tmp_path, DESCRIPTION)) == contents(whole)


@pytest.mark.usefixtures("serial")
def test_another_seed_gives_other_scenes(whole: Path, tmp_path: Path) -> None:
    other = ensure_composed(tmp_path, Description(seed=4, train=1, test=1, side=64))
    for name in ("frames/emb00000000_000_00000.jpg", "audio/emb20000000_000_00000.wav"):
        assert (other / name).read_bytes() != (whole / name).read_bytes()


def test_refuses_a_folder_with_another_description(whole: Path, tmp_path: Path) -> None:
    changed = Description(seed=3, train=4, test=3, side=65)
    with pytest.raises(ValueError, match=r"'side': 65.*but it holds .*'side': 64.* Move it away"):
        ensure_composed(whole.parent, changed)
    partial = tmp_path / f".{whole.name}.partial"
    partial.mkdir()
    (partial / "dataset.json").write_bytes((whole / "dataset.json").read_bytes())
    with pytest.raises(ValueError, match=r"\.partial to hold .* Move it away"):
        ensure_composed(tmp_path, changed)


def test_a_file_is_written_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    write_text(path, "first")

    def fail() -> None:
        with atomic_write(path) as temporary:
            assert temporary.suffix == ".txt"
            temporary.write_text("sec")
            raise OSError("disk full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert {p.name: p.read_text() for p in path.parent.iterdir()} == {"file.txt": "first"}
