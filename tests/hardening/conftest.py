"""The fixture with the inputs of all tests in this folder."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

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
