"""Makes the input classes importable, as the program that writes their table finds them, and inputs for all files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

Batch = Callable[..., tuple[Tensor, ...]]


@pytest.fixture
def batch() -> Batch:
    """visual, audio, foreground, background and source_mask of a seeded batch."""

    def make(samples: int = 3, sources: int = 2, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(samples * 10 + sources)
        shapes = ((samples, 6, 3, 8), (samples, 6), (samples, sources, 6), (samples, 6))
        features = tuple(torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes)
        return *features, torch.rand(samples, sources, generator=generator) > 0.3

    return make
