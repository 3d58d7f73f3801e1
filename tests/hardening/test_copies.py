"""Pickling, deepcopy and state dicts of modules and results."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from sslosses import (
    ObjectAwareObjective,
    ObjectRegionSeparationLoss,
    OCALoss,
    ORILoss,
    TriMapContrastiveLoss,
    cluster_objects,
    identify_objects,
    object_aware_contrastive_loss,
    object_region_isolation_loss,
    object_region_separation_loss,
    trimap_contrastive_loss,
    trimap_masks,
)
from sslosses.distributed import gather_rows
from sslosses.transport import available, grid_cost, grid_positions, lazy_grid_cost, pointcloud_cost, solve


def by_torch(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "torch.save": by_torch,
}
MODULES: dict[str, Callable[[], nn.Module]] = {
    "oca": lambda: OCALoss(temperature=0.3, tau=0.1),
    "trimap": lambda: TriMapContrastiveLoss(temperature=0.3),
    "separation": lambda: ObjectRegionSeparationLoss(margin=0.3),
    "ori, warm": lambda: ORILoss(warm_start=True, tol=1e-4, max_iter=1000),
    "objective": lambda: ObjectAwareObjective(trimap_weight=0.5, oca=OCALoss(tau=0.2)),
}


def call(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    arguments = inputs
    if isinstance(module, TriMapContrastiveLoss):
        arguments = inputs[:2]
    elif isinstance(module, (ORILoss, ObjectRegionSeparationLoss)):
        arguments = (inputs[0], *inputs[2:])
    result: torch.Tensor = module(*arguments)
    return result


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("name", MODULES)
def test_a_copied_module_is_the_module(name: str, way: str, batch: Callable[..., Any]) -> None:
    module, inputs = MODULES[name](), batch()
    call(module, inputs)
    again = COPIES[way](module)
    assert repr(again) == repr(module)
    assert torch.equal(call(again, inputs), call(module, inputs))
    assert module.state_dict() == {}
    again.load_state_dict(module.state_dict(), strict=True)


@pytest.mark.parametrize("way", COPIES)
def test_a_copied_result_is_the_result(way: str, batch: Callable[..., Any]) -> None:
    visual, audio, foreground, background, _ = batch()
    maps, at = visual[:, 0], grid_positions(3, 8, dtype=torch.float64)
    lazy_cost = pointcloud_cost(maps.flatten(1), 1 - maps.flatten(1), at, at)
    results = [
        identify_objects(visual, audio),
        cluster_objects(visual, audio),
        object_aware_contrastive_loss(visual, audio, foreground, background),
        object_region_isolation_loss(visual, foreground, background),
        object_region_separation_loss(visual, foreground, background),
        trimap_contrastive_loss(visual, audio),
        trimap_masks(maps),
        gather_rows(audio),
        solve(grid_cost(2, 3)),
        solve(lazy_cost, epsilon=0.5),
        solve(lazy_cost, epsilon=0.0),
        lazy_cost,
        lazy_grid_cost(2, 3),
    ]
    for result in results:
        again = COPIES[way](result)
        assert type(again) is type(result)
        assert repr(again) == repr(result) or "object at" in repr(result)
        if hasattr(result, "value") and hasattr(result, "potentials"):
            assert torch.equal(again.value(), result.value())
    assert COPIES[way](available()) == available()
