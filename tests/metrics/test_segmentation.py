"""Metrics of masks against slow loops, and what torchmetrics does with them."""

import functools
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics import MetricCollection

from sslosses.metrics import AVSBenchSegmentation, SemanticSegmentation
from sslosses.metrics.functional import class_areas, f_measure_curve, foreground_iou
from sslosses.metrics.functional import segmentation as pieces

from ..processes import preload, run_group

sys.path.insert(0, str(Path(__file__).parent))
import segmentation_reference as reference

preload(__name__)

probabilities = functools.partial(AVSBenchSegmentation, scale="probabilities")
seeds = st.integers(0, 2**32 - 1)


def close(result, expected):
    assert list(result) == list(expected)
    for name, value in expected.items():
        assert float(result[name]) == pytest.approx(float(value), abs=1e-6, nan_ok=True), name


def videos_of(seed, videos=5, frames=3, side=4):
    """Maps with many ties, some at thresholds, some constant; a third of the truths is empty."""
    generator = np.random.default_rng(seed)
    levels = np.array([0.0, *reference.THRESHOLDS[1::40], 0.5, 0.50000006, 0.49999997, 1.0], dtype=np.float32)
    maps = generator.choice(levels, (videos, frames, side, side)).astype(np.float32)
    maps[generator.random((videos, frames)) < 0.2] = generator.choice(levels)
    truths = generator.random((videos, frames, side, side)) < generator.random((videos, frames, 1, 1))
    truths[generator.random((videos, frames)) < 0.3] = False
    return maps, truths


def expected_of(maps, truths, videos_per_batch):
    videos = [list(zip(m, g, strict=True)) for m, g in zip(maps, truths, strict=True)]
    return reference.avsbench(videos, videos_per_batch)


# Binary masks


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(1, 6), st.integers(1, 5))
def test_avsbench_is_the_loop_however_videos_are_split(seed, videos_per_batch, step):
    maps, truths = videos_of(seed)
    metric = probabilities(videos_per_batch=videos_per_batch)
    for i in range(0, len(maps), step):
        metric.update(torch.tensor(maps[i : i + step]), torch.tensor(truths[i : i + step]))
    close(metric.compute(), expected_of(maps, truths, videos_per_batch))


def test_every_threshold_is_compared_exactly():
    below, above = (np.nextafter(np.float32(reference.THRESHOLDS), np.float32(v)) for v in (-1, 2))
    maps = np.stack([below, np.float32(reference.THRESHOLDS), above]).clip(0, 1)
    truth = np.zeros_like(maps, dtype=bool)
    truth[1] = True
    curve = f_measure_curve(torch.tensor(maps), torch.tensor(truth))
    np.testing.assert_allclose(curve, reference.frame_curve(maps, truth), atol=1e-12)
    assert curve.shape == (255,)


def test_many_pixels_are_counted_in_parts(monkeypatch):
    maps, truths = (torch.tensor(x) for x in videos_of(7))
    whole = f_measure_curve(maps, truths), class_areas((3 * maps[0]).long(), truths[0].long(), 4)
    monkeypatch.setattr(pieces, "_PIXELS", 20)
    torch.testing.assert_close(f_measure_curve(maps, truths), whole[0], rtol=0, atol=0, equal_nan=True)
    for part, area in zip(class_areas((3 * maps[0]).long(), truths[0].long(), 4), whole[1], strict=True):
        assert torch.equal(part, area)


def test_a_frame_without_an_object_scores_its_background():
    half = torch.tensor([[1, 1], [0, 0]])
    assert foreground_iou(half, torch.zeros(2, 2)) == 0.5
    assert foreground_iou(half & 0, torch.zeros(2, 2)) == 1
    assert foreground_iou(half | 1, torch.zeros(2, 2)) == 0
    assert foreground_iou(half & 0, half) == 0


def test_half_is_not_foreground():
    """J marks p > 0.5, F marks p >= 0.5."""
    metric = probabilities()
    metric.update(torch.full((1, 1, 2, 2), 0.5), torch.ones(1, 1, 2, 2))
    result = metric.compute()
    assert (result["M_J"], result["F@0.5 pooled"]) == (0, 1)


def test_smaller_batches_raise_m_f_and_pooling_does_not_depend_on_them():
    generator = torch.Generator().manual_seed(0)
    truths = torch.rand(8, 3, 6, 6, generator=generator) > 0.6
    maps = (0.4 * truths + torch.rand(8, 3, 6, 6, generator=generator)) / 1.4
    results = []
    for videos_per_batch in (1, 2, 8):
        metric = probabilities(videos_per_batch=videos_per_batch)
        metric.update(maps, truths)
        results.append(metric.compute())
    scores = [float(result["M_F (oracle)"]) for result in results]
    assert scores[0] > scores[1] > scores[2] == pytest.approx(float(results[0]["M_F pooled (oracle)"]))
    assert len({float(result["M_F pooled (oracle)"]) for result in results}) == 1


def test_a_batch_without_an_object_counts_zero():
    maps, truths = torch.ones(2, 1, 2, 2), torch.ones(2, 1, 2, 2)
    truths[1] = 0
    metric = probabilities()
    metric.update(maps, truths)
    assert metric.compute()["M_F (oracle)"] == 0.5
    assert metric.compute()["M_F pooled (oracle)"] == 1


def test_logits_half_precision_and_autocast():
    logits = 3 * torch.randn(4, 2, 9, 9, generator=torch.Generator().manual_seed(0))
    truths = torch.tensor(videos_of(0, 4, 2, 9)[1])
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        values = logits.to(dtype)
        wide = values.double() if dtype == torch.float64 else values.float()
        metric = AVSBenchSegmentation(scale="logits", videos_per_batch=2)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            metric.update(values, truths)
        close(metric.compute(), expected_of(wide.sigmoid().numpy(), truths.numpy(), 2))


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")
def test_nothing_to_average():
    empty = {name: float(value) for name, value in probabilities().compute().items()}
    assert all(math.isnan(value) for name, value in empty.items() if name.startswith(("M_", "F@")))
    assert [value for name, value in empty.items() if not math.isnan(value)] == [0, 0, 0, 0]
    metric = probabilities()
    metric.update(torch.zeros(0, 5, 2, 2), torch.zeros(0, 5, 2, 2))
    assert metric.compute()["videos"] == 0
    metric.update(torch.zeros(1, 5, 2, 2), torch.zeros(1, 5, 2, 2))
    result = metric.compute()
    assert (result["M_J"], result["M_F (oracle)"]) == (1, 0)
    assert result["M_F pooled (oracle)"].isnan()
    classes = {name: float(value) for name, value in SemanticSegmentation(3).compute().items()}
    assert sum(math.isnan(value) for value in classes.values()) == 9


MAPS, TRUTHS = (torch.tensor(x) for x in videos_of(11, videos=5))


def test_forward_goes_on_with_the_batch():
    metric = probabilities(videos_per_batch=2)
    for i in range(5):
        value = metric(MAPS[i : i + 1], TRUTHS[i : i + 1])
        close(value, expected_of(MAPS[i : i + 1].numpy(), TRUTHS[i : i + 1].numpy(), 1))
    close(metric.compute(), expected_of(MAPS.numpy(), TRUTHS.numpy(), 2))


def parts_of(videos_per_batch, *slices):
    """Metrics of parts of the videos; merged, the batches are those of each part."""
    metrics = []
    for part in slices:
        metrics.append(probabilities(videos_per_batch=videos_per_batch))
        metrics[-1].update(MAPS[part], TRUTHS[part])
    return metrics


def merged_expectation():
    first, second = (expected_of(MAPS[s].numpy(), TRUTHS[s].numpy(), 2) for s in (slice(0, 3), slice(3, 5)))
    whole = expected_of(MAPS.numpy(), TRUTHS.numpy(), 2)
    for name in ("M_J", "M_F (oracle)"):
        whole[name] = (2 * first[name] + second[name]) / 3
    return whole


def test_merging_ends_the_batches_of_both():
    for state in (False, True):
        first, second = parts_of(2, slice(0, 3), slice(3, 5))
        first.merge_state(second.metric_state if state else second)
        close(first.compute(), merged_expectation())
        assert second.compute()["batches"] == 1
        first.merge_state(probabilities(videos_per_batch=2))
        close(first.compute(), merged_expectation())


def test_other_settings_are_not_mixed():
    first, second = probabilities(videos_per_batch=2), probabilities(videos_per_batch=4)
    second.update(MAPS[:1], TRUTHS[:1])
    with pytest.raises(ValueError, match=r"`incoming_state` to be of a metric with videos_per_batch 2.*other settings"):
        first.merge_state(second)
    with pytest.raises(TypeError, match="`incoming_state` to be a metric or its state, but got int"):
        first.merge_state(3)
    for metric in (first, second):
        metric.persistent(True)
    with pytest.raises(RuntimeError, match="other settings"):
        first.load_state_dict(second.state_dict())
    same = probabilities(videos_per_batch=4)
    same.persistent(True)
    same.load_state_dict(second.state_dict())
    assert torch.equal(same.begun, second.begun)
    collection = MetricCollection({"two": probabilities(videos_per_batch=2), "four": probabilities(videos_per_batch=4)})
    for i in range(5):
        collection.update(MAPS[i : i + 1], TRUTHS[i : i + 1])
    result = collection.compute()
    assert result["two_batches"] == 3
    assert result["four_batches"] == 2


def test_casts_keep_the_sums():
    metric = probabilities(videos_per_batch=2).half()
    metric.update(MAPS, TRUTHS)
    close(metric.half().compute(), expected_of(MAPS.numpy(), TRUTHS.numpy(), 2))
    assert metric.whole.dtype == torch.float64


def test_states_do_not_grow():
    metric, semantic = probabilities(videos_per_batch=3), SemanticSegmentation(4)
    sizes = []
    for _ in range(3):
        metric.update(MAPS, TRUTHS)
        semantic.update((3 * MAPS[0]).long(), TRUTHS[0].long())
        sizes.append([value.numel() for m in (metric, semantic) for value in m.metric_state.values()])
    assert sizes[0] == sizes[1] == sizes[2]


def segmented_by(rank):
    part = slice(0, 3) if rank == 0 else slice(3, 5)
    metric, semantic = probabilities(videos_per_batch=2), SemanticSegmentation(5, ignore_index=9)
    metric.update(MAPS[part], TRUTHS[part])
    semantic.update(*(values[part] for values in FRAMES))
    result = {**metric.compute(), **{f"class {name}": value for name, value in semantic.compute().items()}}
    # After the sums of both, the process goes on with its own batch.
    return result, metric.begun


@pytest.mark.slow
def test_two_processes():
    expected = merged_expectation() | {f"class {name}": value for name, value in semantic_expectation().items()}
    (first, begun), (second, _) = run_group(segmented_by)
    for result in (first, second):
        close(result, expected)
    assert int(begun[-1]) == 1


@pytest.mark.parametrize(
    ("error", "match", "maps", "truths"),
    [
        (TypeError, "`maps` to have a floating dtype", TRUTHS, TRUTHS),
        (ValueError, r"`maps` to have shape \(V, F, H, W\)", MAPS[0], TRUTHS[0]),
        (ValueError, r"`truths` to have shape \(V, F, H, W\) with H = 4 as in `maps`", MAPS, TRUTHS[:, :, :2]),
        (ValueError, "`maps` to be free of NaN", MAPS * math.nan, TRUTHS),
        (ValueError, r"`maps` to lie in \[0, 1\]", MAPS + 1.5, TRUTHS),
        (ValueError, "`truths` to hold 0 and 1 only", MAPS, 255 * TRUTHS),
        (ValueError, "with F >= 1", MAPS[:, :0], TRUTHS[:, :0]),
    ],
)
def test_wrong_videos(error, match, maps, truths):
    metric = probabilities()
    with pytest.raises(error, match=match):
        metric.update(maps, truths)
    assert not metric.whole.any()


def test_wrong_options():
    with pytest.raises(ValueError, match="`scale` to be one of 'logits', 'probabilities', but got 'sigmoid'"):
        AVSBenchSegmentation(scale="sigmoid")
    with pytest.raises(ValueError, match="`videos_per_batch` to be an integer >= 1, but got 0"):
        probabilities(videos_per_batch=0)
    with pytest.raises(ValueError, match="`num_classes`"):
        SemanticSegmentation(0)
    for without in ((3,), (0, 1, 2)):
        with pytest.raises(ValueError, match="`without` to hold some, but not all, of the classes 0 to 2"):
            SemanticSegmentation(3, without=without)
    with pytest.raises(TypeError, match="`without` to be a sequence of class ids, but got 2"):
        SemanticSegmentation(3, without=2)


# Class masks


def frames_of(seed, frames=5, side=4):
    """Predictions and truths of few classes of five; 9 is ignored."""
    generator = np.random.default_rng(seed)
    known = generator.choice(5, 3, replace=False)
    predicted, true = generator.choice(known, (2, frames, side, side))
    true[0] = known[0]
    predicted[1] = known[1]
    true[generator.random(true.shape) < 0.1] = 9
    return predicted, true


FRAMES = tuple(torch.tensor(x) for x in frames_of(2))


def semantic_expectation():
    return reference.semantic(list(zip(*(x.numpy() for x in FRAMES), strict=True)), 5, 9)


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from([(), (0,), (4,), (1, 2)]), st.integers(1, 5))
def test_semantic_is_the_loop(seed, without, step):
    predicted, true = frames_of(seed)
    metric = SemanticSegmentation(5, ignore_index=9, without=without)
    for i in range(0, len(true), step):
        metric.update(torch.tensor(predicted[i : i + step]), torch.tensor(true[i : i + step]))
    close(metric.compute(), reference.semantic(list(zip(predicted, true, strict=True)), 5, 9, without))


def test_scores_of_classes_count_by_their_largest():
    scores = torch.randn(5, 5, 4, 4, generator=torch.Generator().manual_seed(0)).bfloat16()  # with ties
    first, second = SemanticSegmentation(5, ignore_index=9), SemanticSegmentation(5, ignore_index=9)
    first.update(scores, FRAMES[1])
    predicted = np.argmax(scores.float().numpy(), axis=1)  # the first of equal ones
    second.update(torch.tensor(predicted), FRAMES[1].to(torch.uint8))
    close(first.compute(), second.compute())
    close(first.compute(), reference.semantic(list(zip(predicted, FRAMES[1].numpy(), strict=True)), 5, 9))


def test_one_frame_tells_both_ways_apart():
    """A class of one small and one large frame."""
    metric = SemanticSegmentation(2)
    predicted, true = torch.zeros(2, 1, 8).long(), torch.zeros(2, 1, 8).long()
    predicted[0, 0, 0] = true[0, 0, 0] = 1
    true[1, 0, :7] = 1
    metric.update(predicted, true)
    result = metric.compute()
    assert result["mIoU per frame"] == (1 + 1 / 8) / 2 / 2 + 1 / 2 / 2
    assert result["mIoU pooled"] == (8 / 15 + 1 / 8) / 2


@pytest.mark.parametrize(
    ("error", "match", "predictions", "truths"),
    [
        (TypeError, "`truths` to hold class ids of an integer dtype", FRAMES[0], FRAMES[1].float()),
        (TypeError, "`predictions` to hold class ids of an integer dtype", FRAMES[0] > 0, FRAMES[1]),
        (ValueError, "`predictions` to hold class ids from 0 to 4, but got 5", 5 + 0 * FRAMES[0], FRAMES[1]),
        (ValueError, "ids from 0 to 4, or `ignore_index` 9, but got -1", FRAMES[0], -1 + 0 * FRAMES[1]),
        (ValueError, "the scores of `num_classes` classes", torch.zeros(5, 4, 4, 4), FRAMES[1]),
        (ValueError, "`predictions` to be free of NaN", torch.full((5, 5, 4, 4), math.nan), FRAMES[1]),
        (ValueError, r"`truths` to have shape \(N, H, W\)", FRAMES[0], FRAMES[1][0]),
    ],
)
def test_wrong_classes(error, match, predictions, truths):
    metric = SemanticSegmentation(5, ignore_index=9)
    with pytest.raises(error, match=match):
        metric.update(predictions, truths)
    assert metric.frames == 0
    with pytest.raises(ValueError, match="from 0 to 4, but got 9"):
        SemanticSegmentation(5).update(*FRAMES)
