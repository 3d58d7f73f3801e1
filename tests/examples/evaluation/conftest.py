"""Test scenes with known boxes, and maps that fit them exactly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from avsl.data.folders import Clip, ListedScenes
from avsl.data.music import MusicFolder
from avsl.data.scenes import Scenes
from avsl.evaluation.held_out import HeldOutScenes, SilentObjects, load_held_out
from avsl.evaluation.predict import Prediction
from avsl.evaluation.score import box_masks

SILENT = {
    "d": [{"class": "cello", "bbox": [0.625, 0.0, 0.375, 1.0]}, {"class": "chair", "bbox": [0.375, 0.0, 0.25, 1.0]}],
    "e": [{"class": "flute", "bbox": [0.0, 0.0, 0.1, 0.1]}],
}


@pytest.fixture
def held_out(music: Path) -> dict[str, HeldOutScenes]:
    (music / "metadata" / "silent_objects.json").write_text(json.dumps(SILENT))
    return {subset: load_held_out(MusicFolder(music), subset, 32) for subset in ("solo", "duet")}


def perfect(test: HeldOutScenes) -> Prediction:
    maps = torch.stack([box_masks(boxes) for boxes in test.test.boxes]).float()
    return Prediction(maps.amax(1), maps, torch.ones(maps.shape[:2], dtype=torch.bool))


@pytest.fixture
def side_by_side(held_out: dict[str, HeldOutScenes]) -> HeldOutScenes:
    """Two clips in one scene: one with boxes left, the other with boxes right; a silent twin on the other side."""
    solo, left, right = held_out["solo"], (0.0, 0.0, 0.375, 1.0), (0.625, 0.0, 1.0, 1.0)
    clips = [Clip("d", ("cello",)), Clip("e", ("flute",))]
    silent = [SilentObjects((right,), ("cello",)), SilentObjects((left,), ("flute",))]
    scenes = Scenes(solo.scenes._frames.parent, ["d", "e"], 32)
    return HeldOutScenes(
        "duet", scenes, ListedScenes(clips, [(0, 1), (1, 0)], [((left,), (right,)), ((right,), (left,))]), silent
    )
