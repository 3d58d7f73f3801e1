"""Captions made worse on purpose."""

from __future__ import annotations

import pytest
from avsl.config import QUALITIES
from avsl.data.folders import Clip
from avsl.data.quality import with_quality

CLIPS = [
    *(Clip(f"s{i}", ("air_horn",), (f"solo {i}",), f"room {i}") for i in range(60)),
    *(Clip(f"d{i}", ("cello", "flute"), (f"one {i}", f"two {i}"), f"hall {i}") for i in range(30)),
]


@pytest.mark.parametrize("quality", QUALITIES)
def test_what_stays(quality: str) -> None:
    made = with_quality(CLIPS, quality, 0)
    assert [(c.name, c.classes, len(c.foreground)) for c in made] == [
        (c.name, c.classes, len(c.classes)) for c in CLIPS
    ]
    assert with_quality(CLIPS, quality, 0) == made


def test_share_of_wrong_captions() -> None:
    shares = {}
    for quality in QUALITIES:
        made = with_quality(CLIPS, quality, 0)
        shares[quality] = sum(a.foreground != b.foreground for a, b in zip(made, CLIPS, strict=True)) / len(CLIPS)
    assert shares["true"] == 0
    assert 0.2 < shares["noisy"] < 0.5
    assert shares["class"] == shares["shuffled"] == 1


def test_captions_move_as_a_whole() -> None:
    made = with_quality(CLIPS, "shuffled", 1)
    pairs = {(c.foreground, c.background) for c in CLIPS}
    assert {(c.foreground, c.background) for c in made} == pairs
    assert made != with_quality(CLIPS, "shuffled", 2)


def test_class_names() -> None:
    solo, duet = with_quality([CLIPS[0], CLIPS[-1]], "class", 0)
    assert solo.foreground == ("an image of air horn",)
    assert duet.foreground == ("an image of cello", "an image of flute")
    assert solo.background == duet.background
