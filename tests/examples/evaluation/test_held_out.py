"""The test scenes of a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from avsl.data.music import MusicFolder
from avsl.evaluation.held_out import HeldOutScenes, load_held_out
from avsl.evaluation.score import box_masks, run_metrics

from .conftest import perfect


def test_loading(held_out: dict[str, HeldOutScenes]) -> None:
    solo, duet = held_out["solo"], held_out["duet"]
    assert (solo.task, solo.num_sources, solo.layout) == ("single", 1, "one")
    assert (duet.task, duet.num_sources, duet.layout) == ("mixtures", 2, "one")
    (left,), (first, right) = box_masks(solo.test.boxes[0]), box_masks(duet.test.boxes[0])
    assert left[:, :84].all()
    assert not left[:, 84:].any()
    assert torch.equal(first, left)
    assert torch.equal(right, left.flip(1))
    assert solo.silent[0].classes == ("cello", "chair")
    assert [int(m.sum()) for m in box_masks([[b] for b in solo.silent[0].boxes])] == [224 * 84, 224 * 56]


@pytest.mark.parametrize(
    ("listed", "share"),
    [
        (1, "1 of 1 scenes of the public list (100 %)"),
        (378, "1 of 378 scenes of the public list (0.3 %): not comparable with metrics on all of them"),
        (5158, "1 of 5,158 scenes of the public list (0.1 %): not comparable with metrics on all of them"),
        (0, "1 scenes"),  # the list was changed since
        ("x", "1 scenes"),
    ],
)
def test_the_share_of_the_public_list(music: Path, listed: object, share: str) -> None:
    report = {"lists": {"music_solo_train.txt": {"listed": 7}, "music_solo_test.csv": {"listed": listed}}}
    (music / "metadata" / "report.json").write_text(json.dumps(report))
    solo, duet = (load_held_out(MusicFolder(music), subset, 32) for subset in ("solo", "duet"))
    assert (solo.share, duet.share) == (share, "1 scenes")
    metrics = run_metrics(solo, perfect(solo))
    assert metrics.get("solo share of the public list") == (100 / listed if solo.listed and solo.listed > 1 else None)
