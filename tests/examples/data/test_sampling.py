"""The order of training: what it depends on, sharing between processes, resuming within an epoch."""

from __future__ import annotations

import pytest
import torch
from avsl.data.sampling import IndexedPool, ResumableLoader, SceneBatches
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset


def pool(clips: int, size: int = 1, first: int = 0, labels: int = 5) -> IndexedPool:
    return IndexedPool(first, torch.arange(clips) % labels, size)


def epoch_of(batches: SceneBatches, epoch: int) -> list[list[tuple[int, ...]]]:
    batches.set_epoch(epoch)
    return list(batches)


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 3), st.integers(1, 3), st.integers(0, 3))
def test_every_clip_once(clips: int, batch: int, size: int, processes: int, epoch: int) -> None:
    parts = [
        epoch_of(SceneBatches([pool(clips, size)], batch, 7, rank=r, processes=processes), epoch)
        for r in range(processes)
    ]
    assert len({len(part) for part in parts}) == 1
    assert all(len(part) == len(SceneBatches([pool(clips)], batch, 0, processes=processes)) >= 1 for part in parts)
    scenes = [scene for part in parts for batch_ in part for scene in batch_]
    assert all(len(scene) == size and all(0 <= i < clips for i in scene) for scene in scenes)
    firsts = [scene[0] for scene in scenes]
    left_out = -(-clips // processes) % batch if -(-clips // processes) > batch else 0
    assert len(firsts) == processes * (-(-clips // processes) - left_out)
    assert max(map(firsts.count, firsts)) <= -(-processes // clips) + 1


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    first = epoch_of(SceneBatches([pool(10, 2)], 4, 0), 0)
    assert [len(batch) for batch in first] == [4, 4]  # the last two make no full batch
    torch.manual_seed(123)
    assert epoch_of(SceneBatches([pool(10, 2)], 4, 0), 0) == first
    assert epoch_of(SceneBatches([pool(10, 2)], 4, 0), 1) != first
    assert epoch_of(SceneBatches([pool(10, 2)], 4, 1), 0) != first


def test_the_order_of_one_pool_is_torchs() -> None:
    sampler = torch.utils.data.DistributedSampler(range(11), num_replicas=2, rank=1, seed=3)
    sampler.set_epoch(4)
    ours = epoch_of(SceneBatches([pool(11)], 2, 3, rank=1, processes=2), 4)
    assert [scene[0] for batch in ours for scene in batch] == list(sampler)


@pytest.mark.parametrize("size", [2, 3])
def test_mixtures_are_of_different_labels(size: int) -> None:
    for epoch in range(5):
        for batch in epoch_of(SceneBatches([pool(30, size)], 4, 0), epoch):
            assert all(len({i % 5 for i in scene}) == size for scene in batch)


def test_one_label_only() -> None:
    assert len(epoch_of(SceneBatches([pool(6, 2, labels=1)], 3, 0), 0)) == 2


def test_processes_together_make_one_larger_batch() -> None:
    parts = [epoch_of(SceneBatches([pool(64, 2)], 4, 0, rank=r, processes=2), 3) for r in range(2)]
    whole = epoch_of(SceneBatches([pool(64, 2)], 8, 0), 3)
    assert [sorted(a + b) for a, b in zip(*parts, strict=True)] == [sorted(batch) for batch in whole]


def test_batches_are_of_one_pool() -> None:
    batches = epoch_of(SceneBatches([pool(20), pool(20, 2, first=20)], 4, 0), 0)
    sizes = [{len(scene) for scene in batch} for batch in batches]
    assert all(len(size) == 1 for size in sizes)
    assert [size.pop() for size in sizes] not in ([1] * 5 + [2] * 5, [2] * 5 + [1] * 5)
    assert all(i < 20 if len(scene) == 1 else i >= 20 for batch in batches for scene in batch for i in scene)


class Echo(Dataset):
    def __getitem__(self, scene: tuple[int, ...]) -> tuple[int, ...]:
        return scene


def loader(workers: int = 0) -> ResumableLoader:
    batches = SceneBatches([pool(24, 2)], 4, 0)
    return ResumableLoader(Echo(), batch_sampler=batches, num_workers=workers, collate_fn=list)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("given_", [0, 1, 5])
def test_goes_on_within_an_epoch(given_: int, workers: int) -> None:
    whole = list(loader())
    first = loader(workers)
    iterator = iter(first)
    for _ in range(given_):
        next(iterator)
    state = first.state_dict()
    assert state == {"batches": given_}
    second = loader(workers)
    second.load_state_dict(state)
    assert len(second) == 6
    assert list(second) == whole[given_:]
    assert second.state_dict() == {"batches": 0}
    assert list(second) == whole
