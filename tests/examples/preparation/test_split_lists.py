"""The public lists, complete and restricted to prepared clips."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from avsl.preparation.split_lists import Line, read_music, read_vggsound

from sslosses.annotations import read_music_split, read_vggsound_mixtures, read_vggss

METADATA = os.environ.get("SSLOSSES_METADATA")
needs_metadata = pytest.mark.skipif(METADATA is None, reason="SSLOSSES_METADATA is not set")

A, B, C = "aaaaaaaaaaa_001_00030", "bbbbbbbbbbb_000_00000", "ccccccccccc_002_00050"


def test_music(tmp_path: Path) -> None:
    (tmp_path / "music_duet_test.csv").write_text(f"{A}\n{B}")
    (tmp_path / "music_duet_train.txt").write_text(f"{A},cello,flute\r\n\r\n {C}, cello , flute\r\n")
    train, test = read_music(tmp_path)
    assert (train.name, train.test, test.name, test.test) == (
        "music_duet_train.txt",
        False,
        "music_duet_test.csv",
        True,
    )
    assert train.lines == (Line(f"{A},cello,flute", (A,)), Line(f"{C},cello,flute", (C,)))
    assert test.lines == (Line(A, (A,)), Line(B, (B,)))


def test_vggsound(tmp_path: Path) -> None:
    (tmp_path / "vggsound.csv").write_text(
        "# YouTube ID, start seconds, label, train/test split.\n"
        'aaaaaaaaaaa,7,"female speech, woman speaking",train\n'
        "bbbbbbbbbbb,30,police car (siren),test\n"
        "ccccccccccc,130,horse clip-clop,train\n"
    )
    (tmp_path / "vggsound_duet_test.csv").write_text("bbbbbbbbbbb_000030,b,aaaaaaaaaaa_000007,a\n")
    duet, train = read_vggsound(tmp_path)
    assert duet.lines == (
        Line("bbbbbbbbbbb_000030,b,aaaaaaaaaaa_000007,a", ("bbbbbbbbbbb_000030", "aaaaaaaaaaa_000007")),
    )
    assert (train.name, train.test) == ("vggsound_train.csv", False)
    assert [line.text for line in train.lines] == [
        "aaaaaaaaaaa_000007,female_speech_woman_speaking",
        "ccccccccccc_000130,horse_clip-clop",
    ]


def test_restricted(tmp_path: Path) -> None:
    (tmp_path / "vggsound_duet_test.csv").write_text(
        "aaaaaaaaaaa_000001,a,bbbbbbbbbbb_000002,b\nbbbbbbbbbbb_000002,b,aaaaaaaaaaa_000001,a\n"
    )
    (tmp_path / "vggsound_single_test.csv").write_text("aaaaaaaaaaa_000001,a\nbbbbbbbbbbb_000002,b\n")
    single, duet = read_vggsound(tmp_path)
    out = tmp_path / "out"
    everything = {"aaaaaaaaaaa_000001", "bbbbbbbbbbb_000002"}
    assert (single.write(out, everything), duet.write(out, everything)) == (2, 2)
    assert (out / single.name).read_text() == (tmp_path / single.name).read_text()
    first = {"aaaaaaaaaaa_000001"}
    assert (single.write(out, first), duet.write(out, first)) == (1, 0)  # a mixture needs all of its clips
    assert (out / single.name).read_text() == "aaaaaaaaaaa_000001,a\n"
    assert not (out / duet.name).exists()  # readers refuse an empty list


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        (
            "music_solo_train.txt",
            f"{A},cello\na,cello\n",
            r"music_solo_train\.txt, line 2: Expected `name` to be an id",
        ),
        ("music_solo_test.csv", "aaaaaaaaaaa_000001,a\n", r"an id of MUSIC in line 1 of .*music_solo_test\.csv"),
        ("vggsound_single_test.csv", f"{A},cello\n", r"an id of VGGSound in line 1 of .*vggsound_single_test\.csv"),
        ("vggsound.csv", "aaaaaaaaaaa,1,a, b,train\n", r"'video,start second,class,train\|test' in line 1 of"),
        ("vggsound.csv", "aaaaaaaaaaa,1.5,a,train\n", r"'video,start second,class,train\|test' in line 1 of"),
        ("vggsound.csv", "aaaaaaaaaaa,1,a,valid\n", r"'video,start second,class,train\|test' in line 1 of"),
        ("music_solo_train.txt", "", r"Expected .*music_solo_train\.txt to list clips, but it lists none"),
        ("music_solo_train.txt", "# none\n\n", r"to list clips, but it lists none"),
        ("music_solo_train.txt", f"{A},cello\n{B},cello\n{A},cello\n", f"each clip .* once, but {A} is there several"),
        ("vggsound.csv", "aaaaaaaaaaa,1,a,train\n" * 2, r"once, but aaaaaaaaaaa_000001 is there several times"),
        ("vggsound.csv", "aa,1,a,train\n", r"vggsound\.csv, line 1: Expected `name` to be an id"),
    ],
)
def test_malformed_lines(tmp_path: Path, name: str, text: str, match: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=match):
        (read_music if name.startswith("music") else read_vggsound)(tmp_path)


def test_the_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "music_solo_train.txt").write_bytes(f"{A},cello\n{B},viol".encode() + b"\xe9n\n")
    with pytest.raises(ValueError, match=r"music_solo_train\.txt to be lines of text in UTF-8, but line 2 is not"):
        read_music(tmp_path)


def test_empty_fields_at_the_end_of_a_line_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "music_duet_train.txt").write_text(f"{A},cello,flute,\n{B},cello,flute, ,\n")
    assert [line.text for line in read_music(tmp_path)[0].lines] == [f"{A},cello,flute", f"{B},cello,flute"]


@pytest.mark.parametrize("read", [read_music, read_vggsound])
def test_no_list(tmp_path: Path, read) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"Expected `--lists` to be a folder with one or more of .*_test\.csv.*links\.md"
    ):
        read(tmp_path)


@pytest.mark.slow
@needs_metadata
def test_public_lists(tmp_path: Path) -> None:
    folder = Path(METADATA or "")
    music = {each.name: each for each in read_music(folder)}
    assert {name: len(each.lines) for name, each in music.items()} == {
        "music_solo_train.txt": 44_532,
        "music_solo_test.csv": 2_124,
        "music_duet_train.txt": 48_348,
        "music_duet_test.csv": 1_020,
    }
    vggsound = read_vggsound(folder)
    assert {each.name: len(each.lines) for each in vggsound} == {
        "vggsound_single_test.csv": 5_158,
        "vggsound_duet_test.csv": 5_158,
    }
    for each in (*music.values(), *vggsound):
        each.write(tmp_path, {clip for line in each.lines for clip in line.clips})
    for name in music:
        assert read_music_split(tmp_path / name) == read_music_split(folder / name)
    duet = "vggsound_duet_test.csv"
    boxes = folder / "vggss.json"
    assert list(read_vggsound_mixtures(tmp_path / duet, boxes)) == list(read_vggsound_mixtures(folder / duet, boxes))


@needs_metadata
def test_classes_are_spelled_as_in_the_public_test_list(tmp_path: Path) -> None:
    records = read_vggss(Path(METADATA or "", "vggss.json"))
    rows = [f'{each.clip[:11]},{int(each.clip[12:])},"{each.classes[0]}",train' for each in records]
    (tmp_path / "vggsound.csv").write_text("\n".join(rows))
    (train,) = read_vggsound(tmp_path)
    public = Path(METADATA or "", "vggsound_single_test.csv").read_text().split()
    assert {line.text for line in train.lines} == set(public)
