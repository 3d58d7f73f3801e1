import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sslosses.annotations import rasterize, rasterize_annotators, rasterize_sum

corner = st.one_of(st.floats(-0.5, 1.5), st.sampled_from([-2.9e16, 2.0, 0.0, 1.0]))
boxes_of_a_source = st.lists(st.tuples(corner, corner, corner, corner), max_size=3)


def counts(boxes, size, pixel):
    """How many boxes cover a pixel, pixel by pixel."""
    expected = np.zeros((size, size))
    for box in boxes:
        left, top, right, bottom = (pixel(v, size) for v in box)
        for y in range(size):
            for x in range(size):
                expected[y, x] += top <= y < bottom and left <= x < right
    return expected


def clipped_below(v, size):
    """LVS and NoPrior."""
    return max(int(size * v), 0)


def clipped_to_unit(v, size):
    """AVGN and T-VSL."""
    return int(size * min(max(v, 0), 1))


@pytest.mark.parametrize("pixel", [clipped_below, clipped_to_unit])
@settings(deadline=None)
@given(boxes_of_a_source, st.integers(1, 12))
def test_equals_the_loop(pixel, boxes, size):
    expected = counts(boxes, size, pixel)
    assert np.array_equal(rasterize(boxes, size).numpy(), expected > 0)
    assert np.array_equal(rasterize_sum(boxes, size).numpy(), expected)
    assert np.array_equal(rasterize_annotators(boxes, size).numpy(), np.clip(expected / 2, 0, 1))


def test_corners_are_truncated():
    mask = rasterize([(0.249, 0.0, 0.999, 0.51)], size=4)
    assert mask.int().tolist() == [[1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_broken_boxes_are_empty():
    broken = [(0.4, 0.3, -2.9e16, 0.9), (0.2, 0.2, 0.2, 0.8), (0.6, 0.6, 0.5, 0.5), (1.5, 0.0, 1.5, 1.0)]
    assert not rasterize(broken).any()
    assert not rasterize_sum(broken).any()
    assert rasterize([]).shape == rasterize_annotators([]).shape == (224, 224)


def test_overlaps():
    boxes = [(0, 0, 1, 1), (0, 0, 0.5, 1), (0, 0, 0.5, 0.5)]
    assert rasterize(boxes, 2).all()
    assert rasterize_sum(boxes, 2).tolist() == [[3, 1], [2, 1]]
    assert rasterize_annotators(boxes, 2).tolist() == [[1, 0.5], [1, 0.5]]
    assert (rasterize(boxes).dtype, rasterize_sum(boxes).dtype) == (torch.bool, torch.float32)


@pytest.mark.parametrize("function", [rasterize, rasterize_sum, rasterize_annotators])
def test_tensors_and_wrong_arguments(function):
    assert torch.equal(function(torch.tensor([[0.25, 0.5, 1, 1]]), 8), function([(0.25, 0.5, 1, 1)], 8))
    with pytest.raises(ValueError, match="4 finite numbers"):
        function([(0, 0, 1)])
    with pytest.raises(
        ValueError, match=r"fractions of the frame, but got \(0, 0, 130, 120\), which looks like pixels"
    ):
        function([(0, 0, 130, 120)])  # clipped, it would be the whole frame
    with pytest.raises(ValueError, match="4 finite numbers"):
        function([(0, 0, 1, float("nan"))])
    with pytest.raises(ValueError, match="4 finite numbers"):
        function((0, 0, 1, 1))
    with pytest.raises(ValueError, match="size"):
        function([], 0)
