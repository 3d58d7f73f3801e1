"""Composed scenes with recorded instruments: from the command line to files, made once and from one font."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import soundfile
from avsl.commands.train import _default_name, main, parse_arguments
from avsl.config import Config
from avsl.data.composed import dataset
from avsl.data.composed.dataset import Description, ensure_composed
from avsl.data.composed.soundfont import FontFile
from avsl.training.data_location import DataLocation, open_data

from ..soundfonts import sine, whole_soundfont


@pytest.fixture(scope="module")
def font(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fonts") / "sines.sf2"
    path.write_bytes(whole_soundfont())
    return path


def described(font: Path | None) -> Description:
    return Description(seed=3, train=2, test=2, side=48, soundfont=FontFile.of(font) if font else None)


@pytest.fixture(scope="module")
def whole(font: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Composed by worker processes."""
    return ensure_composed(tmp_path_factory.mktemp("whole"), described(font))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.usefixtures("serial")
def test_only_the_sounds_differ_from_drawn_scenes(whole: Path, tmp_path: Path) -> None:
    drawn = ensure_composed(tmp_path, described(None))
    assert (whole.name, drawn.name) == ("soundfont-seed3-2-2", "drawn-seed3-2-2")
    ours, others = contents(whole), contents(drawn)
    assert ours.keys() == others.keys()
    differing = {name for name in ours if ours[name] != others[name]}
    assert differing == {"dataset.json", *(name for name in ours if name.startswith("audio/"))}
    assert len(differing) == 1 + 8
    for name in differing - {"dataset.json"}:
        sound = soundfile.info(whole / name)
        assert (sound.samplerate, sound.channels, sound.frames) == (16_000, 1, 48_000)


def test_the_description_names_the_font_and_not_its_place(whole: Path, font: Path) -> None:
    recorded = json.loads((whole / "dataset.json").read_text())
    assert recorded["soundfont"] == FontFile.of(font).as_json()
    assert str(font.parent) not in json.dumps(recorded)


def test_the_description_without_a_font_is_that_of_earlier_versions() -> None:
    assert described(None).as_json() == {"format": 2, "seed": 3, "train": 2, "test": 2, "side": 48, "media": None}


@pytest.mark.usefixtures("serial")
def test_resumes_with_the_same_font_only(
    whole: Path, font: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(dataset, "captions", stop)
        with pytest.raises(KeyboardInterrupt):
            ensure_composed(tmp_path, described(font))
    assert len(list((tmp_path / f".{whole.name}.partial" / "audio").iterdir())) == 1
    other = tmp_path / font.name
    other.write_bytes(whole_soundfont(sine(99)))
    with pytest.raises(ValueError, match=r"\.partial to hold .*'soundfont'.* Move it away"):
        ensure_composed(tmp_path, described(other))
    assert contents(ensure_composed(tmp_path, described(font))) == contents(whole)


@pytest.mark.usefixtures("serial")
def test_damaged_sounds_are_made_again(whole: Path, font: Path, tmp_path: Path) -> None:
    folder = tmp_path / whole.name
    shutil.copytree(whole, folder)
    next((folder / "audio").iterdir()).write_bytes(b"half")
    assert contents(ensure_composed(tmp_path, described(font))) == contents(whole)


def test_another_font_is_refused_and_a_moved_one_is_not(whole: Path, font: Path, tmp_path: Path) -> None:
    moved = tmp_path / font.name
    shutil.copyfile(font, moved)
    assert ensure_composed(whole.parent, described(moved)) == whole
    moved.write_bytes(whole_soundfont(sine(99)))
    with pytest.raises(ValueError, match=r"'soundfont': .*, but it holds .*'soundfont': .* Move it away"):
        ensure_composed(whole.parent, described(moved))


@pytest.mark.parametrize("content", [None, b"no font", whole_soundfont()[:2000]])
def test_an_unusable_font_ends_the_command_before_it_makes_anything(
    tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "font.sf2"
    if content is not None:
        path.write_bytes(content)
    folders = [str(tmp_path / name) for name in ("data", "runs")]
    line = ["--quick", "--soundfont", str(path), "--data", folders[0], "--runs", folders[1]]
    assert main(line) == 2
    assert "`--soundfont` to be a SoundFont 2 file, but" in caplog.text
    assert str(path) in caplog.text
    assert not any(Path(folder).exists() for folder in folders)


def test_a_missing_program_ends_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, font: Path) -> None:
    copy = tmp_path / "font.sf2"  # sources are cached by their path
    shutil.copyfile(font, copy)
    monkeypatch.setattr("avsl.data.composed.recorded.PROGRAMS", {"cello": 127})
    with pytest.raises(ValueError, match=r"lacks notes of 127 \(cello\)"):
        ensure_composed(tmp_path / "data", described(copy))
    assert not (tmp_path / "data").exists()


@pytest.mark.usefixtures("serial")
def test_the_location_leads_to_the_font(font: Path, tmp_path: Path) -> None:
    config = Config(data_seed=3, train_scenes=1, test_scenes=1)
    folder = open_data(DataLocation(tmp_path, soundfont=font), config)
    assert folder.root.name == "soundfont-seed3-1-1"
    assert json.loads((folder.root / "dataset.json").read_text())["soundfont"]["name"] == font.name


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("", "composed-seed0"),
        ("--soundfont x", "soundfont-seed0"),
        ("--soundfont x --quick", "soundfont-quick-seed0"),
        ("--soundfont x --config composed other.yaml", "soundfont-other-seed0"),
        ("--media x", "media-seed0"),
        ("--data-root x/MUSIC", "MUSIC-music-seed0"),
    ],
)
def test_the_name_of_the_run(line: str, name: str) -> None:
    assert _default_name(parse_arguments(line.split()), Config(seed=0)) == name


def test_the_path_is_absolute() -> None:
    assert parse_arguments(["--soundfont", "x.sf2"]).soundfont == Path.cwd() / "x.sf2"
