"""The test scenes of a folder."""

from __future__ import annotations

import torch
from avsl.evaluation.held_out import HeldOutScenes
from avsl.evaluation.score import box_masks


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
