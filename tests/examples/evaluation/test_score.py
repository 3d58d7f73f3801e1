"""Metrics of known maps, and chance levels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from avsl.data.music import MusicFolder
from avsl.evaluation.held_out import HeldOutScenes, load_held_out
from avsl.evaluation.predict import Prediction
from avsl.evaluation.score import (
    SALIENCY,
    box_masks,
    chance_metrics,
    protocol_result,
    run_metrics,
    saliency_prediction,
)

from sslosses.metrics import center_surround_saliency, protocols

from .conftest import perfect


def test_boxes_of_silent_objects_are_not_needed(music: Path) -> None:
    test = load_held_out(MusicFolder(music), "solo", 32)
    assert test.silent == []
    assert not any(">" in name for name in run_metrics(test, perfect(test)))


def test_perfect_maps(held_out: dict[str, HeldOutScenes]) -> None:
    """The boxes are less than half of the frame, so upper-median binarization gives them back."""
    assert run_metrics(held_out["solo"], perfect(held_out["solo"])) == {
        "solo AP": 100,
        "solo IoU@0.5": 100,
        "solo AUC": 100,
        "solo without map": 0,
        "solo > silent": 100,
        "solo > twin": 100,
    }
    metrics = run_metrics(held_out["duet"], perfect(held_out["duet"]))
    assert [metrics[f"duet {name}"] for name in ("CAP", "CIoU@0.3", "AUC")] == [100, 100, 100]


def test_maps_on_the_silent_side(held_out: dict[str, HeldOutScenes]) -> None:
    solo = held_out["solo"]
    wrong = perfect(solo)
    wrong = wrong._replace(sound=wrong.sound.flip(2), maps=wrong.maps.flip(3))
    metrics = run_metrics(solo, wrong)
    assert [metrics[f"solo {name}"] for name in ("IoU@0.5", "> silent", "> twin")] == [0, 25, 0]  # the chair ties
    assert metrics["solo AP"] <= 50


def test_twins_are_counted_apart(held_out: dict[str, HeldOutScenes]) -> None:
    solo = held_out["solo"]
    prediction = perfect(solo)
    on_the_chair = prediction._replace(sound=prediction.sound + 2 * box_masks([[solo.silent[0].boxes[1]]])[0])
    metrics = run_metrics(solo, on_the_chair)
    assert (metrics["solo > silent"], metrics["solo > twin"]) == (50, 100)


def test_mixed_up_and_missing_maps(held_out: dict[str, HeldOutScenes]) -> None:
    duet = held_out["duet"]
    right = perfect(duet)
    swapped = right._replace(maps=right.maps.flip(1))
    assert run_metrics(duet, swapped) == run_metrics(duet, right)
    one = right._replace(valid=torch.tensor([[True, False]]))
    assert run_metrics(duet, one)["duet CIoU@0.3"] == 50
    with pytest.warns(UserWarning, match="1 of 1 samples have no map"):
        none = run_metrics(duet, right._replace(valid=torch.tensor([[False, False]])))
    assert (none["duet without map"], none["duet CIoU@0.3"] > 0) == (1, False)


def test_perfect_maps_of_frames_side_by_side(side_by_side: HeldOutScenes) -> None:
    left, right = (box_masks([[box]])[0].float() for box in ((0, 0, 0.375, 1), (0.625, 0, 1, 1)))
    nothing = torch.zeros_like(left)
    first = torch.stack([torch.cat([left, nothing], 1), torch.cat([nothing, right], 1)])
    second = torch.stack([torch.cat([right, nothing], 1), torch.cat([nothing, left], 1)])
    maps = torch.stack([first, second])
    perfect_ = Prediction(maps.amax(1), maps, torch.ones(2, 2, dtype=torch.bool))
    metrics = run_metrics(side_by_side, perfect_)
    assert (side_by_side.task, side_by_side.layout) == ("mixtures", "side-by-side")
    assert [metrics[f"duet {n}"] for n in ("CAP", "CIoU@0.3", "AUC", "> silent", "> twin")] == [100] * 5
    mirrored = perfect_._replace(sound=perfect_.sound.flip(2), maps=maps.flip(3))
    assert [run_metrics(side_by_side, mirrored)[f"duet {n}"] for n in ("> silent", "> twin")] == [100, 100]
    exchanged = perfect_._replace(sound=perfect_.sound.flip(0), maps=maps.flip(0))
    wrong = run_metrics(side_by_side, exchanged)
    assert [wrong[f"duet {n}"] for n in ("CIoU@0.3", "> silent", "> twin")] == [0, 0, 0]
    levels = chance_metrics(side_by_side, (7, 7))
    assert levels["whole frame"]["duet > silent"] == levels["centered Gaussian"]["duet > twin"] == 50


@pytest.mark.parametrize("subset", ["solo", "duet"])
def test_perfect_maps_are_ahead_of_chance(held_out: dict[str, HeldOutScenes], subset: str) -> None:
    test = held_out[subset]
    levels = chance_metrics(test, (7, 7))
    assert set(levels) == {"centered Gaussian", "whole frame", "random maps"}
    metrics = run_metrics(test, perfect(test))
    for row in levels.values():
        assert set(row) == {name for name in metrics if "without" not in name}
        for name in row:
            if ">" not in name:
                assert metrics[name] >= row[name], name
        assert sum(metrics[n] - row[n] for n in row if ">" not in n) > 50
    assert levels["whole frame"][f"{subset} > silent"] == 50
    assert chance_metrics(test, (7, 7)) == levels
    assert chance_metrics(test, (7, 7), seed=1)["random maps"] != levels["random maps"]


def test_saliency_is_one_map_for_every_source_of_a_frame(
    held_out: dict[str, HeldOutScenes], side_by_side: HeldOutScenes
) -> None:
    duet = held_out["duet"]
    found = saliency_prediction(duet)
    frame = duet.scenes.pixels((0,))[None] / 255
    assert torch.equal(found.sound, center_surround_saliency(frame))
    assert torch.equal(found.maps, found.sound[:, None].expand(-1, 2, -1, -1))
    assert found.valid.all()
    frames = [side_by_side.scenes.pixels((clip,))[None] / 255 for clip in (0, 1)]
    one, other = (center_surround_saliency(frame)[0] for frame in frames)  # each frame by itself
    both = torch.stack([torch.cat([one, other], 1), torch.cat([other, one], 1)])
    assert torch.allclose(saliency_prediction(side_by_side).sound, both, atol=1e-6)


@pytest.mark.parametrize("name", ["noprior", "tvsl"])
def test_other_predictions_are_scored_beside_the_chance_levels(held_out: dict[str, HeldOutScenes], name: str) -> None:
    duet, protocol = held_out["duet"], protocols.get(name)
    saliency = saliency_prediction(duet)
    result = protocol_result(duet, perfect(duet), protocol, others={SALIENCY: saliency})
    assert list(result.chance) == ["centered Gaussian", "whole frame", "random maps", SALIENCY]
    alone = protocol_result(duet, saliency, protocol, chance=False)
    assert result.chance[SALIENCY] == alone.metrics != result.metrics
    assert alone.chance == {}
