"""Which samples are free of NaN and inf."""

from __future__ import annotations

import pytest
import torch

from sslosses.losses._inputs import finite_samples


@pytest.mark.parametrize("spoiled", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("shape", [(3, 4), (3, 2, 5), (3, 2, 3, 4)])
def test_one_entry_spoils_its_sample(spoiled: float, shape: tuple[int, ...]) -> None:
    values = torch.full(shape, torch.finfo(torch.float32).max, requires_grad=True)
    assert finite_samples(values).tolist() == [True] * 3
    with torch.no_grad():
        values[1].view(-1)[-1] = spoiled
    assert finite_samples(values).tolist() == [True, False, True]


@pytest.mark.parametrize(("shape", "count"), [((3, 0), 3), ((3, 0, 4), 3), ((0, 4), 0), ((0, 0), 0)])
def test_samples_without_entries_are_finite(shape: tuple[int, ...], count: int) -> None:
    assert finite_samples(torch.zeros(shape)).tolist() == [True] * count
