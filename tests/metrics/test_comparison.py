"""Differences between two metrics on the same samples, against a slow loop, and what is refused."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sslosses.metrics import AUC, CAP, SoundLocalization, compare, protocols

sys.path.insert(0, str(Path(__file__).parent))
import spread_reference as slow  # beside this file
from test_videos import OPTIONS, SIZE, protocol_of, samples_of, scenes

pytestmark = pytest.mark.filterwarnings("ignore:.* (samples|sources|maps) have |.*interval over videos:UserWarning")

TRUTHS = [[[(0.0, 0.0, 0.5, 0.5)], [(0.5, 0.0, 1.0, 0.5)]]] * 4
MAPS = torch.rand(4, 2, 2, 2, generator=torch.Generator().manual_seed(0))


def pair(name, count=18, many=True):
    """Two metrics with other maps for the same samples; one of them has maps where the other has none."""
    videos = [f"v{i // 3}" if many else "ab"[i % 7 == 0] for i in range(count)]
    _, boxes = scenes(count)
    metrics = []
    for seed in (0, 1):
        metric = SoundLocalization(protocol_of(name))
        metric.update(scenes(count, seed)[0], boxes, videos=videos, groups=videos)
        metrics.append(metric)
    return *metrics, videos


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("many", [True, False])
def test_differences_agree_with_a_slow_loop(name, many):
    a, b, videos = pair(name, many=many)
    positions = a.protocol.average_positions
    found = compare(a, b, resamples=30, level=0.8, seed=4)
    samples = [samples_of(metric, videos, videos) for metric in (a, b)]
    draws = [list(slow.resamples(own, 30, 4)) for own in samples]
    assert tuple(found.differences) == a.metrics
    for metric in a.metrics:
        first, second = (slow.metric(metric, own, positions) for own in samples)
        assert (found.a[metric], found.b[metric]) == pytest.approx((first, second), abs=1e-12)
        assert found.differences[metric] == pytest.approx(first - second, abs=1e-12)
        differences = [
            np.subtract(*(slow.metric(metric, [s for video in draw for s in video], positions) for draw in both))
            for both in zip(*draws, strict=True)
        ]
        np.testing.assert_allclose(found.intervals[metric], slow.interval(differences, 0.8), atol=1e-12, err_msg=metric)
    assert (found.samples, found.videos) == (18, len(set(videos)))
    assert found.effective_videos == pytest.approx(min(map(slow.effective_count, samples)))


def test_a_metric_differs_by_nothing_from_itself():
    a, _, _ = pair("avgn")
    found = compare(a, a)
    assert set(found.differences.values()) == {0.0}
    assert set(found.intervals.values()) == {(0.0, 0.0)}


def test_a_pair_has_a_shorter_interval_than_its_parts():
    """Both models fail on the same videos: only their difference is steady."""
    truth = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    truth[:, :4] = True
    hard = torch.rand(40, generator=torch.Generator().manual_seed(0)) < 0.5
    metrics = []
    for shift in (0, 1):
        good = truth.float().roll(shift, 1)
        metric = SoundLocalization(protocol_of("lvs", ("AUC",)))
        metric.update([(good if not h else ~truth).float() for h in hard], [truth] * 40, videos=range(40))
        metrics.append(metric)
    low, high = compare(*metrics).intervals["AUC"]
    single_low, single_high = metrics[0].result().videos.intervals["AUC"]
    assert 0 < low < high
    assert high - low < 0.5 * (single_high - single_low)


def test_one_video_and_no_resample():
    metrics = [SoundLocalization(protocol_of("lvs", ("AUC",))) for _ in range(2)]
    for metric in metrics:
        metric.update(MAPS, TRUTHS, videos=["v"] * 4)
    with pytest.warns(UserWarning, match="All entries are of one video, so there is no interval"):
        found = compare(*metrics)
    assert np.isnan(found.intervals["AUC"]).all()
    assert found.to_markdown().endswith("| +0.0 | – |")
    assert found.notes[0].startswith("All entries are of one video")
    assert compare(*metrics, resamples=0).intervals == {}


def test_only_common_metrics_are_compared():
    whole, alone = SoundLocalization(protocol_of("noprior")), AUC(protocol_of("noprior"))
    other = CAP(protocol_of("noprior"))
    for metric in (alone, other):
        metric.update(MAPS, TRUTHS)
    with pytest.raises(ValueError, match="Expected `b` to compute one of AUC, but got CAP"):
        compare(alone, other)
    whole.update(MAPS, TRUTHS, groups=range(4))
    with pytest.raises(ValueError, match="but sample 0 has another video"):
        compare(whole, alone)  # groups are videos
    other.reset()
    other.update(MAPS, TRUTHS, groups=range(4))
    assert tuple(compare(whole, other).differences) == ("CAP",)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (SoundLocalization("lvs"), "rules of `a`, protocol 'paper', but got 'lvs'"),
        (
            SoundLocalization(protocols.paper.replace(name="paper", size=16)),
            "rules of `a`, protocol size 224, but got 16",
        ),
        (SoundLocalization(task="single"), "rules of `a`, task 'mixtures', but got 'single'"),
        (SoundLocalization(layout="stacked"), "rules of `a`, layout 'one', but got 'stacked'"),
    ],
)
def test_other_rules_are_named(other, message):
    with pytest.raises(ValueError, match=f"Expected `b` to have the {message}"):
        compare(SoundLocalization(), other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"maps": MAPS[:3], "truths": TRUTHS[:3]}, r"samples of `a` \(4\), but got 3"),
        ({"videos": ["v", "v", "v", "w"]}, "sample 3 has another video"),
        ({"groups": ["g", "h", "g", "g"]}, "sample 1 has another group"),
        (
            {"truths": [*TRUTHS[:2], TRUTHS[0][:1], TRUTHS[0]], "source_classes": None},
            "sample 2 has another number of sources",
        ),
        (
            {"truths": [*TRUTHS[:3], [TRUTHS[0][0], [(0.5, 0.0, 0.5, 0.5)]]]},
            "sample 3 has another ground truth",
        ),
        (
            {"truths": [TRUTHS[0], [TRUTHS[0][0], [(0.5, 0.0, 1.0, 1.0)]], *TRUTHS[2:]]},
            "sample 1 has another ground truth",
        ),
        ({"source_classes": [[0, 1], [0, 1], [0, 1], [1, 0]]}, "sample 3 has another class"),
    ],
)
def test_other_samples_are_named(changes, message):
    shared = {"maps": MAPS, "truths": TRUTHS, "source_classes": [[0, 1]] * 4, "videos": ["v"] * 4, "groups": ["g"] * 4}
    if "maps" in changes:
        changes = changes | {name: shared[name][:3] for name in ("source_classes", "videos", "groups")}
    metrics = [SoundLocalization(protocol_of("noprior")) for _ in range(2)]
    for metric, arguments in zip(metrics, (shared, shared | changes), strict=True):
        metric.update(**arguments)
    with pytest.raises(ValueError, match=f"Expected `b` to hold the {message}|in the same order, but {message}"):
        compare(*metrics)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("result", None), {}, TypeError, "Expected `b` to be a localization metric, but got str"),
        ((None, None), {"resamples": -1}, ValueError, "Expected `resamples`"),
        ((None, None), {"level": 2}, ValueError, "Expected `level`"),
        ((None, None), {"seed": 0.5}, ValueError, "Expected `seed`"),
    ],
)
def test_wrong_arguments(arguments, options, error, message):
    metric = SoundLocalization()
    with pytest.raises(error, match=message):
        compare(metric, arguments[0] or metric, **options)


def test_comparisons_in_words():
    a, b, _ = pair("noprior")
    found = compare(a, b)
    line = str(found)
    assert line.startswith(f"noprior (mixtures) | CAP {100 * found.differences['CAP']:+.1f} (")
    assert line.endswith(f"| 18 samples of 6 videos (effectively {found.effective_videos:.1f})")
    assert dataclasses.replace(found, videos=1).shown_counts().startswith("18 samples of 1 video (")
    rows = found.to_markdown().splitlines()
    assert rows[0] == "| noprior, mixtures | a | b | a − b | 95 % interval |"
    assert len(rows) == 2 + len(a.metrics)
    loaded = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert loaded["differences"] == found.differences
    assert loaded["intervals"]["AUC"] == list(found.intervals["AUC"])


def test_oracles_are_marked():
    metric = SoundLocalization("acl")
    metric.update(MAPS, TRUTHS)
    found = compare(metric, metric, resamples=0)
    assert (found.label, found.oracle) == ("acl (oracle)", True)
    assert not compare(*pair("noprior")[:2], resamples=0).oracle
    assert str(found).startswith("acl (mixtures, oracle) | CIoU@0.5 +0.0 (–) | ")
    assert found.to_markdown().startswith("| acl (oracle), mixtures | a | b | a − b |")
