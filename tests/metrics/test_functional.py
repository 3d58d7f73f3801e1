"""Pure functions against scikit-learn, NumPy loops and known answers."""

import importlib
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import auc, average_precision_score

from sslosses.metrics.functional import (
    AUC_THRESHOLDS,
    area_under_success,
    average_precision,
    binarize_above_upper_median,
    binarize_area,
    binarize_from_upper_median,
    binarize_from_value,
    binary_average_precision,
    boxes_to_truths,
    ciou,
    detection_average_precision,
    detection_f1,
    fixed_range_normalize,
    greedy_assignment,
    min_max_normalize,
    optimal_assignment,
    resize_bicubic,
    resize_bilinear,
    smoothed_iou,
    success_auc,
    success_rate,
    swapped_average_precision,
    upper_median,
)
from sslosses.metrics.functional._order import kth_smallest, mean_of_largest

sys.path.insert(0, str(Path(__file__).parent))
import reference


@pytest.fixture(params=["compiled", "plain"], scope="module")
def either_path(request):
    module = importlib.import_module("sslosses.metrics.functional.average_precision")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_WORTH_COMPILING", 1 if request.param == "compiled" else 1 << 60)
        yield


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


@pytest.mark.usefixtures("either_path")
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


@pytest.mark.usefixtures("either_path")
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
    with pytest.raises(ValueError, match="the same height and width"):
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
    at_maximum = (maps == max(values)) & (min(values) < max(values))
    assert torch.equal(binarize_above_upper_median(maps), (maps > sorted(values)[len(values) // 2]) | at_maximum)


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
        center = (i + 0.5) * len(row) / size - 0.5
        total = 0.0
        for tap in range(int(np.floor(center)) - 1, int(np.floor(center)) + 3):
            d = abs(center - tap)
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


@settings(max_examples=60, deadline=None)
@given(seeds, *[st.integers(1, 16)] * 2, *[st.integers(1, 40)] * 2)
def test_resize_is_opencvs(seed, h, w, height, width):
    maps = np.random.default_rng(seed).normal(size=(h, w)).astype(np.float32)
    for resize, flag in ((resize_bicubic, cv2.INTER_CUBIC), (resize_bilinear, cv2.INTER_LINEAR)):
        expected = cv2.resize(maps, (width, height), interpolation=flag)
        np.testing.assert_allclose(resize(torch.tensor(maps), (height, width)), expected, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(seeds, *[st.integers(1, 16)] * 2, *[st.integers(1, 40)] * 2)
def test_resize_is_torchs(seed, h, w, height, width):
    maps = torch.tensor(np.random.default_rng(seed).normal(size=(2, 1, h, w)))
    interpolate = torch.nn.functional.interpolate
    for aligned in (False, True):
        expected = interpolate(maps, size=(height, width), mode="bilinear", align_corners=aligned)
        result = resize_bilinear(maps, (height, width), align_corners=aligned)
        np.testing.assert_allclose(result, expected, atol=1e-12)
    expected = interpolate(maps, size=(height, width), mode="bicubic", align_corners=False)
    np.testing.assert_allclose(resize_bicubic(maps, (height, width)), expected, atol=1e-12)


@pytest.mark.parametrize("value", [0.1, -7.3, 1e6])
@pytest.mark.parametrize("resize", [resize_bicubic, resize_bilinear])
def test_a_constant_map_stays_constant(resize, value):
    resized = resize(torch.full((7, 7), value), (224, 224))
    assert (resized == resized[0, 0]).all()


@pytest.mark.usefixtures("either_path")
@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from([1, 2, 4, 10**6]))
def test_average_precision_of_signed_scores_and_zeros(seed, levels):
    generator = np.random.default_rng(seed)
    scores = generator.integers(-levels, levels + 1, (6, 4, 5)) / levels
    scores[0, 0, 0], scores[0, 0, 1] = 0.0, -0.0  # one level
    truth = generator.random((6, 4, 5)) < 0.4
    expected = [reference.pixel_ap(s, g) for s, g in zip(scores.astype(np.float32), truth, strict=True)]
    np.testing.assert_allclose(
        average_precision(torch.tensor(scores).float(), torch.tensor(truth)), expected, atol=1e-6
    )


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_swapped_average_precision_is_sklearns(seed):
    generator = np.random.default_rng(seed)
    binary, truth = generator.random((3, 4, 5)) < 0.5, generator.integers(0, 4, (3, 4, 5)) / 3
    for g in (truth, truth > 0.5):
        expected = [reference.pixel_ap(s.astype(float), b) for s, b in zip(g, binary, strict=True)]
        result = swapped_average_precision(torch.tensor(binary), torch.tensor(g))
        np.testing.assert_allclose(result, expected, atol=1e-6)


@settings(max_examples=80, deadline=None)
@given(seeds, st.integers(0, 6), st.integers(1, 5))
def test_optimal_assignment_reaches_scipys_total(seed, maps, sources):
    scores = np.random.default_rng(seed).integers(0, 5, (4, maps, sources)) / 4
    owner = optimal_assignment(torch.tensor(scores)).numpy()
    for mine, table in zip(owner, scores, strict=True):
        pairs = [(m, s) for s, m in enumerate(mine) if m >= 0]
        assert len({m for m, _ in pairs}) == len(pairs) == min(maps, sources)
        assert sum(table[p] for p in pairs) == pytest.approx(table[linear_sum_assignment(-table)].sum())


def test_optimal_assignment_of_forbidden_pairs_and_many():
    scores = torch.tensor([[[0.9, 0.5], [0.8, 0.0]]])
    assert optimal_assignment(scores).tolist() == [[1, 0]]
    allowed = torch.tensor([[[True, False], [True, True]]])
    assert optimal_assignment(scores, allowed).tolist() == [[0, 1]]
    assert optimal_assignment(scores, torch.zeros_like(allowed)).tolist() == [[-1, -1]]
    assert optimal_assignment(torch.zeros(1, 3, 2)).tolist() == [[0, 1]]  # all tied: in order
    assert optimal_assignment(torch.zeros(2, 0, 2)).tolist() == [[-1, -1]] * 2
    allowed = torch.tensor([[[False, True], [False, True]]])  # none for source 0, so source 1 takes the first map
    assert optimal_assignment(torch.zeros(1, 2, 2), allowed).tolist() == [[-1, 0]]
    with pytest.raises(ValueError, match="ways to assign"):
        optimal_assignment(torch.zeros(1, 9, 9))


@settings(max_examples=80, deadline=None)
@given(seeds, st.integers(1, 30), st.sampled_from([0.3, 0.5]))
def test_detection_equals_the_loop(seed, count, threshold):
    generator = np.random.default_rng(seed)
    ciou, confidence = generator.integers(0, 11, count) / 10, generator.integers(0, 9, count) / 8
    tensors = torch.tensor(ciou), torch.tensor(confidence)
    expected = reference.detection_ap(ciou, confidence, threshold)
    assert detection_average_precision(*tensors, threshold).item() == pytest.approx(expected, abs=1e-12)
    expected = reference.detection_f1(ciou, confidence, threshold)
    assert detection_f1(*tensors, threshold).item() == pytest.approx(expected, abs=1e-12)


def test_detection_takes_every_other_level_of_many_entries():
    generator = np.random.default_rng(0)
    ciou, confidence = generator.random(450), generator.random(450)
    expected = reference.detection_ap(ciou, confidence, 0.3)
    result = detection_average_precision(torch.tensor(ciou), torch.tensor(confidence), 0.3)
    assert result.item() == pytest.approx(expected, abs=1e-12)
    assert torch.isnan(detection_average_precision(torch.zeros(0), torch.zeros(0)))
    assert torch.isnan(detection_f1(torch.zeros(0), torch.zeros(0)))


def test_binarizations_and_normalization():
    maps = torch.tensor([[0.0, 1.0, 1.0, 4.0]])
    assert binarize_from_upper_median(maps).tolist() == [[False, True, True, True]]
    assert binarize_above_upper_median(maps).tolist() == [[False, False, False, True]]
    assert binarize_above_upper_median(maps.clamp(max=1)).tolist() == [[False, True, True, True]]  # at the maximum
    assert not binarize_above_upper_median(torch.ones(2, 2)).any()
    assert binarize_from_value(maps, 0.25).tolist() == [[False, True, True, True]]
    assert binarize_area(maps, 0.25).tolist() == [[False, False, False, True]]
    assert binarize_area(maps, 0.5).tolist() == [[False, True, True, True]]  # the tie comes along
    assert binarize_area(maps, 1.0).all()
    assert fixed_range_normalize(torch.tensor([[-1 / 0.03, 1 / 0.03]]))[0].tolist() == pytest.approx([0, 1])
    assert smoothed_iou(torch.zeros(2, 2), torch.zeros(2, 2)) == 1


def test_boxes():
    boxes = torch.tensor([[0.0, 0.0, 0.6, 0.5], [0.5, 0.0, 1.7, 0.5], [0.9, 0.9, 0.1, 0.1], [torch.nan] * 4])
    assert boxes_to_truths(boxes, 4).int().tolist() == [[1, 1, 1, 1]] * 2 + [[0] * 4] * 2
    assert boxes_to_truths(boxes[:2] - torch.tensor([0.1, 0, 0, 0]), 4, add=True).tolist()[0] == [1, 2, 1, 1]
    with pytest.raises(ValueError, match="n, 4"):
        boxes_to_truths(torch.zeros(3), 4)
    with pytest.raises(ValueError, match="fractions of the frame, but got 130, which looks like pixels"):
        boxes_to_truths(torch.tensor([[0.0, 0, 130, 120], [torch.nan] * 4]))


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(0, 19999), st.sampled_from(["smooth", "ties", "sorted", "constant", "outliers"]))
def test_kth_smallest_of_long_rows(seed, k, kind):
    """Long enough to be found by a sample, which sorted and tied rows mislead."""
    row = np.random.default_rng(seed).normal(size=20000).astype(np.float32)
    row = {
        "smooth": row,
        "ties": row.round(),
        "sorted": np.sort(row),
        "constant": 0 * row,
        # none in the sample: every value that the sample has is above the wanted one
        "outliers": np.where(np.arange(20000) % 61 == 0, 9.0, row).astype(np.float32),
    }[kind]
    assert kth_smallest(torch.from_numpy(row)[None], k).tolist() == [np.sort(row)[k]]


@pytest.mark.parametrize("count", [1, 3, 7, 12])
def test_mean_of_largest_with_ties(count):
    values = torch.tensor([[3.0, 1.0, 3.0, 2.0, 2.0, 2.0, 0.0, -1.0, 3.0, 2.0, 2.0, 5.0]])
    assert mean_of_largest(values, count).item() == pytest.approx(values.topk(count).values.mean().item())


@pytest.mark.usefixtures("either_path")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("low", [-1.0, 0.0, 1.0])
def test_average_precision_of_many_tied_rows(dtype, low):
    """In one sort for all rows, levels of one row must not run into the next; scores above 1 take wider keys."""
    generator = np.random.default_rng(3)
    scores, truth = low + generator.integers(0, 3, (20, 6, 7)) / 2, generator.random((20, 6, 7)) < 0.3
    truth[4] = False
    scores[:, 0, 0], truth[:, 0, 0] = low + 1, True  # the last level of a row may be the first of the next
    scores[7] = scores[8] = low
    truth[7:9] = True
    expected = [reference.pixel_ap(s, g) for s, g in zip(scores, truth, strict=True)]
    result = average_precision(torch.tensor(scores, dtype=dtype), torch.tensor(truth))
    np.testing.assert_allclose(result, expected, atol=1e-6)
    assert average_precision(torch.zeros(0, 2, 2), torch.zeros(0, 2, 2)).shape == (0,)
