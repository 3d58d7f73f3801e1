"""The reader of SoundFont 2 files: which recordings sound for a note, and what is said of files that are none."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from avsl.data.composed.recorded import PROGRAMS, RecordedInstruments
from avsl.data.composed.soundfont import FontFile, Setting, SoundFont

from ..soundfonts import INSTRUMENT, KEYS, SAMPLE, VELOCITIES, Recording, sine, soundfont, span, whole_soundfont

START, CUTOFF, ATTENUATION, FINE_TUNE, SCALE_TUNING, ROOT = 0, 8, 48, 52, 56, 58


def opened(path: Path, content: bytes) -> SoundFont:
    (path / "font.sf2").write_bytes(content)
    return SoundFont(path / "font.sf2")


def test_a_program_joins_its_settings_with_those_of_its_instrument(tmp_path: Path) -> None:
    inner = [
        {ATTENUATION: 30, CUTOFF: 9000, ROOT: 50},  # global
        {KEYS: span(0, 60), CUTOFF: 8000, START: 7, SAMPLE: 1},
        {ATTENUATION: 90},  # neither the first nor with a recording: without effect
        {KEYS: span(61, 127), VELOCITIES: span(100, 127), SAMPLE: 0},
    ]
    outer = [
        {ATTENUATION: 100, FINE_TUNE: 5},  # global
        {KEYS: span(40, 70), ATTENUATION: -10, START: 3, ROOT: 9, SCALE_TUNING: -50, INSTRUMENT: 0},
        {VELOCITIES: span(0, 90), INSTRUMENT: 0},
    ]
    first, second, third = opened(tmp_path, soundfont([sine(), sine(50)], [inner], {3: outer})).layers(3)
    assert (first.keys, first.velocities) == ((40, 60), (0, 127))
    assert (second.keys, second.velocities) == ((61, 70), (100, 127))
    assert (third.keys, third.velocities) == ((0, 60), (0, 90))  # the fourth pair has no velocity in common
    names = (Setting.ATTENUATION, Setting.CUTOFF, Setting.FINE_TUNE, Setting.SCALE_TUNING)
    assert [first[name] for name in names] == [20, 8000, 5, 50]  # without a value, 100 is the default
    assert [second[name] for name in names] == [20, 9000, 5, 50]
    assert [third[name] for name in names] == [130, 8000, 5, 100]
    assert (first.start, second.start) == (4000 + 7, 0)  # a program moves neither start nor root
    assert first.root == second.root == 50
    assert [first[name] for name in (Setting.ATTACK, Setting.RELEASE, Setting.SUSTAIN)] == [-12_000, -12_000, 0]


def test_a_layer_has_the_place_and_the_pitch_of_its_recording(tmp_path: Path) -> None:
    ramp = Recording(np.arange(1000, dtype="<i2"), 8000, 40, (100, 900), correction=-25)
    offsets = {0: 2, 1: -3, 2: 4, 3: -5}
    (layer,) = opened(tmp_path, soundfont([sine(), ramp], [[{**offsets, SAMPLE: 1}]], {0: [{INSTRUMENT: 0}]})).layers(0)
    assert (layer.start, layer.end, layer.loop_start, layer.loop_end) == (4002, 4997, 4104, 4895)
    assert layer.rate == 8000
    assert layer.root == 40.25  # a sharp recording is corrected downward
    assert layer.sounds(0, 127)
    samples = SoundFont(tmp_path / "font.sf2").samples(layer.start, layer.start + 3)
    np.testing.assert_allclose(samples, np.array([2, 3, 4]) / 32_768, atol=1e-9)


def test_coarse_offsets_count_blocks(tmp_path: Path) -> None:
    long = Recording(np.zeros(80_000, "<i2"), 44_100, 60)
    settings = {4: 1, 0: 5, 12: -1, 45: 1, 50: 1, SAMPLE: 0}
    (layer,) = opened(tmp_path, soundfont([long], [[settings]], {0: [{INSTRUMENT: 0}]})).layers(0)
    assert (layer.start, layer.end) == (32_773, 80_000 - 32_768)
    assert (layer.loop_start, layer.loop_end) == (32_768, 32_768)


def test_what_is_not_played(tmp_path: Path) -> None:
    instruments = [[{SAMPLE: 0}, {SAMPLE: 1}], [{ATTENUATION: 3}]]
    programs = {0: [{INSTRUMENT: 0}], 1: [{INSTRUMENT: 1}], 2: [{KEYS: span(9, 8), INSTRUMENT: 0}]}
    content = soundfont([sine(), sine(type=0x8001)], instruments, programs)
    font = opened(tmp_path, content)
    assert [len(font.layers(program)) for program in (0, 1, 2, 3)] == [1, 0, 0, 0]  # the other recording is in a ROM
    assert not opened(tmp_path, soundfont([sine()], instruments[:1], {0: [{INSTRUMENT: 0}]}, bank=128)).layers(0)


def test_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.sf2", tmp_path):
        with pytest.raises(FileNotFoundError, match=r"`--soundfont` .*is no file.*apt-get install fluid-soundfont-gm"):
            FontFile.of(path)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"RIFF\x04\0\0\0WAVE", b"no font" * 9, bytes(1000)])
def test_another_file(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError, match=r"`--soundfont` to be a SoundFont 2 .*font.sf2 does not begin as one"):
        opened(tmp_path, content)


def test_compressed_samples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"another version; SoundFont 3, with compressed samples, is not supported"):
        opened(tmp_path, soundfont([sine()], [[{SAMPLE: 0}]], {0: [{INSTRUMENT: 0}]}, version=3))


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.99, 0.999])
def test_a_truncated_file(tmp_path: Path, share: float) -> None:
    content = whole_soundfont()
    with pytest.raises(ValueError, match=r"font.sf2 (is truncated: its part \w+ ends|lacks its part)"):
        opened(tmp_path, content[: int(share * len(content))])


@pytest.mark.parametrize("name", [b"smpl", b"phdr", b"pgen", b"shdr", b"ibag"])
def test_a_missing_part(tmp_path: Path, name: bytes) -> None:
    with pytest.raises(ValueError, match=f"lacks its part {name.decode()}"):
        opened(tmp_path, whole_soundfont().replace(name, b"none"))


def test_damaged_tables(tmp_path: Path) -> None:
    def layers(instruments: list[list[dict[int, int]]], program: list[dict[int, int]], **changes: int) -> None:
        recording = sine()._replace(rate=changes.get("rate", 44_100))
        opened(tmp_path, soundfont([recording], instruments, {0: program})).layers(0)

    layers([[{SAMPLE: 0}]], [{INSTRUMENT: 0}])
    with pytest.raises(ValueError, match="is damaged: its part inst has no valid entry 1"):
        layers([[{SAMPLE: 0}]], [{INSTRUMENT: 1}])
    with pytest.raises(ValueError, match="is damaged: its part inst has no valid entry -2"):
        layers([[{SAMPLE: 0}]], [{INSTRUMENT: -2}])
    with pytest.raises(ValueError, match="is damaged: it has no recording 1"):
        layers([[{SAMPLE: 1}]], [{INSTRUMENT: 0}])
    with pytest.raises(ValueError, match="its recording 0 lies outside of its samples"):
        layers([[{1: 1, SAMPLE: 0}]], [{INSTRUMENT: 0}])
    with pytest.raises(ValueError, match="or has a rate of 0"):
        layers([[{SAMPLE: 0}]], [{INSTRUMENT: 0}], rate=0)
    # Rows of pbag are the first setting and the first modulator of a zone. Here the zone ends before it begins.
    content = soundfont([sine()], [[{SAMPLE: 0}]], {0: [{INSTRUMENT: 0}]})
    rows = content.index(b"pbag") + 8
    with pytest.raises(ValueError, match="its part pbag has no valid entry 0"):
        opened(tmp_path, content[:rows] + b"\x02" + content[rows + 1 :]).layers(0)
    with pytest.raises(ValueError, match="its part pgen is too short"):
        opened(tmp_path, content[: rows + 4] + b"\x03" + content[rows + 5 :]).layers(0)
    content = whole_soundfont()
    at = content.index(b"shdr")
    with pytest.raises(ValueError, match="its part shdr has 91 bytes"):
        opened(tmp_path, content[: at + 4] + (91).to_bytes(4, "little") + content[at + 8 :])


def test_damage_anywhere_is_an_error_that_names_the_option(tmp_path: Path) -> None:
    """Random bytes of all parts but the samples are changed. Some changes are valid files: these can be played."""
    content, rng = whole_soundfont(), np.random.default_rng(0)
    tables = content.index(b"pdta")
    path, refused = tmp_path / "font.sf2", 0
    for _ in range(300):
        changed = bytearray(content)
        changed[int(rng.integers(tables, len(content)))] = int(rng.integers(256))
        path.write_bytes(changed)
        try:
            instruments = RecordedInstruments(path)
            instruments.play("tuba", np.random.default_rng(0))
        except ValueError as error:
            assert "`--soundfont`" in str(error)  # noqa: PT017
            refused += 1
    assert 30 < refused < 300


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    content = whole_soundfont()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "font.sf2").write_bytes(content)
    font = FontFile.of(tmp_path / "a" / "font.sf2")
    recorded = {"name": "font.sf2", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert font.as_json() == FontFile.of(tmp_path / "b" / "font.sf2").as_json() == recorded
    (tmp_path / "b" / "font.sf2").write_bytes(whole_soundfont(sine(99)))
    assert font.as_json() != FontFile.of(tmp_path / "b" / "font.sf2").as_json()


def test_programs_are_in_the_file_that_the_tests_write(tmp_path: Path) -> None:
    font = opened(tmp_path, whole_soundfont())
    assert [len(font.layers(program)) for program in PROGRAMS.values()] == [1] * 8
