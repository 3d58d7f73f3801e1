"""Scenes from photographs and recordings in the layout of ``tuxpaint-stamps-default``."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from avsl.data.composed import media
from avsl.data.composed.dataset import Description, ensure_composed
from avsl.data.composed.media import MediaSource
from avsl.data.music import MusicFolder
from PIL import Image

OGG = {"format": "OGG", "subtype": "VORBIS"} if "OGG" in soundfile.available_formats() else {"format": "WAV"}
WHITE = (255, 255, 255)
ANIMALS = ("bee", "cat", "cow", "dog", "frog", "goat", "owl")


def stamp(path: Path, text: str | None, *, size: int = 100, mode: str = "RGBA", seconds: float = 0, rate: int = 44_100):
    """A disc with a margin, and the text and tone of 1 kHz that belong to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    alpha = np.where(np.hypot(x, y) <= size / 2, 255, 0).astype(np.uint8)
    color = np.full((size, size, 3), (200, 60, 30), dtype=np.uint8)
    pixels = np.pad(np.dstack([color, alpha]), ((5, 5), (9, 9), (0, 0)))
    Image.fromarray(pixels, "RGBA").convert(mode).save(path)
    if text is not None:
        path.with_suffix(".txt").write_text(text, encoding="utf-8")
    if seconds:
        tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(round(seconds * rate)) / rate)
        soundfile.write(path.with_suffix(".ogg"), np.stack([tone, tone], axis=1), rate, **OGG)


pytestmark = pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def stamps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stamps")
    for name in ANIMALS:
        stamp(root / "animals" / "farm" / f"{name}.png", f"A {name}.\nfr.utf8=...\n", seconds=0.8)
    stamp(root / "household" / "clock.png", "An alarm clock (old).", seconds=0.01, rate=16_000)
    stamp(root / "food" / "pear.png", "A pear.")
    stamp(root / "plants" / "fern.png", "A fern.", size=70)
    # Left out, for one reason each:
    stamp(root / "animals" / "icon.png", "An icon.", size=80, seconds=0.1)
    stamp(root / "food" / "crumb.png", "A crumb.", size=50)
    stamp(root / "animals" / "opaque.png", "An opaque one.", mode="RGB", seconds=0.1)
    stamp(root / "animals" / "untold.png", None, seconds=0.1)
    stamp(root / "animals" / "loud.png", "Loud!", seconds=0.1)
    stamp(root / "food" / "novel.png", "A text much too long for a caption of one object.")
    stamp(root / "symbols" / "letter.png", "A letter.")
    return root


@pytest.fixture(scope="module")
def source(stamps: Path) -> MediaSource:
    return MediaSource(stamps)


def test_vocabulary(source: MediaSource) -> None:
    assert set(source.vocabulary.sounding) == {*ANIMALS, "clock"}
    assert set(source.vocabulary.silent) == {"pear", "fern"}
    assert all(0.95 < aspect < 1.05 for aspect in source.vocabulary.sounding.values())  # of the disc, without margin


@pytest.mark.parametrize("missing", ["bee", "pear"])
def test_too_few_objects(tmp_path: Path, missing: str) -> None:
    for name in ANIMALS:
        stamp(tmp_path / "animals" / f"{name}.png", f"A {name}.", seconds=0.01)
    stamp(tmp_path / "food" / "pear.png", "A pear.")
    MediaSource(tmp_path)
    next(tmp_path.rglob(f"{missing}.png")).unlink()
    with pytest.raises(FileNotFoundError, match=r"at least 7 sounding objects .name.png with alpha, name.ogg"):
        MediaSource(tmp_path)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has 0 and 0. On Debian: apt-get install tuxpaint-stamps-default"):
        MediaSource(tmp_path / "nowhere")


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "bee.png"
    path.with_suffix(".txt").write_text("A bee.", encoding="utf-8-sig")
    assert media._phrase(path) == "a bee"


def test_phrases(source: MediaSource) -> None:
    assert source.phrase("bee", True) == "a bee making a sound"
    assert source.phrase("bee", False) == "a silent bee"
    assert source.phrase("clock", True) == "an alarm clock making a sound"
    assert source.phrase("clock", False) == "a silent alarm clock"
    assert source.phrase("pear", False) == "a pear"


def painted(source: MediaSource, sounding: bool, seed: int, held_out: bool = False) -> np.ndarray:
    canvas = Image.new("RGB", (100, 100), WHITE)
    source.paint(canvas, "bee", sounding, (0.2, 0.3, 0.5, 0.6), np.random.default_rng(seed), held_out)
    return np.asarray(canvas)


def test_paints_into_the_box(source: MediaSource) -> None:
    for seed in range(4):
        rows, columns = (painted(source, False, seed) != WHITE).any(2).nonzero()
        assert (columns.min(), rows.min()) == (20, 30)
        assert (columns.max(), rows.max()) == (69, 89)
        assert len(rows) < 0.85 * 50 * 60  # the disc, not its square
        waves = (painted(source, True, seed) != painted(source, False, seed)).any(2)
        assert waves[:, :50].sum() > 50
        assert waves[:, 50:].sum() > 50


def test_pictures_depend_on_seed_and_split(source: MediaSource) -> None:
    pictures = [painted(source, True, *how).tobytes() for how in ((0,), (0,), (1,), (0, True))]
    assert pictures[0] == pictures[1]
    assert len(set(pictures)) == 3


@pytest.mark.parametrize("name", ["bee", "clock"])
def test_sounds(source: MediaSource, name: str) -> None:
    """From 44.1 kHz and from a hundredth of a second at 16 kHz."""
    first, again, other = (source.sound(name, np.random.default_rng(seed), False) for seed in (0, 0, 1))
    for sound in (first, other):
        assert (sound.shape, sound.dtype) == ((48_000,), np.float32)
        assert 0.5 < np.abs(sound).max() <= 1
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, source.sound(name, np.random.default_rng(0), True))


def test_sounds_keep_their_pitch(source: MediaSource) -> None:
    power = np.abs(np.fft.rfft(source.sound("bee", np.random.default_rng(0), False)))
    assert abs(power.argmax() / 3 - 1000) < 5


@pytest.mark.usefixtures("serial")
def test_a_dataset_from_media(stamps: Path, tmp_path: Path) -> None:
    description = Description(train=2, test=2, side=48, media=str(stamps))
    folder = MusicFolder(ensure_composed(tmp_path, description))
    for subset, sources in (("solo", 1), ("duet", 2)):
        clips = folder.training_pool(subset).clips
        assert all(len(c.foreground) == sources and "making a sound" in c.foreground[0] for c in clips)
        assert len(folder.test_scenes(subset).scenes) == 2
    with pytest.raises(ValueError, match=r"but it holds .*stamps.* Move it away"):
        ensure_composed(tmp_path, Description(train=2, test=2, side=48, media=str(stamps / "animals")))


@pytest.mark.parametrize("samples", [0, 44_100])
def test_an_object_whose_recording_has_no_sound_is_silent(stamps: Path, tmp_path: Path, samples: int) -> None:
    shutil.copytree(stamps, tmp_path / "stamps")
    soundfile.write(tmp_path / "stamps" / "household" / "clock.ogg", np.zeros(samples), 44_100, **OGG)
    vocabulary = MediaSource(tmp_path / "stamps").vocabulary
    assert "clock" not in vocabulary.sounding
    assert "clock" in vocabulary.silent
