"""The protocols with negatives, oracles, fixed thresholds and unions against their slow loops."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sslosses.metrics import LocalizationMetric, SoundLocalization, chance_levels, protocols
from sslosses.metrics import functional as F

sys.path.insert(0, str(Path(__file__).parent))
import reference_benchmarks as reference

pytestmark = pytest.mark.filterwarnings("ignore:.* (samples|sources|maps) have :UserWarning")
ALIGNED = ("slavc", "slavc-fixed", "avgn-test", "fnac")
NAMES = (*ALIGNED, "sslalign", "sslalign-adaptive", "fnac-bicubic", "htf", "ssl-tie", "rcgrad", "acl", "dsol")
PRIORS = ("slavc", "slavc-fixed", "avgn-test", "sslalign", "sslalign-adaptive", "fnac", "fnac-bicubic")
COUNTS = ("samples", "samples_without_map", "empty_truths", "samples_without_source")


def loop(name):
    return getattr(reference, name.replace("-", "_"))


@st.composite
def cases(draw, size, sides, layouts, most_sources=3, least_sources=0):
    layout = draw(st.sampled_from(layouts))
    samples = []
    for _ in range(draw(st.integers(1, 5))):
        truths = np.zeros((draw(st.integers(least_sources, most_sources)), size, size))
        for truth in truths:
            for value in draw(st.sampled_from([(), (1.0,), (1.0,), (1.0, 1.0), (0.5, 0.5)])):
                top, bottom, start, end = (draw(st.integers(0, size)) for _ in range(4))
                truth[top:bottom, start:end] += value
        side, frames = draw(st.sampled_from(sides)), max(1, len(truths))
        down = frames if layout == "stacked" else 1
        across = frames if layout == "side-by-side" else 1
        shape = (draw(st.integers(0, 3)), side * down, side * across)
        maps = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).integers(-3, 4, shape).astype(float)
        if len(maps) and draw(st.booleans()):
            maps[draw(st.integers(0, len(maps) - 1))] = draw(st.integers(-2, 2))
        if draw(st.booleans()):
            maps = maps.clip(max=0)  # most pixels at the maximum
        samples.append((maps, truths.clip(0, 1)))
    return layout, samples


def cases_of(name, **options):
    """Sides that keep resized values exact, so that ties are the same in both."""
    if name in ALIGNED:
        return 9, cases(9, (1, 2, 3, 5, 9), ("one",), **options)
    layouts = ("one",) if name == "noprior-union" else ("one", "stacked", "side-by-side")
    return 8, cases(8, (1, 2, 4, 8), layouts, **options)


def tensors(samples, dtype=torch.float64):
    return [torch.tensor(m, dtype=dtype) for m, _ in samples], [torch.tensor(g, dtype=dtype) for _, g in samples]


def assert_equal(result, wanted, tolerance=1e-6):
    assert {"entries"} <= set(wanted) & set(result)
    for name, value in result.items():
        if name in wanted:
            assert abs(float(value) - wanted[name]) <= tolerance, (name, float(value), wanted[name])
        else:
            assert name in COUNTS or torch.isnan(value), name


@pytest.mark.parametrize("name", [*NAMES, "noprior-union"])
def test_protocol_equals_its_loop(name):
    size, generated = cases_of(name)
    protocol = protocols.get(name).replace(size=size)

    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
    @given(generated)
    def check(case):
        layout, samples = case
        metric = SoundLocalization(protocol, layout=layout)
        metric.update(*tensors(samples[:1]))
        metric.update(*tensors(samples[1:]))
        assert_equal(metric.compute(), loop(name)(samples, layout, size))

    check()


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases(8, (1, 2, 4, 8), ("one",), most_sources=1))
def test_dsol_has_another_threshold_for_single_sources(case):
    layout, samples = case
    metric = SoundLocalization(protocols.dsol.replace(size=8), task="single")
    metric.update(*tensors(samples))
    assert_equal(metric.compute(), reference.dsol(samples, layout, 8, single=True))


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases(8, (1, 2, 4, 8), ("one", "stacked"), least_sources=1), st.data())
def test_dsol_with_classes_equals_its_loop(case, data):
    layout, samples = case
    ids = st.integers(-1, 2)
    classes = [
        tuple(data.draw(st.lists(ids, min_size=len(part), max_size=len(part))) for part in sample) for sample in samples
    ]
    metric = SoundLocalization(protocols.dsol.replace(size=8), layout=layout)
    metric.update(
        *tensors(samples),
        map_classes=[of_maps for of_maps, _ in classes],
        source_classes=[of_sources for _, of_sources in classes],
    )
    assert_equal(metric.compute(), reference.dsol(samples, layout, 8, classes=classes))


@pytest.mark.parametrize("name", PRIORS)
def test_object_prior_equals_its_loop(name):
    generator = np.random.default_rng(0)
    samples, priors = [], 2 * generator.random((8, 5, 7))
    for sources in (1, 0, 2, 1, 0, 1, 1, 2):
        truths = (generator.random((sources, 32, 32)) < 0.4).astype(float)
        samples.append((20 * generator.normal(size=(1, 7, 7)), truths))
    metric = SoundLocalization(protocols.get(name).replace(size=32))
    metric.update(*tensors(samples), priors=torch.tensor(priors))
    assert_equal(metric.compute(), loop(name)(samples, "one", 32, priors))


def test_raw_maps_and_priors_are_mixed_as_they_are():
    maps, prior = torch.tensor([[0.2, 0.8]] * 2), torch.tensor([[0.4, 0.1]] * 2)  # their mean: 0.3 and 0.45
    truth = torch.tensor([[0.0, 1.0]] * 2)
    metric = SoundLocalization(protocols.acl.replace(size=2, threshold=0.4, prior_weight=0.5))
    metric.update(maps[None, None], truth[None, None], priors=prior[None])
    assert metric.compute()["AUC"] == pytest.approx(1)


def test_acl_with_one_threshold_is_no_oracle():
    size, generator = 8, np.random.default_rng(3)
    samples = [(generator.random((1, 4, 4)), (generator.random((1, 8, 8)) < 0.4).astype(float)) for _ in range(9)]
    protocol = protocols.acl.replace(size=size, threshold=0.35)
    assert not protocol.oracle
    metric = SoundLocalization(protocol)
    metric.update(*tensors(samples))
    assert_equal(metric.compute(), reference.acl(samples, "one", size, [0.35]))
    strict = SoundLocalization(protocol.replace(binarization="from value, strict", threshold=0.0))
    strict.update(torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8))
    assert strict.compute()["CIoU@0.5"] == 0  # no pixel is above 0


def test_several_thresholds_in_mixtures_without_maps_and_by_size():
    generator = np.random.default_rng(5)
    samples = []
    for count, sources in ((2, 2), (0, 2), (1, 0), (0, 0), (3, 1)):
        inside = (generator.random((sources, 4, 4)) < 0.4).astype(float)
        maps = generator.random((count, 4, 4)) / 4 + (0.5 * inside.sum(0) / count if sources and count else 0)
        samples.append((maps, inside.repeat(2, axis=1).repeat(2, axis=2)))
    protocol = protocols.acl.replace(size=8)
    metric = SoundLocalization(protocol)
    metric.update(*tensors(samples))
    assert_equal(metric.compute(), reference.acl(samples, "one", 8))
    assert reference.acl(samples, "one", 8)["AUC"] > reference.acl(samples, "one", 8, [0.05])["AUC"]
    parts = metric.result().per_size.values()
    assert sum(part["entries"] for part in parts) == 3
    assert all(0 < part["AUC"] <= 1 for part in parts)
    other = SoundLocalization(protocol)
    other.update(*tensors(samples[:2]))
    rest = SoundLocalization(protocol)
    rest.update(*tensors(samples[2:]))
    other.merge_state(rest)
    assert other.compute() == metric.compute()


# Samples without a source


@pytest.mark.parametrize("none", [[], torch.zeros(0, 8, 8), torch.zeros(0, 8, 8, dtype=torch.bool)])
def test_a_negative_is_counted_and_enters_only_detection(none):
    truths = [torch.zeros(1, 8, 8, dtype=torch.float64) for _ in range(5)]
    for truth in truths:
        truth[:, :4] = 1
    maps = [truth + i for i, truth in enumerate(truths)]
    without, also = (SoundLocalization(protocols.slavc.replace(size=8), task="single") for _ in range(2))
    without.update(maps, truths)
    also.update([*maps, 30 * torch.ones(1, 4, 4, dtype=torch.float64)], [*truths, none])
    alone, both = without.compute(), also.compute()
    assert int(both["samples_without_source"]) == 1
    assert int(both["samples"]) == 6
    assert both["entries"] == alone["entries"]
    assert (both["LocAcc"], both["AUC"]) == (alone["LocAcc"], alone["AUC"])
    assert both["MaxF1@0.5"] < alone["MaxF1@0.5"]
    assert "1 samples without source" in str(also.result())
    assert "samples without source" in also.result().to_markdown()
    assert "without source" not in str(without.result())
    assert "without source" not in without.result().to_markdown()


def test_negatives_as_one_tensor():
    metric = SoundLocalization(protocols.slavc.replace(size=8))
    metric.update(torch.rand(3, 1, 4, 4), torch.zeros(3, 0, 8, 8))
    metric.update(torch.rand(2, 0, 4, 4), torch.zeros(2, 0, 8, 8))
    result = metric.compute()
    assert int(result["samples_without_source"]) == 5
    assert int(result["samples_without_map"]) == 0
    assert all(torch.isnan(result[name]) for name in protocols.slavc.mixture_metrics)


def test_given_confidences_count_for_entries_and_negatives():
    truth = torch.ones(1, 8, 8)
    maps = [torch.rand(1, 4, 4), torch.rand(1, 4, 4), torch.rand(2, 4, 4)]
    for confidences, precision in (([[0.9], [0.8], [0.1, 0.2]], 2 / 2), ([[0.3], [0.2], [0.1, 0.9]], 2 / 3)):
        metric = SoundLocalization(protocols.slavc.replace(size=8), task="single")
        metric.update(maps, [truth, truth, []], confidences=confidences)
        assert metric.compute()["MaxF1@0.5"] == pytest.approx(2 * precision / (precision + 1))


def test_counts_of_maps_and_means_over_samples_leave_negatives_out():
    names = ("CAP", "PIAP", "CountAcc", "Coverage")
    for maps_of_negative in (0, 1, 3):
        metric = SoundLocalization(protocols.noprior.replace(size=8, mixture_metrics=names))
        metric.update([torch.rand(1, 4, 4)], [torch.ones(1, 8, 8)])
        alone = metric.compute()
        metric.update([torch.rand(maps_of_negative, 4, 4)], [[]])
        with pytest.warns(UserWarning, match="1 of 2 samples have no source and are left out by protocol 'noprior"):
            both = metric.compute()
        assert [both[name] for name in names] == [alone[name] for name in names]
        assert both["entries"] == 1


@pytest.mark.parametrize("name", protocols.available())
def test_every_protocol_and_its_chance_levels_take_negatives(name):
    truths = [torch.ones(1, 8, 8), [], [[(0.0, 0.0, 0.5, 0.5)]]]
    protocol = protocols.get(name).replace(size=8)
    for layout in ("one", "stacked", "side-by-side"):
        for values in chance_levels(truths, protocol, layout=layout).values():
            assert int(values["samples_without_source"]) == 1
            assert int(values["entries"]) == 2
            assert not any(torch.isnan(values[metric]) for metric in protocol.mixture_metrics)


def test_chance_maps_cover_the_fixed_range():
    truths = torch.zeros(40, 1, 8, 8)
    truths[..., 2:6, 2:6] = 1
    levels = chance_levels(truths, protocols.slavc_fixed.replace(size=8), task="single")
    assert levels["whole frame"]["LocAcc"] == 0
    assert levels["centered Gaussian"]["LocAcc"] == 1
    assert levels["random maps"]["AUC"] < 0.4  # half of the pixels, not all


def test_by_size_is_half_open_and_without_negatives():
    sizes = {"small": (31, 32), "medium": (32, 32), "large": (96, 96), "huge": (144, 144)}
    truths = [torch.zeros(1, 224, 224) for _ in sizes]
    for truth, (height, width) in zip(truths, sizes.values(), strict=True):
        truth[:, :height, :width] = 1
    metric = SoundLocalization("slavc", task="single")
    metric.update([torch.rand(1, 7, 7)] * 5, [*truths, []])
    parts = metric.result().per_size
    assert {name: part["entries"] for name, part in parts.items()} == dict.fromkeys(sizes, 1)
    assert set(parts["small"]) == {"LocAcc", "AUC", "DetAP@0.5", "MaxF1@0.5", "entries"}
    metric.reset()
    metric.update([torch.ones(1, 224, 224)], [torch.ones(1, 224, 224)], source_classes=[[7]])
    assert metric.result().per_size["huge"]["MaxF1@0.5"] == 1  # no other column passes for a false alarm
    assert metric.result().per_class["7"]["MaxF1@0.5"] == 1


# Oracles


def test_oracles_are_marked_everywhere():
    oracles = {name for name in protocols.available() if protocols.get(name).oracle}
    assert oracles == {"sslalign-adaptive", "acl"}
    for name in protocols.available():
        assert ("(oracle)" in str(protocols.get(name))) == (name in oracles)
    metric = SoundLocalization(protocols.sslalign_adaptive.replace(size=8, name="mine"), task="single")
    metric.update(torch.rand(1, 1, 4, 4), torch.ones(1, 1, 8, 8))
    result = metric.result()
    assert result.oracle
    assert str(result).startswith("mine (single, oracle) |")
    assert result.to_markdown().startswith("| mine (oracle), single |")
    assert result.to_latex().splitlines()[2].startswith("mine (oracle), single &")
    assert result.to_dict()["oracle"] is True


def test_truth_area_as_a_function():
    maps = torch.tensor([[0.1, 0.4], [0.3, 0.2]])
    assert F.binarize_truth_area(maps, torch.tensor([[1.0, 0.5], [0.0, 0.0]])).tolist() == [[False, True], [False] * 2]
    assert F.binarize_truth_area(maps, torch.zeros(2, 2)).sum() == 1  # half of the pixels, less one
    assert F.binarize_truth_area(maps, torch.ones(2, 2)).sum() == 3
    assert F.binarize_truth_area(torch.ones(2, 2), torch.ones(2, 2)).sum() == 0
    with pytest.raises(ValueError, match=r"`truth` to have shape \(2, 2\), but got \(1, 2, 2\)"):
        F.binarize_truth_area(maps, torch.ones(1, 2, 2))


# Detection


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.3, 0.5, 0.9]), st.integers(0, 9)), min_size=1, max_size=40),
    st.lists(st.integers(0, 9), max_size=40),
)
def test_detection_equals_its_loop(entries, negatives):
    ciou, confidence = torch.tensor(entries, dtype=torch.float64).T
    sounds = torch.tensor(negatives, dtype=torch.float64)
    expected = reference.det_ap(entries, negatives, 0.5), reference.max_f1(entries, negatives, 0.5)
    assert float(F.detection_average_precision(ciou, confidence, negatives=sounds)) == pytest.approx(expected[0])
    assert float(F.detection_max_f1(ciou, confidence, negatives=sounds)) == pytest.approx(expected[1])
    p, r = reference.detections(entries, negatives, 5, 0.5)
    f1 = 2 * p * r / (p + r) if p + r else 0.0
    assert float(F.detection_f1(ciou, confidence, level=5, negatives=sounds)) == pytest.approx(f1)


def test_detection_over_many_levels_steps():
    generator = np.random.default_rng(2)
    cious = generator.random(450)
    entries = list(zip(cious, cious + generator.random(450) / 2, strict=True))  # sure of what is right
    negatives = list(1.5 * generator.random(170))
    ciou, confidence = torch.tensor(entries).T
    pairs = ((F.detection_average_precision, reference.det_ap), (F.detection_max_f1, reference.max_f1))
    for function, in_a_loop in pairs:
        value = function(ciou, confidence, negatives=torch.tensor(negatives))
        assert float(value) == pytest.approx(in_a_loop(entries, negatives, 0.5), abs=1e-12)


def test_negatives_are_checked():
    one = torch.ones(1)
    for function in (F.detection_average_precision, F.detection_max_f1, F.detection_f1):
        assert torch.isnan(function(one[:0], one[:0], negatives=one))
        with pytest.raises(ValueError, match="`negatives` to be free of NaN"):
            function(one, one, negatives=one * torch.nan)
        with pytest.raises(TypeError, match="`negatives`"):
            function(one, one, negatives=torch.ones(1, dtype=torch.long))


# Fields


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("acl", {"threshold": (0.5,)}, "`threshold` to be two numbers or more, ascending"),
        ("acl", {"threshold": (0.5, 0.2)}, "`threshold` to be two numbers or more, ascending"),
        ("acl", {"mixture_threshold": 0.5}, "`mixture_threshold` to be None with several thresholds"),
        ("acl", {"assignment": "greedy"}, "`assignment` to be 'one per frame' or 'position' with several thresholds"),
        ("acl", {"single_metrics": ("AP",)}, "with several thresholds, but got 'AP'"),
        ("sslalign-adaptive", {"assignment": "position"}, "`assignment` to be 'one per frame' with binarization="),
        ("sslalign-adaptive", {"canvas": "whole map"}, "`canvas` to be 'frame' with binarization="),
        ("lvs", {"mixture_threshold": 0.5}, "`mixture_threshold` to be None with binarization='above upper median'"),
        ("lvs", {"threshold": (0.2, 0.5)}, "`threshold` to be None with binarization='above upper median'"),
        ("rcgrad", {"threshold": 1.5}, "`threshold` to be .*<= 1"),
        ("ez-vsl", {"prior_range": 2.5}, "`prior_range` to be None without a `prior_weight` and a fixed range"),
        ("lvs", {"prior_upsampling": "bilinear"}, "`prior_upsampling` to be None without a `prior_weight`"),
        ("lvs", {"union_sources": True}, "`assignment` to be 'greedy' with union_sources=True"),
        ("noprior", {"average_sources": True}, "`average_sources` to be False unless `assignment` is"),
        ("dsol", {"empty_truths": "leave out"}, "`empty_truths` to be 'count' with average_sources=True"),
    ],
)
def test_fields_that_do_not_fit_are_refused(name, fields, message):
    with pytest.raises(ValueError, match=message):
        protocols.get(name).replace(**fields)


def test_metrics_that_need_one_threshold_are_refused_by_the_metric_as_well():
    with pytest.raises(ValueError, match="with several thresholds, but got 'PIAP'"):
        LocalizationMetric("PIAP", protocol="acl")
    with pytest.raises(TypeError, match="`prior_range` to be a finite number"):
        protocols.slavc_fixed.replace(prior_range=None)
    raw = protocols.acl.replace(threshold=-3.0)
    assert raw.threshold == -3


def test_noprior_union_on_frames_of_their_own_is_noprior():
    maps, truths = torch.rand(4, 2, 14, 7), torch.rand(4, 2, 8, 8) > 0.5
    both = (protocols.noprior_union, protocols.noprior)
    union, plain = (SoundLocalization(protocol.replace(size=8), layout="stacked") for protocol in both)
    union.update(maps, truths)
    plain.update(maps, truths)
    expected = plain.compute()
    for name, value in union.compute().items():
        assert value == expected[name], name
