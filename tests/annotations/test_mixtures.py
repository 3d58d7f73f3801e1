import json
import os
from pathlib import Path

import pytest

from sslosses.annotations import AnnotationError, MixtureRecord, read_vggsound_mixtures, read_vggss

METADATA = os.environ.get("SSLOSSES_METADATA")
needs_metadata = pytest.mark.skipif(METADATA is None, reason="SSLOSSES_METADATA is not set")

LEFT, RIGHT = [0, 0, 0.5, 1], [0.5, 0, 1, 1]


@pytest.fixture
def vggss(tmp_path):
    path = tmp_path / "vggss.json"
    clips = {
        "a": ("elk bugling", [LEFT]),
        "b": ("female speech, woman speaking", [RIGHT, LEFT]),
        "c": ("playing cello", [LEFT, [1, 0, 1, 1]]),
        "broken": ("elk bugling", [[0.5, 0, -2.9e16, 1]]),
    }
    path.write_text(json.dumps([{"file": f, "class": name, "bbox": boxes} for f, (name, boxes) in clips.items()]))
    return path


def listed(tmp_path, content):
    path = tmp_path / "duet.csv"
    path.write_text(content)
    return path


def test_sources_are_in_position(tmp_path, vggss):
    path = listed(
        tmp_path, "a,elk_bugling,b,female_speech_woman_speaking\n\nb,female_speech_woman_speaking,c,playing_cello"
    )
    mixtures = read_vggsound_mixtures(path, vggss)
    assert [record.clip for record in mixtures] == ["a+b", "b+c"]
    assert mixtures["a+b"] == MixtureRecord(
        "a+b",
        ("elk bugling", "female speech, woman speaking"),
        ((tuple(map(float, LEFT)),), (tuple(map(float, RIGHT)), tuple(map(float, LEFT)))),
        ("a", "b"),
    )
    assert (mixtures.report.entries, mixtures.report.boxes) == (2, 7)
    (invalid,) = mixtures.report.invalid
    assert str(invalid).startswith("entry 1 (b+c), source 1 (c), bbox[1]")
    assert mixtures.report.without_box == ()


def test_trios_and_invalid_boxes(tmp_path, vggss):
    path = listed(
        tmp_path,
        "a,elk_bugling,c,playing_cello,b,female_speech_woman_speaking\nc,playing_cello,"
        "broken,elk_bugling,a,elk_bugling\n",
    )
    kept = read_vggsound_mixtures(path, vggss)
    assert [record.frames for record in kept] == [("a", "c", "b"), ("c", "broken", "a")]
    assert kept.report.without_box == ("c+broken+a",)
    dropped = read_vggsound_mixtures(path, vggss, on_invalid="drop")
    assert [record.clip for record in dropped] == ["a+c+b"]
    assert isinstance(dropped["a+c+b"], MixtureRecord)
    assert [len(boxes) for boxes in dropped["a+c+b"].boxes] == [1, 1, 2]
    with pytest.raises(AnnotationError, match=r"(?s)duet\.csv.*entry 1 \(c\+broken\+a\), source 1 \(broken\)"):
        read_vggsound_mixtures(path, vggss, on_invalid="error")
    with pytest.raises(ValueError, match="'report', 'error', 'drop'"):
        read_vggsound_mixtures(path, vggss, on_invalid="ignore")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("a,elk_bugling,b\n", "line 1: expected 'id1,class1,id2,class2', but got 'a,elk_bugling,b'"),
        ("a,elk_bugling,,x\n", "line 1"),
        ("a,elk_bugling,c,playing_cello\na,elk_bugling\n", "line 2: expected 'id1,class1,id2,class2'"),
        ("a,elk_bugling,z,playing_cello\n", "line 1: expected clips of .*vggss.json, but 'z' is not there"),
        ("a,elk_bugling,c,elk_bugling\n", "line 1: expected 'c' to be 'playing cello' as in .*but got 'elk_bugling'"),
        ("../a,elk_bugling,c,playing_cello\n", "line 1: expected the id to be a clip id without path separators"),
        (
            "a,elk_bugling\n",
            "line 1: expected 'id1,class1,id2,class2', but got 'a,elk_bugling'",
        ),  # a list of single clips
        (2 * "a,elk_bugling,c,playing_cello\n", "line 2: expected each clip once, but 'a.c' is line 1 too"),
    ],
)
def test_malformed_lists(tmp_path, vggss, content, message):
    with pytest.raises(AnnotationError, match=message) as error:
        read_vggsound_mixtures(listed(tmp_path, content), vggss)
    assert "duet.csv" in str(error.value)


def test_not_text_and_no_file(tmp_path, vggss):
    path = tmp_path / "duet.csv"
    with pytest.raises(FileNotFoundError):
        read_vggsound_mixtures(path, vggss)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(AnnotationError, match="UTF-8"):
        read_vggsound_mixtures(path, vggss)
    with pytest.raises(FileNotFoundError):
        read_vggsound_mixtures(path, tmp_path / "none.json")


@needs_metadata
def test_real_list():
    folder = Path(METADATA)
    mixtures = read_vggsound_mixtures(folder / "vggsound_duet_test.csv", folder / "vggss.json")
    single = read_vggss(folder / "vggss.json")
    assert len(mixtures) == 5158
    assert all(len(record.frames) == 2 for record in mixtures)
    assert all(record.boxes == tuple(single[f].boxes[0] for f in record.frames) for record in mixtures)
    unusable = set(single.report.without_box)
    assert {record.clip for record in mixtures if unusable & set(record.frames)} == set(mixtures.report.without_box)
