"""Which clips are frames of one video."""

import os
from collections import Counter
from pathlib import Path

import pytest

from sslosses.annotations import read_music_duet, read_music_solo, read_vggsound_mixtures, read_vggss, video_of

METADATA = os.environ.get("SSLOSSES_METADATA")
real = pytest.mark.skipif(not METADATA, reason="SSLOSSES_METADATA names no folder of public lists")


@pytest.mark.parametrize(
    ("clip", "data_set", "video"),
    [
        ("HnUOaSfTA6c_000_00007", "music", "HnUOaSfTA6c"),
        ("-_-TDDxoaAc_000_00000", "music", "-_-TDDxoaAc"),
        ("____________123_45678", "music", "___________"),
        ("abcdefg_123_000_00000", "music", "abcdefg_123"),
        ("zpWuikVorYg_000032", "vggsound", "zpWuikVorYg"),
        ("abcdefg_123_000032", "vggsound", "abcdefg_123"),
        ("a_000030+b_c_000031", "vggsound", "a+b_c"),
        ("3908875350", "flickr", "3908875350"),
        ("a_000_00000", "flickr", "a_000_00000"),
        # Other forms
        ("clip", "music", "clip"),
        ("clip_007", "music", "clip_007"),
        ("_000032", "vggsound", "_000032"),
        ("a_\u0663", "vggsound", "a_\u0663"),
    ],
)
def test_videos_by_form(clip, data_set, video):
    assert video_of(clip, data_set) == video


def test_other_data_sets():
    with pytest.raises(ValueError, match="Expected `data_set` to be one of 'music', 'vggsound', 'flickr', but got 'x'"):
        video_of("a", "x")


def sizes(annotations, data_set):
    """Number of clips of each video, largest first."""
    return sorted(Counter(video_of(record.clip, data_set) for record in annotations).values(), reverse=True)


@real
def test_almost_all_duets_are_of_one_video_and_almost_all_solos_of_seven():
    duets = sizes(read_music_duet(Path(METADATA, "music_duet.json")), "music")
    assert (sum(duets), len(duets), duets[0]) == (1020, 6, 1008)
    solos = sizes(read_music_solo(Path(METADATA, "music_solo.json")), "music")
    assert (sum(solos), len(solos)) == (2124, 20)
    assert round(100 * sum(solos[:7]) / 2124, 1) == 98.6
    assert round(1 / sum((n / 2124) ** 2 for n in solos), 1) == 6.8


@real
def test_clips_of_vggss_are_almost_all_of_their_own_video():
    clips = sizes(read_vggss(Path(METADATA, "vggss.json")), "vggsound")
    assert (sum(clips), len(clips), clips[0]) == (5158, 5017, 2)
    mixtures = read_vggsound_mixtures(Path(METADATA, "vggsound_duet_test.csv"), Path(METADATA, "vggss.json"))
    assert len(sizes(mixtures, "vggsound")) > 5000
