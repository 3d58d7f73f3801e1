"""Test clips that were trained on."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from avsl.data.overlap import overlap_note

METADATA = os.environ.get("SSLOSSES_METADATA")
needs_metadata = pytest.mark.skipif(METADATA is None, reason="SSLOSSES_METADATA is not set")
TRAINED = ["E7E1kMExVcg_053_01611", "zpWuikVorYg_000032", "own"]


@pytest.mark.parametrize(
    "tested", [[], ["____________123_45678", "abcdefghijk_000032", "other"], ["E7E1kMExVc-_053_01611"]]
)
def test_none(tested: list[str]) -> None:
    assert overlap_note(TRAINED, tested, "duet") == ""


def test_clips_and_videos() -> None:
    tested = ["zpWuikVorYg_000099", "own", "E7E1kMExVcg_053_01611", "own", "a", "E7E1kMExVcg_000032"]
    assert overlap_note(TRAINED, tested, "duet") == (
        "2 of 5 test clips of duet are also training clips, and 2 more are of the same videos as training clips "
        "(first: own, E7E1kMExVcg_053_01611, zpWuikVorYg_000099). The metrics are not those of unseen scenes."
    )


@needs_metadata
def test_public_lists_of_music() -> None:
    def names(part: str) -> list[str]:
        files = (Path(METADATA or "", f"music_{subset}_{part}") for subset in ("solo", "duet"))
        return [line.split(",")[0] for file in files for line in file.read_text().split()]

    assert overlap_note(names("train.txt"), names("test.csv"), "both") == ""


@needs_metadata
def test_a_public_list_of_vggsound_holds_test_clips() -> None:
    lists = (Path(METADATA or "", name) for name in ("lists/stoneMo+SLAVC/vggss_144k.txt", "vggsound_single_test.csv"))
    trained, tested = (re.findall(r"[\w-]{11}_\d{6}", path.read_text()) for path in lists)
    assert overlap_note(trained, tested, "single").startswith("3,709 of 5,158 test clips")
