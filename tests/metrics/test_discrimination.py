import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sslosses.metrics import SilentObjectDiscrimination
from sslosses.metrics.functional import silent_object_discrimination


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 3), st.integers(0, 3))
def test_equals_the_loop(seed, rows, slots):
    generator = np.random.default_rng(seed)
    maps = generator.integers(0, 3, (rows, 4, 4)).astype(float)
    sounding = generator.random((rows, 4, 4)) < 0.3
    silent = generator.random((rows, slots, 4, 4)) < 0.2
    same, valid = generator.random((2, rows, slots)) < 0.6
    outcomes = []
    for i in range(rows):
        for j in range(slots):
            if valid[i, j] and sounding[i].any() and silent[i, j].any():
                a, b = maps[i][sounding[i]].mean(), maps[i][silent[i, j]].mean()
                outcomes.append(((a > b) + 0.5 * (a == b), same[i, j]))
    arguments = [torch.tensor(x) for x in (maps, sounding, silent, same, valid)]
    result = silent_object_discrimination(*arguments)
    metric = SilentObjectDiscrimination()
    for chunk in ([x[:1] for x in arguments], [x[1:] for x in arguments]):
        metric.update(*chunk)
    for share, count, chosen in (
        ("share", "pairs", outcomes),
        ("same_class_share", "same_class_pairs", [o for o in outcomes if o[1]]),
    ):
        expected = np.mean([o[0] for o in chosen]) if chosen else math.nan
        assert getattr(result, count) == metric.compute()[count] == len(chosen)
        assert getattr(result, share).item() == pytest.approx(expected, nan_ok=True)
        assert metric.compute()[share].item() == pytest.approx(expected, nan_ok=True)


def test_constant_map_is_at_chance():
    # means of 0.1 over 3 and over 7 pixels differ by rounding
    sounding, silent = torch.zeros(1, 9, 9).bool(), torch.zeros(1, 1, 9, 9).bool()
    sounding[0, 0, :3] = True
    silent[0, 0, 1, :7] = True
    for value in (0.1, 0.7, -0.3):
        assert silent_object_discrimination(torch.full((1, 5, 5), value), sounding, silent).share == 0.5


def test_maps_are_resized_to_the_masks():
    sounding, silent = torch.zeros(1, 8, 8).bool(), torch.zeros(1, 1, 8, 8).bool()
    sounding[:, :, 6:] = True
    silent[:, :, :, :2] = True
    assert silent_object_discrimination(torch.tensor([[[0.0, 1.0]]]), sounding, silent).share == 1


def test_wrong_arguments():
    maps, mask = torch.zeros(1, 2, 2), torch.zeros(1, 2, 2).bool()
    with pytest.raises(TypeError, match=r"`silent` to have dtype torch\.bool"):
        silent_object_discrimination(maps, mask, torch.zeros(1, 1, 2, 2))
    with pytest.raises(ValueError, match="`same_class` to have shape"):
        silent_object_discrimination(maps, mask, mask[:, None], torch.zeros(1, 2).bool())
