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
    ObjectAwareObjective,
    ObjectRegionSeparationLoss,
    OCALoss,
    ORILoss,
    TriMapContrastiveLoss,
    object_aware_contrastive_loss,
    object_region_isolation_loss,
    object_region_separation_loss,
    trimap_contrastive_loss,
)
from sslosses.distributed import NotGatheredWarning, gather_rows, process_count, sum_over_processes

#: A process that fails leaves the other one waiting; the tests then fail after this time.
LIMIT = datetime.timedelta(minutes=2)
BACKGROUNDS = torch.tensor([True, False, True, True, False, False])
SOURCES = torch.tensor([[True, True], [False, False], [True, False], [True, True], [False, True], [True, True]])
CASES: dict[str, dict[str, Any]] = {
    "oca": {"trimap_weight": 0.0, "oca_weight": 1.0, "ori_weight": 0.0},
    "trimap": {"trimap_weight": 1.0, "oca_weight": 0.0, "ori_weight": 0.0},
    "both": {"trimap_weight": 0.3, "oca_weight": 1.0, "ori_weight": 0.0},
    "ori": {"trimap_weight": 0.0, "oca_weight": 0.0, "ori_weight": 1.0},
    "separation": {"trimap_weight": 0.0, "oca_weight": 0.0, "ori_weight": 1.0},
    "all": {"trimap_weight": 0.3, "oca_weight": 1.0, "ori_weight": 0.5},
}


class Encoders(nn.Module):
    """Small visual and audio encoders, equal in every process."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.visual = nn.Conv2d(3, 8, 1, dtype=torch.float64)
        self.audio = nn.Linear(5, 8, dtype=torch.float64)

    def forward(self, images: Tensor, sounds: Tensor) -> tuple[Tensor, Tensor]:
        return self.visual(images), self.audio(sounds)


def batch() -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    shapes = ((6, 3, 3, 4), (6, 5), (6, 2, 8), (6, 8))
    return *(torch.randn(*s, generator=generator, dtype=torch.float64) for s in shapes), SOURCES, BACKGROUNDS


def objective(case: str, rule: str, reduction: str) -> ObjectAwareObjective:
    return ObjectAwareObjective(
        **CASES[case],
        trimap=TriMapContrastiveLoss(reduction=reduction),
        oca=OCALoss(false_negatives=rule, tau=0.1, omega=0.2, reduction=reduction),
        ori=(ObjectRegionSeparationLoss if case == "separation" else ORILoss)(epsilon=0.3, reduction=reduction),
        gather_distributed=True,
    )


def step(model: nn.Module, rows: slice, case: str, rule: str, reduction: str) -> dict[str, Any]:
    model.zero_grad()
    images, sounds, foreground, background, *masks = (t[rows] for t in batch())
    visual, audio = model(images, sounds)
    loss = objective(case, rule, reduction)(visual, audio, foreground, background, *masks)
    loss.sum().backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return {"loss": loss.detach(), "gradients": gradients}


SETTINGS = [
    (case, rule, reduction)
    for case in CASES
    for rule in ("visual-reference", "reference-reference")
    for reduction in ("mean", "sum")
    if case in ("oca", "both") or rule == "visual-reference"
]


def losses(**options: Any) -> dict[str, nn.Module]:
    return {
        "trimap": TriMapContrastiveLoss(**options),
        "oca": OCALoss(**options),
        "ori": ORILoss(epsilon=0.3, **options),
        "separation": ObjectRegionSeparationLoss(epsilon=0.3, **options),
        "objective": ObjectAwareObjective(trimap_weight=1.0, ori=ORILoss(epsilon=0.3), **options),
    }


def inputs(name: str) -> list[Tensor]:
    """Arguments of the loss of this name."""
    generator = torch.Generator().manual_seed(1)
    shapes = ((3, 8, 3, 4), (3, 8), (3, 2, 8), (3, 8))
    visual, audio, *captions = (torch.randn(s, generator=generator) for s in shapes)
    return (
        [visual, audio] if name == "trimap" else [visual, *([audio] if name in ("oca", "objective") else []), *captions]
    )


def three_calls(name: str, loss: Callable[..., Any]) -> None:
    for _ in range(3):
        loss(*inputs(name))


def scheduled() -> None:
    loss = ObjectAwareObjective(ori_weight=0.0, ori=ORILoss(epsilon=0.3))
    loss(*inputs("objective"))
    loss.ori_weight = loss.trimap_weight = 0.1
    loss(*inputs("objective"))


def compiled(name: str) -> None:
    torch.compiler.reset()
    loss = losses()[name]
    expected = loss(*inputs(name))
    loss = losses()[name]
    three_calls(name, call := torch.compile(loss, fullgraph=True, backend="eager"))
    torch.testing.assert_close(call(*inputs(name)), expected)


FUNCTIONS = {
    "trimap": trimap_contrastive_loss,
    "oca": object_aware_contrastive_loss,
    "ori": functools.partial(object_region_isolation_loss, epsilon=0.3),
    "separation": functools.partial(object_region_separation_loss, epsilon=0.3),
}
#: Calls in each of two processes.
CALLS: dict[str, Callable[[], Any]] = {
    **{f"{name}, not chosen": functools.partial(lambda n: three_calls(n, losses()[n]), name) for name in losses()},
    "objective, compiled": functools.partial(compiled, "objective"),
    **{f"{name}, function": functools.partial(lambda n: FUNCTIONS[n](*inputs(n)), name) for name in FUNCTIONS},
    **{
        f"{name}, {value}": functools.partial(lambda n, v: three_calls(n, losses(gather_distributed=v)[n]), name, value)
        for name in losses()
        for value in (True, False)
    },
    "objective, part chosen": lambda: three_calls(
        "objective", ObjectAwareObjective(oca=OCALoss(gather_distributed=True), ori=ORILoss(epsilon=0.3))
    ),
    "objective, scheduled": scheduled,
    "ori, samples alone": lambda: three_calls("ori", ORILoss(epsilon=0.3, reduction="none")),
}


def warned(call: Callable[[], Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as records:
        warnings.simplefilter("always")
        call()
    return [str(r.message) for r in records if issubclass(r.category, NotGatheredWarning)]


SPLITS = (3, 2)  # number of samples of the first process: even, uneven


def work(rank: int, folder: str, split: int) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store{split}", rank=rank, world_size=2, timeout=LIMIT)
    rows = slice(0, split) if rank == 0 else slice(split, 6)
    model = DistributedDataParallel(Encoders())
    results = {setting: step(model, rows, *setting) for setting in SETTINGS}

    own = torch.full((2 + rank, 3), float(rank + 1), requires_grad=True)
    gathered = gather_rows(own)
    (gathered.rows * torch.arange(5.0)[:, None] * (rank + 1)).sum().backward()
    value = torch.tensor(2.0 + rank, requires_grad=True)
    total = sum_over_processes(value)
    (total * (rank + 1)).backward()
    results["primitives"] = {
        "count": process_count(),
        "rows": gathered.rows.detach(),
        "offset": gathered.offset,
        "gradient": own.grad,
        "total": total.detach(),
        "value_gradient": value.grad,
    }
    none = step(model, rows, "both", "visual-reference", "none")
    results["none"] = none["loss"]
    if split == 3:
        results["warnings"] = {name: warned(call) for name, call in CALLS.items()}
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
def test_equals_one_process_with_the_whole_batch(
    processes: list[dict[Any, Any]], setting: tuple[str, str, str]
) -> None:
    expected = step(Encoders(), slice(None), *setting)
    reached = 2 if setting[0] in ("ori", "separation") else 4  # these do not use the sound
    assert sum(bool(g.any()) for g in expected["gradients"]) == reached
    for rank in range(2):
        actual = processes[rank][setting]
        torch.testing.assert_close(actual["loss"], expected["loss"], atol=1e-12, rtol=0)
        assert len(actual["gradients"]) == len(expected["gradients"])
        for got, wanted in zip(actual["gradients"], expected["gradients"], strict=True):
            torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)


def test_values_of_single_samples(processes: list[dict[Any, Any]]) -> None:
    expected = step(Encoders(), slice(None), "both", "visual-reference", "none")["loss"]
    actual = torch.cat([processes[rank]["none"] for rank in range(2)])
    torch.testing.assert_close(actual, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", CALLS)
def test_warns_once_unless_gathering_is_chosen(name: str) -> None:
    silent = name.endswith(("True", "False", "samples alone"))
    for rank in range(2):
        messages = run(3)[rank]["warnings"][name]
        # The compiled case runs the loss eagerly as well.
        assert len(messages) == (0 if silent else 2 if name.endswith("compiled") else 1)
        assert all("2 processes are up" in m and "gather_distributed=True" in m for m in messages)
        if name == "objective, part chosen":
            assert messages[0].startswith("ObjectAwareObjective (ObjectRegionIsolationLoss) is computed")


def test_one_process_is_not_warned() -> None:
    for name in losses():
        assert not warned(CALLS[f"{name}, not chosen"]), name


def test_primitives(processes: list[dict[Any, Any]]) -> None:
    """Rows come in rank order although their number differs; gradients are added over processes."""
    for rank in range(2):
        got = processes[rank]["primitives"]
        assert got["count"] == 2
        assert got["offset"] == (0, 2)[rank]
        assert got["rows"][:, 0].tolist() == [1, 1, 2, 2, 2]
        index = torch.arange(5.0)[:2] if rank == 0 else torch.arange(5.0)[2:]
        assert torch.equal(got["gradient"], (index * 3)[:, None].expand(-1, 3))
        assert got["total"] == 5
        assert got["value_gradient"] == 3


def test_without_a_group_nothing_changes() -> None:
    rows = torch.randn(3, 2)
    assert process_count() == 1
    assert gather_rows(rows).rows is rows
    assert gather_rows(rows).offset == 0
    assert sum_over_processes(rows) is rows
