import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sslosses.annotations import rasterize

corner = st.floats(-0.5, 1.5)


@settings(deadline=None)
@given(st.lists(st.tuples(corner, corner, corner, corner), max_size=3), st.integers(1, 12))
def test_equals_the_loop(boxes, size):
    expected = np.zeros((size, size), dtype=bool)
    for xmin, ymin, xmax, ymax in boxes:
        left, top, right, bottom = (max(int(size * v), 0) for v in (xmin, ymin, xmax, ymax))
        for y in range(size):
            for x in range(size):
                expected[y, x] |= top <= y < bottom and left <= x < right
    assert np.array_equal(rasterize(boxes, size).numpy(), expected)


def test_corners_are_truncated():
    mask = rasterize([(0.249, 0.0, 0.999, 0.51)], size=4)
    assert mask.int().tolist() == [[1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_broken_boxes_are_empty():
    assert not rasterize([(0.4, 0.3, -2.9e16, 0.9), (0.2, 0.2, 0.2, 0.8), (0.6, 0.6, 0.5, 0.5)]).any()
    assert rasterize([]).shape == (224, 224)


def test_tensors_and_wrong_arguments():
    assert torch.equal(rasterize(torch.tensor([[0.25, 0.5, 1, 1]]), 8), rasterize([(0.25, 0.5, 1, 1)], 8))
    with pytest.raises(ValueError, match="4 finite numbers"):
        rasterize([(0, 0, 1)])
    with pytest.raises(ValueError, match="4 finite numbers"):
        rasterize([(0, 0, 1, float("nan"))])
    with pytest.raises(ValueError, match="4 finite numbers"):
        rasterize((0, 0, 1, 1))
    with pytest.raises(ValueError, match="size"):
        rasterize([], 0)
