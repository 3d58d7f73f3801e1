"""Negative sounds against their slow loop: ties with the threshold, constant maps, empty maps and empty truths."""

import math
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics import MetricCollection

from sslosses.metrics import NegativeSounds, negative_sounds, threshold_from

sys.path.insert(0, str(Path(__file__).parent))
import negative_sounds_reference as slow

KINDS = ("silence", "noise", "offscreen")
UPSAMPLINGS = ("bilinear", "bilinear, aligned corners", "bicubic")
HALF = torch.zeros(1, 4, 4, dtype=torch.bool)
HALF[:, :2] = True
MAPS, GROUND = torch.zeros(2, 3, 3), torch.zeros(2, 4, 4)
NEGATIVES = dict.fromkeys(KINDS, MAPS)
FULL, NOTHING = torch.ones(1, 4, 4), torch.zeros(1, 4, 4)


def drawn(seed, rows):
    """Integer maps, so that many pixels tie with the threshold; some are constant, some truths empty or fractional."""
    generator = np.random.default_rng(seed)
    maps, *others = (generator.integers(-1, 3, (rows, 4, 4)).astype(float) for _ in range(4))
    for sound in (maps, *others):
        constant = generator.random(rows) < 0.3
        sound[constant] = sound[constant, :1, :1]
    truths = generator.integers(0, 3, (rows, 8, 8)) / 2
    truths[generator.random(rows) < 0.3] = 0
    return maps, truths, dict(zip(KINDS, others, strict=True))


def tensors(negatives, part=slice(None)):
    return {kind: torch.tensor(maps[part]) for kind, maps in negatives.items()}


def values(metric):
    return {name: float(value) for name, value in metric.compute().items()}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.sampled_from([-2, -1, 0, 0.5, 1, 5]), st.booleans())
def test_equals_the_loop(seed, rows, threshold, overlaps):
    maps, truths, negatives = drawn(seed, rows)
    # bicubic weights are not exact, so only maps that need no resizing are compared at ties
    upsampling = UPSAMPLINGS[seed % 2]
    if upsampling != "bilinear":
        truths = truths[:, ::2, ::2]
    metric = NegativeSounds(threshold, upsampling=upsampling, overlaps=overlaps)
    for part in (slice(0, 2), slice(2, None)):
        metric.update(torch.tensor(maps[part]), torch.tensor(truths[part]), tensors(negatives, part))
    lists = {kind: list(sound) for kind, sound in negatives.items()}
    expected = slow.negative_sounds(list(maps), list(truths), lists, threshold, upsampling, overlaps)
    assert list(values(metric)) == list(expected)
    assert values(metric) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
def test_maps_are_resized_as_asked(upsampling):
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(4, 6, 5, 7, generator=generator, dtype=torch.float64)
    truths = torch.rand(6, 20, 24, generator=generator) > 0.5
    metric = NegativeSounds(0.3, upsampling=upsampling, overlaps=True)
    metric.update(maps[0], truths, dict(zip(KINDS, maps[1:], strict=True)))
    arrays = [list(sound.numpy()) for sound in maps]
    lists = dict(zip(KINDS, arrays[1:], strict=True))
    expected = slow.negative_sounds(arrays[0], list(truths.double().numpy()), lists, 0.3, upsampling, True)
    assert values(metric) == pytest.approx(expected, abs=1e-9)
    others = [u for u in UPSAMPLINGS if u != upsampling]
    for other in others:  # the option matters
        changed = NegativeSounds(0.3, upsampling=other, overlaps=True)
        changed.update(maps[0], truths, dict(zip(KINDS, maps[1:], strict=True)))
        assert abs(values(changed)["CIoU_U"] - expected["CIoU_U"]) > 1e-4


def one_frame(own, negative, truth=HALF, threshold=0.5, **options):
    metric = NegativeSounds(threshold, overlaps=True, **options)
    metric.update(own, truth, dict.fromkeys(KINDS, negative))
    return values(metric)


def test_a_model_that_listens_and_one_that_does_not():
    listens = one_frame(HALF.float(), NOTHING)
    assert [listens[n] for n in ("CIoU_U", "AUC_U", "pIA noise", "AUC_N noise", "F_LOC", "F_AUC")] == pytest.approx(
        [1, 1, 0, 1, 1, 1]
    )
    assert (listens["IoU own+noise"], listens["IoU silence+noise"]) == (0, 1)  # two empty maps are equal
    deaf = one_frame(HALF.float(), HALF.float())
    assert (deaf["CIoU_U"], deaf["pIA silence"], deaf["IoU own+silence"]) == (1, 0.5, 1)
    assert deaf["F_LOC"] == pytest.approx(2 / 3)
    assert deaf["AUC_N silence"] == pytest.approx(0.525)  # half a frame counts as quiet from t = 0.5 on


def test_nothing_divided_by_nothing():
    empty = one_frame(NOTHING, FULL, truth=torch.zeros_like(HALF))
    assert (empty["CIoU_U"], empty["F_LOC"]) == (0, 0)  # empty map of an empty truth; both parts of F are 0
    assert empty["AUC_N noise"] == pytest.approx(0.025)  # the whole frame is quiet at t = 1 only
    assert empty["AUC_U"] == pytest.approx(0.025)  # a cIoU of 0 reaches t = 0 only
    metric = NegativeSounds(0.5)
    metric.update(MAPS[:0], GROUND[:0], dict.fromkeys(KINDS, MAPS[:0]))
    nothing = dict(metric.compute())
    assert int(nothing.pop("entries")) == 0
    assert all(math.isnan(value) for value in nothing.values())


@pytest.mark.parametrize("value", [0.1, 1 / 3, -0.7])
def test_a_constant_map_at_the_threshold_marks_nothing(value):
    constant = torch.full((1, 3, 3), value)
    for upsampling in UPSAMPLINGS:
        found = one_frame(constant, constant, threshold=float(constant[0, 0, 0]), upsampling=upsampling)
        assert (found["CIoU_U"], found["pIA noise"]) == (0, 0)
        below = np.nextafter(np.float32(value), np.float32(-9)).item()
        assert one_frame(constant, constant, threshold=below, upsampling=upsampling)["pIA noise"] == 1


def test_many_frames_are_marked_in_parts(monkeypatch):
    maps, truths, negatives = drawn(3, 7)
    whole, parts = NegativeSounds(0.5, overlaps=True), NegativeSounds(0.5, overlaps=True)
    whole.update(torch.tensor(maps), torch.tensor(truths), tensors(negatives))
    monkeypatch.setattr(negative_sounds, "_PIXELS", 2 * 64)
    added = []
    monkeypatch.setattr(parts, "_add", lambda *a, add=parts._add: (added.append(len(a[0])), add(*a)))
    parts.update(torch.tensor(maps), torch.tensor(truths), tensors(negatives))
    assert added == [2, 2, 2, 1]
    assert values(parts) == pytest.approx(values(whole), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.sampled_from(["max", "maxQ3"]))
def test_threshold_equals_the_loop(seed, rows, rule):
    generator = np.random.default_rng(seed)
    negatives = {kind: generator.integers(0, 4, (rows + i, 3, 4)) / 4 for i, kind in enumerate(KINDS)}
    pooled = [m for maps in negatives.values() for m in maps]
    assert threshold_from(tensors(negatives), rule) == pytest.approx(slow.threshold_from(pooled, rule), abs=1e-12)
    for upsampling in UPSAMPLINGS:
        found = threshold_from(tensors(negatives), rule, size=(5, 9), upsampling=upsampling)
        assert found == pytest.approx(slow.threshold_from(pooled, rule, (5, 9), upsampling), abs=1e-9)


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
def test_no_map_exceeds_the_largest_of_its_own_maxima(upsampling):
    maps = torch.randn(3, 5, 7, 7, generator=torch.Generator().manual_seed(1))
    negatives = dict(zip(KINDS, maps, strict=True))
    threshold = threshold_from(negatives, "max", size=(16, 16), upsampling=upsampling)
    metric = NegativeSounds(threshold, upsampling=upsampling)
    metric.update(maps[0], torch.ones(5, 16, 16), negatives)
    assert [values(metric)[f"pIA {kind}"] for kind in KINDS] == [0, 0, 0]
    lower = NegativeSounds(threshold_from(negatives, size=(16, 16), upsampling=upsampling), upsampling=upsampling)
    lower.update(maps[0], torch.ones(5, 16, 16), negatives)
    assert sum(values(lower)[f"pIA {kind}"] for kind in KINDS) > 0


def test_the_result_says_whether_the_threshold_is_an_oracles():
    plain, oracle = NegativeSounds(0.25), NegativeSounds(0.25, oracle=True)
    for metric in (plain, oracle):
        metric.update(HALF.float(), HALF, dict.fromkeys(KINDS, NOTHING))
    assert not plain.result().oracle
    assert "(oracle)" not in plain.result().to_json()
    assert str(oracle.result()).startswith("negative sounds (whole sounds, oracle) | CIoU_U 100.0")
    assert oracle.result().label == "negative sounds (oracle)"
    assert "above 0.25, estimated on the scored samples (oracle)" in oracle.result().description
    assert oracle.result().notes == ("The threshold was estimated on the scored samples (oracle)",)
    assert oracle.result().metrics == pytest.approx({n: v for n, v in values(plain).items() if n != "entries"})
    assert oracle.result().counts == {"entries": 1}
    assert int(oracle.compute()["entries"]) == 1


def test_metrics_of_other_thresholds_are_not_mixed():
    low, high = NegativeSounds(0.1), NegativeSounds(0.9)
    both = MetricCollection({"low": low, "high": high})
    both.update(NOTHING, HALF, dict.fromkeys(KINDS, NOTHING))  # after it, all sums of both are equal
    both.update(0.5 * FULL, HALF, dict.fromkeys(KINDS, 0.5 * FULL))
    assert {name: float(v) for name, v in both.compute().items() if "pIA noise" in name} == {
        "low_pIA noise": 0.5,
        "high_pIA noise": 0.0,
    }
    with pytest.raises(ValueError, match=r"`incoming_state` to be of the rules 0\.1, .* of other rules"):
        low.merge_state(high)
    high.persistent(True)
    with pytest.raises(RuntimeError, match=r"state of this metric to be of the rules 0\.1"):
        low.load_state_dict(high.state_dict())
    before = values(low)
    assert values(pickle.loads(pickle.dumps(low))) == before
    assert values(low.half()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((MAPS, GROUND, MAPS), "`negatives` to be a mapping of maps by kind, but got Tensor"),
        ((MAPS, GROUND, {"noise": MAPS}), r"`negatives` to hold silence, noise, offscreen, but got \['noise'\]"),
        ((MAPS, GROUND, NEGATIVES | {"x": MAPS}), "`negatives` to hold"),
        ((MAPS.long(), GROUND, NEGATIVES), "`maps` to have a floating dtype"),
        ((MAPS[None], GROUND, NEGATIVES), r"`maps` to have shape \(B, h, w\)"),
        ((MAPS[:, :0], GROUND, NEGATIVES), r"`maps` to have shape \(B, h, w\)"),
        ((MAPS / 0, GROUND, NEGATIVES), "`maps` to be finite"),
        ((MAPS, GROUND[:1], NEGATIVES), "`truths` to have shape .* B = 2"),
        ((MAPS, GROUND[0], NEGATIVES), "`truths` to have shape"),
        ((MAPS, GROUND + 2, NEGATIVES), r"`truths` to hold values in \[0, 1\]"),
        ((MAPS, GROUND, NEGATIVES | {"noise": MAPS[:1]}), r"`negatives\['noise'\]` to have shape .* B = 2"),
        ((MAPS, GROUND, NEGATIVES | {"noise": MAPS - math.inf}), r"`negatives\['noise'\]` to be finite"),
        ((MAPS, GROUND, NEGATIVES | {"noise": None}), r"`negatives\['noise'\]` to be a tensor"),
    ],
)
def test_wrong_inputs(arguments, message):
    metric = NegativeSounds(0.5)
    with pytest.raises((TypeError, ValueError), match=message):
        metric.update(*arguments)
    assert int(metric.compute()["entries"]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": math.nan}, "`threshold` to be a finite number"),
        ({"threshold": "0.5"}, "`threshold` to be a finite number"),
        ({"kinds": ()}, "`kinds` to be one or more distinct names"),
        ({"kinds": ("a", "a")}, "`kinds` to be one or more distinct names"),
        ({"kinds": ("own",)}, "`kinds` to be one or more distinct names"),
        ({"kinds": "noise"}, "`kinds` to be a tuple of names"),
        ({"upsampling": "nearest"}, "`upsampling` to be one of"),
        ({"overlaps": 1}, "`overlaps` to be True or False"),
        ({"oracle": None}, "`oracle` to be True or False"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        NegativeSounds(**{"threshold": 0.5} | options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((MAPS,), "`negatives` to be a mapping"),
        (({},), "`negatives` to hold at least one map, but got none"),
        (({"noise": MAPS[:0]},), "`negatives` to hold at least one map"),
        (({"noise": MAPS / 0},), r"`negatives\['noise'\]` to be finite"),
        ((NEGATIVES, "median"), "`rule` to be one of 'maxQ3', 'max'"),
    ],
)
def test_wrong_thresholds(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        threshold_from(*arguments)
    with pytest.raises(ValueError, match="`upsampling` to be one of"):
        threshold_from(NEGATIVES, upsampling="nearest")
    with pytest.raises(TypeError, match="`size` to be two integers"):
        threshold_from(NEGATIVES, size=7)
