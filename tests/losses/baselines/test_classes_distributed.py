"""Losses that know classes: two processes give the loss and the gradients of one process with the whole batch."""

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
    CategoryAlignmentLoss,
    DictionaryConsistencyLoss,
    GroupingLoss,
    PairCorrespondenceLoss,
    TextGuidedLoss,
    pair_correspondence_loss,
)
from sslosses.distributed import NotGatheredWarning, gather_rows

LIMIT = datetime.timedelta(minutes=2)
CLASSES = 3


class Encoders(nn.Module):
    """Small encoders, equal in every process, and what the losses share."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.visual = nn.Conv2d(3, 8, 1, dtype=torch.float64)
        self.audio = nn.Linear(5, 8, dtype=torch.float64)
        self.tokens = nn.Parameter(torch.randn(CLASSES, 8, dtype=torch.float64))

    def forward(self, images: Tensor, sounds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.visual(images), self.audio(sounds), self.tokens + 0


def batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(6, *shape, generator=generator, dtype=torch.float64)

    return {
        "images": draw(3, 2, 3),
        "sounds": draw(5),
        "shown": draw(CLASSES).sigmoid(),
        "heard": draw(CLASSES).sigmoid(),
        "sources": torch.tensor([[0, 1], [2, 0], [1, 1], [0, 2], [1, 0], [2, 2]]),
        "source_mask": torch.tensor([[1, 1], [1, 0], [0, 0], [0, 1], [1, 1], [1, 0]]) > 0,
    }


Features = tuple[Tensor, Tensor, Tensor]


def pairs(features: Features, rows: dict[str, Tensor], **options: Any) -> Tensor:
    visual, audio, _ = features
    every = gather_rows(audio).rows if options["gather_distributed"] else audio
    return PairCorrespondenceLoss(**options)(visual.mean((2, 3)) @ every.T)


def alignment(features: Features, rows: dict[str, Tensor], **options: Any) -> Tensor:
    visual, audio, tokens = features
    shown, heard = visual.mean((2, 3))[:, None] * tokens, audio[:, None] * tokens
    return CategoryAlignmentLoss(**options)(shown, heard, rows["shown"], rows["heard"])


def dictionary(features: Features, rows: dict[str, Tensor], **options: Any) -> Tensor:
    visual, audio, tokens = features
    return DictionaryConsistencyLoss(**options)(visual, visual.mean(1), tokens, audio[:, :CLASSES], 1.5, 0.1)


def grouping(features: Features, rows: dict[str, Tensor], gated: bool = False, **options: Any) -> Tensor:
    visual, audio, tokens = features
    present = torch.zeros(len(visual), CLASSES, dtype=torch.bool).scatter(1, rows["sources"], True)
    logits = visual.mean((2, 3)) @ tokens.T, audio @ tokens.T
    gates = visual.mean((2, 3))[:, None] * tokens if gated else None
    groups = audio[:, None] * tokens
    arguments = visual, groups, rows["sources"], tokens @ tokens.T, *logits, present, present, rows["source_mask"]
    return GroupingLoss(temperature=0.5, **options)(*arguments, gates)


def text_guided(features: Features, rows: dict[str, Tensor], **options: Any) -> Tensor:
    visual, audio, tokens = features
    cells = torch.stack([audio, audio.flip(1)], 2)[..., None]
    scales = dict.fromkeys(("image_scale", "audio_scale", "pair_scale", "presence_scale"), 2.0)
    return TextGuidedLoss(**scales, **options)(visual, cells, tokens, rows["sources"], rows["source_mask"])


LOSSES: dict[str, Callable[..., Tensor]] = {
    "pairs": pairs,
    "alignment": alignment,
    "other classes": functools.partial(alignment, same_class_negatives=False),
    "dictionary": dictionary,
    "grouping": grouping,
    "gated": functools.partial(grouping, gated=True, normalize_audio=True, symmetric=False),
    "text-guided": text_guided,
}
REDUCTIONS = ("mean", "sum", "none")


def step(model: nn.Module, rows: slice, name: str, reduction: str, gather: bool | None = True) -> dict[str, Any]:
    model.zero_grad()
    inputs = {key: value[rows] for key, value in batch().items()}
    features = model(inputs["images"], inputs["sounds"])
    loss = LOSSES[name](features, inputs, reduction=reduction, gather_distributed=gather)
    # What a loss does not use has gradients of 0, as DistributedDataParallel needs.
    (loss.sum() + 0 * sum(x.sum() for x in features)).backward()
    return {"loss": loss.detach(), "gradients": [p.grad.clone() for p in model.parameters() if p.grad is not None]}


SETTINGS = [(name, reduction) for name in LOSSES for reduction in REDUCTIONS]


SPLITS = (3, 2)  # number of samples of the first process: even, uneven


def work(rank: int, folder: str, split: int) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store{split}", rank=rank, world_size=2, timeout=LIMIT)
    rows = slice(0, split) if rank == 0 else slice(split, 6)
    model = DistributedDataParallel(Encoders())
    results: dict[Any, Any] = {setting: step(model, rows, *setting) for setting in SETTINGS}
    for name, reduction in SETTINGS:
        with warnings.catch_warnings(record=True) as records:
            warnings.simplefilter("always")
            step(model, rows, name, reduction, gather=None)
        results["warnings", name, reduction] = sum(issubclass(r.category, NotGatheredWarning) for r in records)
    try:
        pair_correspondence_loss(torch.zeros(len(range(6)[rows]), 5), gather_distributed=True)
    except ValueError as error:
        results["error"] = str(error)
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


@pytest.mark.parametrize("split", [3, 2], ids=["even", "uneven"])
@pytest.mark.parametrize(("name", "reduction"), SETTINGS)
def test_equals_one_process_with_the_whole_batch(name: str, reduction: str, split: int) -> None:
    expected = step(Encoders(), slice(None), name, reduction)
    assert any(g.any() for g in expected["gradients"])
    ranks = [run(split)[rank][name, reduction] for rank in range(2)]
    if reduction == "none":
        actual = torch.cat([rank["loss"] for rank in ranks])
        torch.testing.assert_close(actual, expected["loss"], atol=1e-12, rtol=0)
        return
    for rank in ranks:
        torch.testing.assert_close(rank["loss"], expected["loss"], atol=1e-12, rtol=0)
        for got, wanted in zip(rank["gradients"], expected["gradients"], strict=True):
            torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("name", "reduction"), SETTINGS)
def test_warns_if_gathering_was_not_chosen(name: str, reduction: str) -> None:
    expected = 0 if (name, reduction) == ("dictionary", "none") else 1
    assert [run(3)[rank]["warnings", name, reduction] for rank in range(2)] == [expected] * 2


def test_logits_need_a_column_for_each_sound() -> None:
    for rank in range(2):
        assert "`logits` to have shape (B, G) with G = 6" in run(3)[rank]["error"]
        assert "but got (3, 5)" in run(3)[rank]["error"]
