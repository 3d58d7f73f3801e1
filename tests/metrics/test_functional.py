"""Pure functions against scikit-learn, NumPy loops and known answers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc, average_precision_score

from sslosses.metrics.functional import (
    AUC_THRESHOLDS,
    area_under_success,
    average_precision,
    binarize_above_upper_median,
    binary_average_precision,
    ciou,
    greedy_assignment,
    min_max_normalize,
    resize_bicubic,
    success_auc,
    success_rate,
    upper_median,
)

seeds = st.integers(0, 2**32 - 1)


def scores_and_truth(seed, levels):
    generator = np.random.default_rng(seed)
    shape = (3, 2, generator.integers(1, 6), generator.integers(1, 6))
    truth = generator.random(shape) < generator.random((3, 2, 1, 1)) * 1.2
    truth[0, 0] = False
    return generator.integers(0, levels, shape).astype(float), truth


def sklearn_ap(scores, truth):
    return np.array(
        [
            average_precision_score(g.ravel(), s.ravel()) if g.any() else 0.0
            for s, g in zip(scores.reshape(6, -1), truth.reshape(6, -1), strict=True)
        ]
    ).reshape(3, 2)


@settings(max_examples=100, deadline=None)
@given(seeds, st.sampled_from([1, 2, 3, 6, 10**6]))
def test_average_precision_is_sklearns(seed, levels):
    scores, truth = scores_and_truth(seed, levels)
    result = average_precision(torch.tensor(scores), torch.tensor(truth))
    np.testing.assert_allclose(result, sklearn_ap(scores, truth), atol=1e-12)
    result = average_precision(torch.tensor(scores).float(), torch.tensor(truth))
    np.testing.assert_allclose(result, sklearn_ap(scores, truth), atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(seeds, st.sampled_from([1, 2]))
def test_binary_average_precision_is_sklearns(seed, levels):
    binary, truth = scores_and_truth(seed, levels)
    for prediction in (binary, 1 - binary):
        result = binary_average_precision(torch.tensor(prediction > 0), torch.tensor(truth).double())
        np.testing.assert_allclose(result, sklearn_ap(prediction > 0, truth), atol=1e-12)


def test_average_precision_broadcasts():
    scores, truth = torch.rand(4, 1, 5, 5), torch.rand(3, 5, 5) > 0.5
    assert average_precision(scores, truth).shape == (4, 3)
    assert torch.equal(average_precision(scores, truth)[2, 1], average_precision(scores[2, 0], truth[1]))
    assert binary_average_precision(scores > 0.5, truth).shape == (4, 3)


def test_ciou_known_answers():
    b = torch.tensor([[1, 1], [1, 0]])
    assert ciou(b, torch.tensor([[1.0, 0.5], [0.0, 0.0]])) == pytest.approx(1.5 / 2.5)
    assert ciou(b, torch.zeros(2, 2)) == 0
    assert ciou(torch.zeros(2, 2), torch.zeros(2, 2)) == 0
    assert ciou(b, b) == 1
    assert ciou(torch.ones(3, 1, 2, 2), torch.ones(4, 2, 2)).shape == (3, 4)
    with pytest.raises(ValueError, match="one height and width"):
        ciou(torch.ones(2, 2), torch.ones(2, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_thresholds_are_reached_by_exact_fractions(dtype):
    for i, threshold in enumerate(AUC_THRESHOLDS):
        b, g = torch.zeros(4, 5, dtype=dtype), torch.ones(4, 5, dtype=dtype)
        b.view(-1)[:i] = 1
        assert success_rate(ciou(b, g)[None], threshold) == 1
        expected = 0.05 * (i + 0.5) if i < 20 else 1.0
        assert success_auc(ciou(b, g)[None]).item() == pytest.approx(expected)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_auc_is_sklearns(values):
    rates = [np.mean(np.array(values) >= t) for t in AUC_THRESHOLDS]
    assert success_auc(torch.tensor(values, dtype=torch.float64)).item() == pytest.approx(auc(AUC_THRESHOLDS, rates))
    with pytest.raises(ValueError, match=r"\(\.\.\., 21\)"):
        area_under_success(torch.zeros(20))


@settings(deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12))
def test_upper_median_and_binary_map(values):
    maps = torch.tensor([values], dtype=torch.float64)
    assert upper_median(maps) == sorted(values)[len(values) // 2]
    assert torch.equal(binarize_above_upper_median(maps), maps > sorted(values)[len(values) // 2])


def test_min_max():
    maps = torch.tensor([[[2.0, 4.0]], [[7.0, 7.0]]])
    assert torch.equal(min_max_normalize(maps), torch.tensor([[[0.0, 1.0]], [[0.0, 0.0]]]))
    assert min_max_normalize(maps.half()).dtype == torch.float32
    with pytest.raises(TypeError, match="floating"):
        min_max_normalize(maps.long())


def cubic_reference(row, size):
    """Cubic convolution of one row, tap by tap, with the border repeated."""
    a, out = -0.75, []
    for i in range(size):
        centre = (i + 0.5) * len(row) / size - 0.5
        total = 0.0
        for tap in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            d = abs(centre - tap)
            w = (a + 2) * d**3 - (a + 3) * d**2 + 1 if d <= 1 else a * (d**3 - 5 * d**2 + 8 * d - 4)
            total += w * row[min(max(tap, 0), len(row) - 1)]
        out.append(total)
    return out


@settings(max_examples=50, deadline=None)
@given(seeds, st.integers(1, 9), st.integers(1, 9), st.integers(1, 20), st.integers(1, 20))
def test_resize_is_cubic_convolution(seed, h, w, height, width):
    maps = np.random.default_rng(seed).normal(size=(2, h, w))
    expected = [
        np.array([cubic_reference(column, height) for column in np.array([cubic_reference(r, width) for r in m]).T]).T
        for m in maps
    ]
    np.testing.assert_allclose(resize_bicubic(torch.tensor(maps), (height, width)), expected, atol=1e-12)


def test_resize_shapes():
    assert resize_bicubic(torch.zeros(2, 0, 3, 3), (4, 5)).shape == (2, 0, 4, 5)
    with pytest.raises(ValueError, match="h, w >= 1"):
        resize_bicubic(torch.zeros(2, 0, 3), (4, 5))


def test_greedy_assignment():
    scores = torch.tensor([[[0.5, 0.5], [0.9, 0.1], [0.3, 0.3]], [[0.0, 0.0], [0.0, 0.2], [0.0, 0.9]]])
    valid = torch.tensor([[True, True, True], [False, True, True]])
    source, score, fresh = greedy_assignment(scores, valid)
    # first sample: the tie goes to source 0, map 1 finds only source 1, map 2 finds nothing and lands on the taken 0
    assert source.tolist() == [[0, 1, 0], [-1, 1, 0]]
    np.testing.assert_allclose(score, [[0.5, 0.1, 0.0], [0.0, 0.2, 0.0]])
    assert fresh.tolist() == [[True, True, False], [False, True, True]]
    with pytest.raises(ValueError, match="S >= 1"):
        greedy_assignment(torch.zeros(1, 1, 0))
    assert greedy_assignment(torch.zeros(2, 0, 1)).source.shape == (2, 0)
