"""SoundLocalization against a slow loop in NumPy and scikit-learn, written from the protocol's description."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc, average_precision_score

from sslosses.annotations import rasterize, read_music_duet
from sslosses.metrics import (
    LocalizationMetric,
    SilentObjectDiscrimination,
    SoundLocalization,
    chance_levels,
    protocols,
)

from ..processes import preload, run_group

preload(__name__)

METADATA = os.environ.get("SSLOSSES_METADATA")

# Generated samples lack maps, have surplus ones, or ground truth without a pixel.
pytestmark = pytest.mark.filterwarnings("ignore:.* (samples|sources|maps) have :UserWarning")


# The reference


def cubic(distance):
    a, d = -0.75, abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def cubic_weights(n, size):
    weights = np.zeros((size, n))
    for i in range(size):
        center = (i + 0.5) * n / size - 0.5
        for tap in range(int(np.floor(center)) - 1, int(np.floor(center)) + 3):
            weights[i, min(max(tap, 0), n - 1)] += cubic(center - tap)
    return weights


def resized(x, height, width):
    return cubic_weights(x.shape[0], height) @ x @ cubic_weights(x.shape[1], width).T


def binarized(x):
    x = x - x.min()
    if x.max() > 0:
        x = x / x.max()
    # The codes set what is above to 1 and then what is below 1 to 0: pixels at the maximum stay.
    return (x > np.sort(x.ravel())[x.size // 2]) | (x == 1)


def overlap(b, g):
    below = g.sum() + (b * (g == 0)).sum()
    return (b * g).sum() / below if below > 0 else 0.0


def pixel_ap(b, g):
    return average_precision_score((g > 0).ravel(), b.ravel()) if g.any() else 0.0


def frames_of(x, layout, sources, size):
    if layout == "one":
        return [resized(x, size, size)]
    if layout == "stacked":
        return np.split(resized(x, sources * size, size), sources, axis=0)
    return np.split(resized(x, size, sources * size), sources, axis=1)


def reference(samples, layout, size):
    entries, summed, right, without, empty = [], [], [], 0, 0
    for maps, truths in samples:
        sources = len(truths)
        right.append(len(maps) == sources)
        empty += sum(not g.any() for g in truths)
        if len(maps) == 0:
            without += 1
            continue
        total = [binarized(f) for f in frames_of(sum(maps), layout, sources, size)]
        whole = [np.max(truths, axis=0)] if layout == "one" else truths
        summed.append(pixel_ap(np.concatenate(total), np.concatenate(whole)))
        left = [g.copy() for g in truths]
        for x in maps:
            binary = [binarized(f) for f in frames_of(x, layout, sources, size)]
            binary = binary * sources if layout == "one" else binary
            found = [overlap(b, g) for b, g in zip(binary, left, strict=True)]
            best = int(np.argmax(found))
            entries.append((found[best], pixel_ap(binary[best], left[best])))
            left[best][:] = 0
        entries += [(0.0, 0.0)] * (sources - len(maps))
    counts = {"entries": len(entries), "samples": len(samples), "samples_without_map": without, "empty_truths": empty}
    counts["samples_without_source"] = 0
    if not entries:
        return {"CountAcc": np.mean(right), **counts}
    cious, aps = np.array(entries).T
    thresholds = [i / 20 for i in range(21)]
    return {
        "CAP": aps.mean(),
        "AP": aps.mean(),
        "CIoU@0.3": np.mean(cious >= 0.3),
        "CIoU@0.5": np.mean(cious >= 0.5),
        "IoU@0.5": np.mean(cious >= 0.5),
        "AUC": auc(thresholds, [np.mean(cious >= t) for t in thresholds]),
        "PIAP": np.mean(summed),
        "CountAcc": np.mean(right),
        **counts,
    }


def test_half_of_a_frame_at_the_maximum_is_marked():
    truth = np.zeros((8, 8))
    truth[0, 0] = 1
    samples = [(np.repeat([[[1.0], [0.0]]], 8, axis=2).repeat(4, axis=1), truth[None])]
    expected = reference(samples, "one", 8)
    assert expected["AP"] == 1 / 32
    metric = SoundLocalization(protocols.noprior.replace(size=8))
    metric.update(*tensors(samples))
    assert_equal(metric.compute(), expected)


def assert_equal(result, expected, tolerance=1e-6):
    for name, value in result.items():
        if name in expected:
            assert abs(float(value) - expected[name]) <= tolerance, (name, float(value), expected[name])
        else:
            assert torch.isnan(value), name


# Generated cases. Integer maps and sides that are powers of two keep every resized value exact in float64, so that the
# order of the pixels, on which everything depends, is the same in both; ties are then common.

SIZE = 8


@st.composite
def a_truth(draw):
    truth = np.zeros((SIZE, SIZE))
    for value in draw(st.sampled_from([(), (1.0,), (1.0,), (1.0, 1.0), (0.5, 0.5)])):
        top, bottom, start, end = (draw(st.integers(0, SIZE)) for _ in range(4))
        truth[top:bottom, start:end] += value
    return truth.clip(0, 1)


@st.composite
def cases(draw, most_sources=3):
    layout = draw(st.sampled_from(["one", "stacked", "side-by-side"]))
    samples = []
    for _ in range(draw(st.integers(1, 4))):
        truths = [draw(a_truth()) for _ in range(draw(st.integers(1, most_sources)))]
        side = draw(st.sampled_from([1, 2, 4, 8]))
        down = len(truths) if layout == "stacked" else 1
        across = len(truths) if layout == "side-by-side" else 1
        shape = (draw(st.integers(0, 4)), side * down, side * across)
        values = draw(st.lists(st.integers(-3, 3), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
        maps = np.array(values, dtype=np.float64).reshape(shape)
        if len(maps) and draw(st.booleans()):
            maps[draw(st.integers(0, len(maps) - 1))] = draw(st.integers(-2, 2))
        samples.append((maps, np.stack(truths)))
    return layout, samples


def tensors(samples, dtype=torch.float64):
    return [torch.tensor(m, dtype=dtype) for m, _ in samples], [torch.tensor(g, dtype=dtype) for _, g in samples]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases())
def test_noprior_equals_the_loop(case):
    layout, samples = case
    metric = SoundLocalization(protocols.noprior.replace(size=SIZE), layout=layout)
    metric.update(*tensors(samples[:1]))
    metric.update(*tensors(samples[1:]))
    assert_equal(metric.compute(), reference(samples, layout, SIZE))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases(most_sources=1))
def test_paper_on_single_sources_equals_the_loop(case):
    layout, samples = case
    metric = SoundLocalization(protocols.paper.replace(size=SIZE), task="single", layout=layout)
    metric.update(*tensors(samples))
    result = metric.compute()
    assert list(result)[:3] == ["AP", "IoU@0.5", "AUC"]
    assert_equal(result, reference(samples, layout, SIZE))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_padded_tensor_with_valid_equals_the_loop(data):
    count, slots, sources = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 3)), data.draw(st.integers(1, 2))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    maps = generator.integers(-3, 4, (count, slots, 4, 4)).astype(float)
    truths = generator.integers(0, 2, (count, sources, SIZE, SIZE)).astype(float)
    valid = generator.integers(0, 2, (count, slots)).astype(bool)
    samples = [(m[v], g) for m, g, v in zip(maps, truths, valid, strict=True)]
    # what is masked out may hold anything
    maps[~valid] = np.where(generator.random((4, 4)) < 0.3, np.nan, generator.random((4, 4)))
    metric = SoundLocalization(protocols.noprior.replace(size=SIZE))
    metric.update(torch.tensor(maps), torch.tensor(truths).bool(), torch.tensor(valid))
    assert_equal(metric.compute(), reference(samples, "one", SIZE))


def test_at_224_from_7_and_14_equals_the_loop():
    generator = np.random.default_rng(0)
    samples = []
    for side in (7, 14):
        truths = np.zeros((2, 224, 224))
        truths[0, 30:150, 10:100] = 1
        truths[1, 60:224, 90:230] = 1
        samples.append((generator.integers(-8, 9, (3, side, side)).astype(float), truths))
    metric = SoundLocalization("noprior")
    metric.update(*tensors(samples))
    assert_equal(metric.compute(), reference(samples, "one", 224))


@pytest.mark.skipif(METADATA is None, reason="SSLOSSES_METADATA is not set")
def test_on_the_real_duet_boxes_equals_the_loop():
    generator = np.random.default_rng(1)
    samples = []
    for record in list(read_music_duet(Path(METADATA) / "music_duet.json"))[::100]:
        truths = np.stack([rasterize(boxes).numpy().astype(float) for boxes in record.boxes])
        samples.append((generator.integers(-8, 9, (generator.integers(0, 4), 7, 7)).astype(float), truths))
    metric = SoundLocalization("noprior")
    metric.update(*tensors(samples))
    assert_equal(metric.compute(), reference(samples, "one", 224))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_lower_precision_maps(dtype):
    generator = np.random.default_rng(2)
    samples = [
        (
            generator.integers(-3, 4, (m, SIZE, SIZE)).astype(float),
            generator.integers(0, 2, (2, SIZE, SIZE)).astype(float),
        )
        for m in (2, 0, 1, 3)
    ]
    metric = SoundLocalization(protocols.noprior.replace(size=SIZE))
    metric.update(*tensors(samples, dtype))
    assert_equal(metric.compute(), reference(samples, "one", SIZE))


def test_autocast_and_mixed_lists_change_nothing():
    generator = torch.Generator().manual_seed(4)
    maps = [torch.rand(m, 4, 4, generator=generator) for m in (2, 1, 3)]
    truths = [torch.rand(2, SIZE, SIZE, generator=generator) > 0.6 for _ in range(3)]
    protocol = protocols.noprior.replace(size=SIZE)
    plain, autocast, mixed = (SoundLocalization(protocol) for _ in range(3))
    plain.update(maps, truths)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        autocast.update(maps, truths)
    mixed.update(maps, [truths[0].float(), truths[1].double(), truths[2].to(torch.uint8)])
    assert autocast.compute() == plain.compute()
    assert_equal(mixed.compute(), {name: float(value) for name, value in plain.compute().items()})


# Known answers


def half(rows):
    truth = torch.zeros(1, 4, 4)
    truth[0, rows] = 1
    return truth


RAMP = torch.arange(16.0).reshape(1, 4, 4)  # the 7 largest pixels are above the upper median: most of the two last rows
SMALL = protocols.paper.replace(size=4)


def test_perfect_map_and_its_complement():
    metric = SoundLocalization(SMALL, task="single")
    metric.update([RAMP], [half(slice(2, 4))])
    result = metric.compute()
    assert result["IoU@0.5"] == 1
    assert result["AP"].item() == pytest.approx(7 / 8 + 1 / 8 * 1 / 2)
    assert result["AUC"].item() == pytest.approx(0.05 * (0.5 + 17))  # cIoU 7/8 reaches t = 0 … 0.85
    metric.reset()
    metric.update([RAMP], [half(slice(0, 2))])
    result = metric.compute()
    assert result["IoU@0.5"] == 0
    assert result["AUC"].item() == pytest.approx(0.05 * 0.5)


def test_constant_map_marks_nothing():
    metric = SoundLocalization(SMALL, task="single")
    metric.update(torch.full((1, 1, 2, 2), 5.0), half(slice(0, 2))[None])
    result = metric.compute()
    assert result["IoU@0.5"] == 0
    assert result["AP"] == 0.5  # one score level: the prevalence


def test_reaching_a_threshold_exactly_counts():
    # 7 marked pixels, 3 of them in a truth of 6: 3 / (6 + 4) is 0.3
    truth = torch.zeros(1, 4, 4)
    truth[0, 3, 1:] = 1
    truth[0, 0, :3] = 1
    metric = SoundLocalization(SMALL)
    metric.update([RAMP], [truth])
    assert metric.compute()["CIoU@0.3"] == 1


def test_extra_map_missing_map_and_no_map():
    truths = torch.cat([half(slice(2, 4)), half(slice(0, 2))])
    metric = SoundLocalization(protocols.noprior.replace(size=4))
    metric.update(
        [RAMP.repeat(3, 1, 1)], [truths]
    )  # takes source 0, then source 0 again as all the rest is 0, and again
    assert metric.compute()["entries"] == 3
    assert metric.compute()["CIoU@0.5"].item() == pytest.approx(1 / 3)
    metric.update([RAMP], [truths])
    assert metric.compute()["entries"] == 5
    assert metric.compute()["CIoU@0.5"].item() == pytest.approx(2 / 5)
    metric.update([RAMP[:0]], [truths])
    result = metric.compute()
    assert [int(result[name]) for name in ("entries", "samples", "samples_without_map")] == [5, 3, 1]
    assert result["CountAcc"] == 0


def test_no_entry_gives_nan_and_says_why():
    metric = SoundLocalization(SMALL)
    metric.update(torch.zeros(2, 0, 3, 3), torch.zeros(2, 2, 4, 4))
    result = metric.compute()
    assert torch.isnan(result["CAP"])
    assert torch.isnan(result["AUC"])
    assert [int(result[name]) for name in ("entries", "samples", "samples_without_map", "empty_truths")] == [0, 2, 2, 4]


def test_forward_reset_pickle_and_plot():
    import pickle

    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    metric = SoundLocalization(SMALL)
    first = metric([RAMP], [half(slice(2, 4))])
    second = metric([RAMP], [half(slice(0, 2))])
    assert (first["CIoU@0.3"], second["CIoU@0.3"], metric.compute()["CIoU@0.3"]) == (1, 0, 0.5)
    assert pickle.loads(pickle.dumps(metric)).compute() == metric.compute()
    figure, axes = metric.plot()
    assert "entries" not in str(axes.get_legend_handles_labels())
    metric.plot([first, second])
    one = LocalizationMetric("AUC", SMALL)
    one.update([RAMP], [half(slice(2, 4))])
    assert one.plot()[1].lines[0].get_ydata() == [pytest.approx(float(one.compute()))]
    matplotlib.pyplot.close("all")
    del figure
    metric.reset()
    assert len(metric.tables()[0]) == 0


# Arguments


def test_boxes_in_pixels_are_refused():
    # clipped to the frame they would cover all of it, and any map would have an average precision of 1
    with pytest.raises(
        ValueError, match=r"`truths\[0\]` to hold boxes as fractions .*\(10, 20, 100, 120\).*looks like pixels"
    ):
        SoundLocalization(SMALL).update([RAMP], [[[(10, 20, 100, 120)]]])
    SoundLocalization(SMALL).update([RAMP], [[[(-2.9e16, 0, 1.01, 1)]]])  # such are in the public files


@pytest.mark.parametrize(
    ("maps", "truths", "options", "message"),
    [
        (torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 3, 3), {}, "truths to have shape"),
        (torch.zeros(1, 1, 2, 2), torch.zeros(1, 0, 4, 3), {}, "truths to have shape"),
        (torch.zeros(2, 1, 2, 2), torch.zeros(1, 1, 4, 4), {}, "as many samples"),
        (torch.full((1, 1, 2, 2), torch.nan), torch.zeros(1, 1, 4, 4), {}, "finite"),
        (torch.zeros(1, 1, 2, 2), torch.full((1, 1, 4, 4), 2.0), {}, r"in \[0, 1\]"),
        (torch.zeros(1, 1, 3, 2), torch.zeros(1, 2, 4, 4), {"layout": "stacked"}, r"\(M, 2·h, w\)"),
        (torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 4, 4), {"task": "single"}, "at most 1 source"),
        ([torch.zeros(1, 2, 2)] * 2, [torch.zeros(1, 4, 4), torch.zeros(1, 5, 5)], {}, "truths to have shape"),
        ([torch.zeros(2, 2)], [torch.zeros(1, 4, 4)], {}, "`maps\\[0\\]` to have shape"),
    ],
)
def test_wrong_values_are_refused(maps, truths, options, message):
    metric = SoundLocalization(SMALL, **options)
    with pytest.raises(ValueError, match=message):
        metric.update(maps, truths)


def test_wrong_types_are_refused():
    metric = SoundLocalization(SMALL)
    with pytest.raises(TypeError, match="floating dtype"):
        metric.update(torch.zeros(1, 1, 2, 2).long(), torch.zeros(1, 1, 4, 4))
    with pytest.raises(TypeError, match="sequence holding list"):
        metric.update([[1.0]], [torch.zeros(1, 4, 4)])
    with pytest.raises(ValueError, match="`valid` only with"):
        metric.update([torch.zeros(1, 2, 2)], [torch.zeros(1, 4, 4)], torch.ones(1, 1).bool())


# Two processes


def localized_by(rank, maps, truths):
    metric = SoundLocalization(protocols.noprior.replace(size=8))
    mine = slice(0, 2) if rank == 0 else slice(2, None)
    metric.update(maps[mine], truths[mine])
    twins = SilentObjectDiscrimination()
    if rank == 0:  # the other process never sees a pair
        twins.update(torch.eye(2)[None], torch.eye(2).bool()[None], ~torch.eye(2).bool()[None, None])
    return {name: float(value) for name, value in {**metric.compute(), **twins.compute()}.items()}


@pytest.mark.slow
def test_two_processes_agree_with_one():
    generator = torch.Generator().manual_seed(0)
    maps = [torch.rand(m, 4, 4, generator=generator) for m in (2, 0, 1, 3, 2)]
    truths = [(torch.rand(s, 8, 8, generator=generator) > 0.5).float() for s in (2, 1, 2, 2, 3)]
    alone = SoundLocalization(protocols.noprior.replace(size=8))
    alone.update(maps, truths)
    expected = {name: float(value) for name, value in alone.compute().items()}
    expected |= {"share": 1.0, "same_class_share": float("nan"), "pairs": 1.0, "same_class_pairs": 0.0}
    for result in run_group(localized_by, maps, truths):
        assert result == pytest.approx(expected, abs=1e-12, nan_ok=True)


# Chance


def test_chance_of_known_truths():
    truths = [half(slice(0, 2)), torch.cat([half(slice(0, 2)), half(slice(2, 4))])]
    levels = chance_levels(truths, protocols.noprior.replace(size=4))
    assert list(levels) == ["centered Gaussian", "whole frame", "random maps"]
    assert levels["whole frame"]["CAP"] == 0.5
    assert levels["whole frame"]["CIoU@0.5"] == 1
    assert all(metrics["entries"] == 3 for metrics in levels.values())
    assert levels["whole frame"]["CountAcc"] == 1
    more = chance_levels(truths, protocols.noprior.replace(size=4), maps_per_sample=2)
    assert more["random maps"]["entries"] == 4
    assert more["random maps"]["CountAcc"] == 0.5


def test_chance_depends_on_the_seed_only_where_random():
    truths = torch.rand(6, 2, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.6
    protocol = protocols.noprior.replace(size=8)
    a, b, c = (chance_levels(truths, protocol, layout="stacked", seed=seed) for seed in (0, 0, 1))
    assert a == b
    assert a["random maps"]["CAP"] != c["random maps"]["CAP"]
    assert a["centered Gaussian"] == c["centered Gaussian"]


def test_chance_gaussian_equals_the_loop():
    offset = (np.arange(8) + 0.5) / 8 - 0.5
    gaussian = np.exp(-(offset[:, None] ** 2 + offset**2) / (2 * 0.25**2))
    generator = np.random.default_rng(3)
    truths = [generator.integers(0, 2, (s, 8, 8)).astype(float) for s in (1, 2, 3)]
    levels = chance_levels([torch.tensor(g) for g in truths], protocols.noprior.replace(size=8))
    expected = reference([(np.stack([gaussian] * len(g)), g) for g in truths], "one", 8)
    assert_equal(levels["centered Gaussian"], expected)
