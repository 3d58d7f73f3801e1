"""Memory that records which thread touched each byte last, and when."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

WARP = 32


class Now(NamedTuple):
    """The time in a block: its step, the step of the last barrier, and of the last synchronization of each warp."""

    block: int
    step: int
    barrier: int
    of_warps: np.ndarray


class Touched:
    """Which thread last read, or last wrote, each byte; −1 is none, −2 several."""

    def __init__(self, size: int):
        self.block, self.warp, self.thread, self.step = (np.full(size, -1) for _ in range(4))

    def by_others(self, at: np.ndarray, thread: np.ndarray, now: Now) -> np.ndarray:
        """Whether the last access is by another thread, with nothing that orders it before this one."""
        warp = thread // WARP
        ordered = (self.warp[at] == warp) & ((self.thread[at] == thread) | (self.step[at] < now.of_warps[warp]))
        return (self.block[at] == now.block) & (self.step[at] >= now.barrier) & ~ordered

    def by_another_block(self, at: np.ndarray, now: Now) -> np.ndarray:
        return (self.block[at] != -1) & (self.block[at] != now.block)

    def mark(self, at: np.ndarray, thread: np.ndarray, now: Now) -> None:
        others = self.by_others(at, thread, now)
        other_warps = others & (self.warp[at] != thread // WARP)
        self.block[at], self.warp[at], self.thread[at], self.step[at] = now.block, thread // WARP, thread, now.step
        # Several threads may access it at once, too.
        self.thread[at[others | (self.thread[at] != thread)]] = -2
        self.warp[at[other_warps | (self.warp[at] != thread // WARP)]] = -2


class Memory:
    """Bytes with two masks: ``allotted`` ones may be used, ``filled`` ones have been written and may be read."""

    def __init__(self, size: int):
        self.bytes = np.full(size, 0xFF, np.uint8)
        self.allotted, self.filled = np.zeros(size, bool), np.zeros(size, bool)
        self.reads, self.writes = Touched(size), Touched(size)

    def load(self, addresses: np.ndarray, width: int, threads: np.ndarray, now: Now) -> np.ndarray:
        """(threads, width) bytes."""
        at, threads = self._at(addresses, width), np.repeat(threads[:, None], width, 1)
        assert self.filled[at].all(), "read, but never written"
        assert not self.writes.by_others(at, threads, now).any(), "a race: written and read without a barrier between"
        assert not self.writes.by_another_block(at, now).any(), "a race: written by one block, read by another"
        self.reads.mark(at, threads, now)
        return self.bytes[at]

    def store(self, addresses: np.ndarray, values: np.ndarray, threads: np.ndarray, now: Now) -> None:
        at, threads = self._at(addresses, values.shape[1]), np.repeat(threads[:, None], values.shape[1], 1)
        assert not self.reads.by_others(at, threads, now).any(), "a race: read and written without a barrier between"
        for touched in (self.reads, self.writes):
            assert not touched.by_another_block(at, now).any(), "a race: written by one block, used by another"
        # Several threads may write the same number.
        twice = self.writes.by_others(at, threads, now) & (self.bytes[at] != values)
        self.bytes[at], self.filled[at] = values, True
        assert not (twice | (self.bytes[at] != values)).any(), "a race: two threads write different numbers"
        self.writes.mark(at, threads, now)

    def _at(self, addresses: np.ndarray, width: int) -> np.ndarray:
        at = addresses[:, None] + np.arange(width)
        inside = (at >= 0) & (at < self.bytes.size)
        assert inside.all(), "outside of all memory"
        assert self.allotted[at].all(), "outside of its memory"
        return at
