"""The order of training: batches of scenes that depend on seed and epoch alone, and a loader that goes on mid-epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from .scenes import ClipIndices


class IndexedPool(NamedTuple):
    """Where scenes are drawn from: clips ``first`` to ``first + len(labels)``, ``size`` a scene."""

    first: int
    labels: Tensor  # (N,) int64: clips of one label are not mixed
    size: int


class SceneBatches(Sampler[list[ClipIndices]]):
    """Batches of scenes for one of several processes.

    An epoch takes every clip of every pool once as a scene's first clip; the others of a mixture are drawn at random
    from the clips of other labels. Batches are of one pool, since frames of one batch have one width, and those of
    several pools are shuffled. All processes draw the same epoch, and process r takes scenes r, r + R, …, so that
    their batches together are those of one process with R times the batch size.

    Args:
        pools: what to draw from.
        batch_size: scenes of a batch of one process.
        seed: with the epoch, decides the order.
        rank: this process.
        processes: number of processes.
    """

    def __init__(
        self, pools: Sequence[IndexedPool], batch_size: int, seed: int, *, rank: int = 0, processes: int = 1
    ) -> None:
        self.pools, self.batch_size, self.seed = list(pools), batch_size, seed
        self.rank, self.processes = rank, processes
        self.epoch = 0
        #: Batches of the epoch that the next iteration leaves out.
        self.skipped = 0

    @property
    def sampler(self) -> SceneBatches:
        """Itself: where Lightning looks for :meth:`set_epoch` in a batch sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches the next iteration gives."""
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
        # A smaller last batch has fewer negatives; it is left out unless it is all there is.
        return share // self.batch_size if share > self.batch_size else min(share, 1)

    def _pool_batches(self, pool: IndexedPool, generator: torch.Generator) -> Iterator[list[ClipIndices]]:
        order = torch.randperm(len(pool.labels), generator=generator)
        padded = order.repeat(self.processes)[: self._share(len(order)) * self.processes]  # as many for every process
        columns = [padded]
        for _ in range(pool.size - 1):
            columns.append(_partners(columns, pool.labels, generator))
        own = (torch.stack(columns, 1)[self.rank :: self.processes] + pool.first).tolist()
        for i in range(self._batches(len(order))):
            yield [tuple(scene) for scene in own[i * self.batch_size : (i + 1) * self.batch_size]]


def _partners(chosen: Sequence[Tensor], labels: Tensor, generator: torch.Generator) -> Tensor:
    """A clip for each scene whose label none of the scene's clips has (where there are as many labels)."""
    partners = torch.randint(len(labels), chosen[0].shape, generator=generator)
    for _ in range(20):
        clash = torch.stack([labels[partners] == labels[c] for c in chosen]).any(0)
        if not clash.any():
            break
        partners[clash] = torch.randint(len(labels), (int(clash.sum()),), generator=generator)
    return partners


class ResumableLoader(DataLoader[Any]):
    """A loader of :class:`SceneBatches` whose state is how many batches of the epoch it has given.

    Lightning keeps the state in its checkpoints, so that training goes on within an epoch.
    """

    batch_sampler: SceneBatches
    _given = 0
    _skip = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self.batch_sampler.skipped = self._given = self._skip
        self._skip = 0
        for batch in super().__iter__():
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"batches": self._given % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._skip = state["batches"]
