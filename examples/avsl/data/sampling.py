"""The order of training: batches that depend only on seed and epoch, and a loader that resumes within an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from .scenes import ClipIndices


class IndexedPool(NamedTuple):
    """A pool as indices: scenes of ``size`` clips are drawn from clips ``first`` to ``first + len(labels) - 1``."""

    first: int
    labels: Tensor  # (N,) int64; clips of equal label are not mixed
    size: int


class SceneBatches(Sampler[list[ClipIndices]]):
    """Batches of scenes for one of R processes.

    In an epoch, every clip of every pool is the first clip of one scene; the other clips of a mixture are drawn at
    random from clips with other labels. All scenes of a batch come from one pool, because their frames must have equal
    width; the batches of several pools are shuffled. All processes draw the same epoch, and process r takes scenes
    r, r + R, …, so that their batches together equal those of one process with R times the batch size.

    Args:
        pools: pools to draw scenes from.
        batch_size: number of scenes per batch and process.
        seed: decides the order, together with the epoch.
        rank: number of this process, from 0.
        processes: number of processes R.
    """

    def __init__(
        self, pools: Sequence[IndexedPool], batch_size: int, seed: int, *, rank: int = 0, processes: int = 1
    ) -> None:
        self.pools, self.batch_size, self.seed = list(pools), batch_size, seed
        self.rank, self.processes = rank, processes
        self.epoch = 0
        #: Number of batches that the next iteration skips.
        self.skipped = 0

    @property
    def sampler(self) -> SceneBatches:
        """This sampler, because Lightning calls :meth:`set_epoch` of a batch sampler's ``sampler``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return sum(self._batches(len(pool.labels)) for pool in self.pools)

    def __iter__(self) -> Iterator[list[ClipIndices]]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        batches = [batch for pool in self.pools for batch in self._pool_batches(pool, generator)]
        if len(self.pools) > 1:
            batches = [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
        yield from batches[self.skipped :]

    def _share(self, scenes: int) -> int:
        return -(-scenes // self.processes)

    def _batches(self, scenes: int) -> int:
        share = self._share(scenes)
        # A smaller last batch has fewer negatives, so it is dropped unless it is the only one.
        return share // self.batch_size if share > self.batch_size else min(share, 1)

    def _pool_batches(self, pool: IndexedPool, generator: torch.Generator) -> Iterator[list[ClipIndices]]:
        order = torch.randperm(len(pool.labels), generator=generator)
        equal_shares = self._share(len(order)) * self.processes
        padded = order.repeat(self.processes)[:equal_shares]
        columns = [padded]
        for _ in range(pool.size - 1):
            columns.append(_partners(columns, pool.labels, generator))
        scenes = (torch.stack(columns, 1)[self.rank :: self.processes] + pool.first).tolist()
        for i in range(self._batches(len(order))):
            yield [tuple(scene) for scene in scenes[i * self.batch_size : (i + 1) * self.batch_size]]


def _partners(chosen: Sequence[Tensor], labels: Tensor, generator: torch.Generator) -> Tensor:
    """One more clip per scene, with a label that no clip of the scene has, if there are enough labels."""
    partners = torch.randint(len(labels), chosen[0].shape, generator=generator)
    for _ in range(20):
        clash = torch.stack([labels[partners] == labels[c] for c in chosen]).any(0)
        if not clash.any():
            break
        partners[clash] = torch.randint(len(labels), (int(clash.sum()),), generator=generator)
    return partners


class ResumableLoader(DataLoader[Any]):
    """A loader of :class:`SceneBatches` whose state is the number of batches that it has yielded in this epoch.

    Lightning stores this state in checkpoints, so that training can resume within an epoch.
    """

    batch_sampler: SceneBatches
    _yielded = 0
    _skip = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self.batch_sampler.skipped = self._yielded = self._skip
        self._skip = 0
        for batch in super().__iter__():
            self._yielded += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"batches": self._yielded % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._skip = state["batches"]
