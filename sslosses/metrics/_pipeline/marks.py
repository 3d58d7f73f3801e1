"""Marks at the upper median that are counted without drawing a canvas."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sslosses.metrics._protocol import Protocol
from sslosses.metrics.functional.resize import _weights


@dataclass(frozen=True)
class MedianMarks:
    """Binary maps of a protocol that marks pixels at the upper median, on one frame per map.

    A compiled kernel resizes, marks and counts one map after the other, so that no canvas leaves the cache. The counts
    are those of the canvases that :class:`~sslosses.metrics._pipeline.scorer.Scorer` draws elsewhere.
    """

    maps: Tensor  # (B, M, h, w), float32 on the CPU, h and w below the protocol's size
    protocol: Protocol

    @property
    def shape(self) -> torch.Size:
        """Shape of the canvases, (B, M, F, H, W) with F = 1."""
        return torch.Size((*self.maps.shape[:2], 1, self.protocol.size, self.protocol.size))

    def cells(self, down: Tensor, across: Tensor) -> tuple[Tensor, Tensor]:
        """Counts the marked pixels.

        Args:
            down: ends of the segments of each source along the height in pixels, ascending, (B, S, n), int64.
            across: the same along the width, (B, S, m).

        Returns:
            The counts in the cells of each map and source, (B, M, S, n − 1, m − 1), and in each map, (B, M, 1).
        """
        from sslosses.metrics.functional._compiled_counts import count_marked

        rules, (batch, count, height, width) = self.protocol, self.maps.shape
        cubic, aligned = rules.upsampling.startswith("bicubic"), rules.upsampling.endswith("aligned corners")
        cells, marked = count_marked(
            self.maps.flatten(0, 1),
            *(_weights(side, rules.size, cubic, aligned).float() for side in (height, width)),
            taps=4 if cubic else 2,
            strict=rules.binarization != "from upper median",
            keep_maximum=rules.binarization == "above upper median",
            down=down.repeat_interleave(count, 0),
            across=across.repeat_interleave(count, 0),
        )
        return cells.view(batch, count, *cells.shape[1:]), marked.view(batch, count, 1)
