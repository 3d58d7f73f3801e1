"""Two processes give the loss and the parameter gradients of one process that holds the whole batch."""

from __future__ import annotations

import datetime
import functools
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sslosses import (
    BestPlaceContrastiveLoss,
    CycleWalkLoss,
    ObjectClusteringLoss,
    best_place_contrastive_loss,
    cycle_walk_loss,
    object_clustering_loss,
)
from sslosses.distributed import NotGatheredWarning
from sslosses.losses._module import LossModule

#: A process that fails leaves the other one waiting; the tests then fail after this time.
LIMIT = datetime.timedelta(minutes=2)
SAMPLES = 6
CASES: dict[str, tuple[type[LossModule], dict[str, Any]]] = {
    "best place": (BestPlaceContrastiveLoss, {"temperature": 0.1}),
    "best place, one way": (BestPlaceContrastiveLoss, {"temperature": 0.1, "symmetric": False}),
    "cycle walk": (CycleWalkLoss, {"bidirectional": True}),
    "clustering": (ObjectClusteringLoss, {"merge_threshold": 0.3}),
    "clustering, batch": (ObjectClusteringLoss, {"padding": "batch", "background_threshold": 0.9}),
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "best place": best_place_contrastive_loss,
    "cycle walk": cycle_walk_loss,
    "clustering": object_clustering_loss,
}
#: Index of a sample with NaN, whose loss is NaN and which is not a negative for the others.
SPOILED = 4


class Encoders(nn.Module):
    """Small visual and audio encoders, equal in every process."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.visual = nn.Linear(3, 8, dtype=torch.float64)
        self.audio = nn.Linear(5, 8, dtype=torch.float64)

    def forward(self, images: Tensor, sounds: Tensor) -> tuple[Tensor, Tensor]:
        return self.visual(images).movedim(-1, -3), self.audio(sounds)


def batch(case: str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = ((SAMPLES, 2, 3, 4, 3), (SAMPLES, 2, 5)) if case == "cycle walk" else ((SAMPLES, 3, 4, 3), (SAMPLES, 5))
    images, sounds = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    if case == "clustering, batch":
        images[:2] = images[:2, :1, :1]  # equal pixels: these samples have fewer prototypes than the others
    return [images, sounds]


def step(model: nn.Module, rows: slice, case: str, reduction: str, spoil: bool = False) -> dict[str, Any]:
    model.zero_grad()
    visual, audio = model(*(x[rows] for x in batch(case)))
    if spoil:
        bad = torch.arange(SAMPLES)[rows] == SPOILED
        audio = audio.masked_fill(bad.view(-1, *[1] * (audio.ndim - 1)), torch.nan)
    module, options = CASES[case]
    loss = module(**options, gather_distributed=True, reduction=reduction)
    losses = loss(visual, audio, *([audio.flip(-1)] if case == "cycle walk" else []))
    finite = losses[losses.isfinite()]
    finite.sum().backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return {"loss": losses.detach(), "gradients": gradients}


SETTINGS = [(case, reduction) for case in CASES for reduction in ("mean", "sum")]


def inputs(case: str) -> list[Tensor]:
    visual, audio = Encoders()(*batch(case))
    return [visual.detach(), audio.detach()] + ([audio.detach()] if case == "cycle walk" else [])


def warned(call: Callable[[], Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as records:
        warnings.simplefilter("always")
        call()
    return [str(r.message) for r in records if issubclass(r.category, NotGatheredWarning)]


def warnings_of(case: str) -> dict[str, list[str]]:
    module, options = CASES[case]
    loss, arguments = module(**options), inputs(case)
    chosen = [module(**options, gather_distributed=choice) for choice in (True, False)]
    alone = module(**options, reduction="none")
    return {
        "module": warned(lambda: [loss(*arguments) for _ in range(3)]),
        "function": warned(lambda: FUNCTIONS[case](*arguments, **options)) if case in FUNCTIONS else [],
        "chosen": warned(lambda: [each(*arguments) for each in chosen]),
        "none": warned(lambda: alone(*arguments)),
    }


SPLITS = (3, 2)  # number of samples of the first process: even, uneven


def work(rank: int, folder: str, split: int) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store{split}", rank=rank, world_size=2, timeout=LIMIT)
    torch.set_num_threads(1)
    rows = slice(0, split) if rank == 0 else slice(split, SAMPLES)
    model = DistributedDataParallel(Encoders())
    results: dict[Any, Any] = {setting: step(model, rows, *setting) for setting in SETTINGS}
    results["none"] = {case: step(model, rows, case, "none", spoil=True) for case in CASES}
    results["warnings"] = {case: warnings_of(case) for case in CASES}
    torch.save(results, Path(folder) / f"{split}-{rank}.pt")
    dist.destroy_process_group()


def work_on_all(rank: int, folder: str) -> None:
    for split in SPLITS:
        work(rank, folder, split)


@functools.cache
def all_runs() -> dict[int, list[dict[Any, Any]]]:
    # In the same two processes, because their start takes longer than the work.
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(work_on_all, args=(folder,), nprocs=2)
        return {
            split: [torch.load(Path(folder) / f"{split}-{rank}.pt", weights_only=True) for rank in range(2)]
            for split in SPLITS
        }


def run(split: int) -> list[dict[Any, Any]]:
    return all_runs()[split]


@pytest.fixture(params=[3, 2], ids=["even", "uneven"])
def processes(request: pytest.FixtureRequest) -> list[dict[Any, Any]]:
    """Results of both ranks, with 3 + 3 and with 2 + 4 samples; computed once each, in any order of the tests."""
    return run(request.param)


@pytest.mark.parametrize("setting", SETTINGS, ids="-".join)
def test_equals_one_process_with_the_whole_batch(processes: list[dict[Any, Any]], setting: tuple[str, str]) -> None:
    expected = step(Encoders(), slice(None), *setting)
    assert expected["loss"] != 0
    for rank in range(2):
        actual = processes[rank][setting]
        torch.testing.assert_close(actual["loss"], expected["loss"], atol=1e-12, rtol=0)
        assert len(actual["gradients"]) == 4
        for got, wanted in zip(actual["gradients"], expected["gradients"], strict=True):
            assert wanted.any()
            torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_values_of_single_samples_with_one_that_is_not_finite(processes: list[dict[Any, Any]], case: str) -> None:
    expected = step(Encoders(), slice(None), case, "none", spoil=True)
    actual = torch.cat([processes[rank]["none"][case]["loss"] for rank in range(2)])
    assert actual.isnan().tolist() == [i == SPOILED for i in range(SAMPLES)]
    torch.testing.assert_close(actual, expected["loss"], atol=1e-12, rtol=0, equal_nan=True)
    for got, wanted in zip(processes[0]["none"][case]["gradients"], expected["gradients"], strict=True):
        torch.testing.assert_close(got * 2, wanted, atol=1e-12, rtol=0)  # each process adds its own samples only


@pytest.mark.parametrize("case", CASES)
def test_warns_once_unless_gathering_is_chosen(case: str) -> None:
    for rank in range(2):
        messages = run(3)[rank]["warnings"][case]
        silent = case in ("cycle walk", "clustering")  # samples alone do not depend on the others
        assert len(messages["module"]) == 1
        assert len(messages["function"]) == (case in FUNCTIONS)
        assert messages["chosen"] == []
        assert len(messages["none"]) == (0 if silent else 1)
        assert CASES[case][0].__name__ in messages["module"][0]
