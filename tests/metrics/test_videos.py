"""Results by video: ids, means over videos, intervals and notes, against a slow loop."""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics import MetricCollection

from sslosses.metrics import CAP, LocalizationMetric, SoundLocalization, chance_levels, protocols
from sslosses.metrics._pipeline.bootstrap import draws
from sslosses.metrics._pipeline.tables import CIOU, CONFIDENCE, ENTRIES, MAPS, PRECISION, SOURCE, SOURCES, SUMMED, VIDEO

from ..processes import preload, run_group

sys.path.insert(0, str(Path(__file__).parent))
import spread_reference as slow  # beside this file

preload(__name__)

# Generated samples lack maps, have surplus ones, or ground truth without a pixel; some are of few videos.
pytestmark = pytest.mark.filterwarnings("ignore:.* (samples|sources|maps) have |.*interval over videos:UserWarning")

SIZE = 8
OPTIONS = {
    "noprior": ("CAP", "CIoU@0.3", "AUC", "PIAP", "CountAcc", "Coverage", "IIoU@0.3", "IAUC"),
    "avgn": ("Precision@0.1", "AP", "DetAP@0.3", "DetF1@0.3", "AUC", "PIAP", "IIoU@0.1"),
    "clean": ("CAP", "CIoU@0.3", "mCIoU", "AUC", "IAUC"),
    "lvs": ("CIoU@0.5", "AUC", "IIoU@0.5"),
}


def protocol_of(name, metrics=None):
    return protocols.get(name).replace(size=SIZE, name=name, mixture_metrics=metrics or OPTIONS[name])


def scenes(count, seed=0):
    """Maps and boxes of some samples: none to three maps, constant ones, boxes without area, many ties of cIoU."""
    generator = np.random.default_rng(seed)
    maps, boxes = [], []
    for _ in range(count):
        sources = int(generator.integers(1, 4))
        values = generator.integers(0, 3, size=(int(generator.integers(0, 4)), 2, 2)).astype(float)
        maps.append(torch.tensor(values * int(generator.integers(0, 4) > 0)))
        corner = generator.integers(0, 2, (sources, 2)) / 4
        boxes.append([[tuple(row)] for row in np.hstack([corner, corner + generator.choice([0, 0.5], (sources, 1))])])
    return maps, boxes


def samples_of(metric, videos, groups):
    """The metric's tables as the plain samples of the reference."""
    entries, rows = metric.tables()
    samples, start = [], 0
    for row, video, group in zip(rows.tolist(), videos, groups, strict=True):
        own = entries[start : start + int(row[ENTRIES])].tolist()
        start += int(row[ENTRIES])
        found = [{"position": e[SOURCE], "ciou": e[CIOU], "ap": e[PRECISION], "confidence": e[CONFIDENCE]} for e in own]
        sample = {"maps": row[MAPS], "sources": row[SOURCES], "summed": row[SUMMED], "entries": found}
        samples.append({**sample, "video": video, "group": group})
    assert start == len(entries)
    return samples


def agree(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-12, err_msg=name)


def filled(name, count, videos, groups, seed=0, metrics=None):
    metric = SoundLocalization(protocol_of(name, metrics))
    maps, boxes = scenes(count, seed)
    metric.update(maps, boxes, videos=videos, groups=groups)
    return metric


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("many", [True, False])
def test_spread_agrees_with_a_slow_loop(name, many):
    videos = [f"v{i // 3}" if many else "ab"[i % 7 == 0] for i in range(18)]
    groups = [i // 3 * 10 + i % 2 if many else f"{videos[i]}-{i % 3}" for i in range(18)]
    metric = filled(name, 18, videos, groups)
    names = metric.metrics
    samples = samples_of(metric, videos, groups)
    positions = metric.protocol.average_positions
    agree(metric.result().metrics, {n: slow.metric(n, samples, positions) for n in names})
    options = {"level": 0.8, "seed": 5}
    result = metric.result(resamples=40, **options)
    means, intervals, mean_intervals = slow.spread(names, samples, positions, count=40, **options)
    spread = result.videos
    agree(spread.means, means)
    agree(spread.intervals, intervals)
    agree(spread.mean_intervals, mean_intervals)
    assert spread.count == len(set(videos))
    assert spread.effective_count == pytest.approx(slow.effective_count(samples), abs=1e-12)
    assert (spread.level, spread.resamples, spread.seed) == (0.8, 40, 5)
    for video, values in result.per_video.items():
        own = [sample for sample in samples if sample["video"] == video]
        assert values["entries"] == sum(len(sample["entries"]) for sample in own)
        expected = {n: slow.metric(n, own, positions) for n in names if n not in slow.OF_ALL}
        agree({n: v for n, v in values.items() if n != "entries"}, expected)
    sizes = [values["entries"] for values in result.per_video.values()]
    assert sizes == sorted(sizes, reverse=True)


def test_the_best_of_several_thresholds_is_taken_in_each_resample_and_video():
    videos = [f"v{i // 3}" for i in range(18)]
    thresholds, names = (0.1, 0.5), ("CIoU@0.3", "AUC", "IIoU@0.3")
    rules = protocols.acl.replace(size=SIZE, name="acl", mixture_metrics=names)
    _, boxes = scenes(18)
    maps = [torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(k)) for k in range(18)]

    def filled_at(threshold):
        metric = SoundLocalization(rules.replace(threshold=threshold))
        metric.update(maps, boxes, videos=videos, groups=videos)
        return metric

    single = [samples_of(filled_at(threshold), videos, videos) for threshold in thresholds]
    drawn = list(zip(*(slow.resamples(samples, 40, 5) for samples in single), strict=True))
    result = filled_at(thresholds).result(resamples=40, level=0.8, seed=5)
    places = set()
    for name in names:
        values = [slow.metric(name, samples) for samples in single]
        assert result.metrics[name] == pytest.approx(max(values))
        best = [max(slow.metric(name, [s for v in draw for s in v]) for draw in pair) for pair in drawn]
        assert result.videos.intervals[name] == pytest.approx(slow.interval(best, 0.8))
        places.update(
            int(np.argmax([slow.metric(name, [s for v in draw for s in v]) for draw in pair])) for pair in drawn
        )
        by_video = [
            max(slow.metric(name, video) for video in pair)
            for pair in zip(*(slow.videos_of(samples) for samples in single), strict=True)
        ]
        assert result.videos.means[name] == pytest.approx(np.mean(by_video))
        assert sorted(v[name] for v in result.per_video.values()) == pytest.approx(sorted(by_video))
    assert places == {0, 1}  # which threshold is the best depends on the resample


def test_negatives_are_drawn_with_their_video():
    names = ("DetAP@0.3", "MaxF1@0.3", "Coverage")
    rules = protocols.slavc.replace(size=SIZE, mixture_metrics=names)
    _, boxes = scenes(12)
    maps = [torch.rand(1, 2, 2, generator=torch.Generator().manual_seed(k)) for k in range(12)]
    boxes = [sources if k % 3 else [] for k, sources in enumerate(boxes)]
    videos = [f"v{i // 2}" for i in range(12)]
    confidences = [[float(k % 5)] for k in range(12)]

    def measured(chosen):
        metric = SoundLocalization(rules)
        pick = lambda values: [values[k] for k in chosen]  # noqa: E731
        metric.update(pick(maps), pick(boxes), confidences=pick(confidences), videos=pick(videos))
        return metric

    result = measured(range(12)).result(resamples=30, level=0.8, seed=2)
    place = {video: k for k, video in enumerate(sorted(set(videos), key=slow.place_of))}
    order = [[k for k in range(12) if place[videos[k]] == number] for number in range(6)]
    draws_of = torch.randint(6, (30, 6), generator=torch.Generator().manual_seed(2)).tolist()
    values = [measured([k for number in row for k in order[number]]).compute() for row in draws_of]
    for name in names:
        expected = slow.interval([float(value[name]) for value in values], 0.8)
        assert result.videos.intervals[name] == pytest.approx(expected, abs=1e-12)
    assert result.metrics["Coverage"] == 1


def test_samples_without_ids_are_their_own_videos():
    metric = filled("noprior", 12, None, None, metrics=("CAP", "AUC", "PIAP", "Coverage"))
    plain = metric.result()
    assert (plain.videos, plain.per_video, plain.notes) == (None, {}, metric.result(resamples=9).notes)
    assert plain.to_markdown().count("\n") == 2
    spread = metric.result(resamples=30, seed=-1).videos
    samples = samples_of(metric, [None] * 12, [None] * 12)
    means, intervals, _ = slow.spread(metric.metrics, samples, False, count=30, level=0.95, seed=-1)
    agree(spread.means, means)
    agree(spread.intervals, intervals)
    assert spread.count == 12


def test_groups_are_their_own_videos_if_none_are_given():
    groups = [i // 2 for i in range(12)]
    alone, both = (filled("noprior", 12, videos, groups).result().videos for videos in (None, groups))
    assert alone == both
    assert alone.count == 6


def test_each_interval_takes_the_same_draws_in_chunks(monkeypatch):
    whole = torch.cat(list(draws(7, 50, 3)))
    assert whole.shape == (50, 7)
    assert bool((whole.sum(1) == 7).all())
    monkeypatch.setattr("sslosses.metrics._pipeline.bootstrap._CELLS", 20)
    assert torch.equal(torch.cat(list(draws(7, 50, 3))), whole)
    metric = filled("avgn", 12, [f"v{i // 2}" for i in range(12)], range(12))
    chunked = metric.result(resamples=20).videos
    monkeypatch.undo()
    agree(chunked.intervals, metric.result(resamples=20).videos.intervals)


def test_intervals_cover_the_mean_of_independent_videos_about_as_often_as_they_say():
    """Videos of several samples that all have the same value: an interval over samples would be far too narrow."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    truth[:, :4] = True
    covered, over_samples = 0, 0
    for _ in range(60):
        right = torch.rand(30, generator=generator) < 0.5
        maps = [(truth if hit else ~truth).float() for hit in right for _ in range(4)]
        metric = SoundLocalization(protocol_of("lvs", ("CIoU@0.5",)))
        metric.update(maps, [truth] * 120, videos=[i // 4 for i in range(120)])
        low, high = metric.result(resamples=200).videos.intervals["CIoU@0.5"]
        covered += low <= 0.5 <= high
        again = SoundLocalization(protocol_of("lvs", ("CIoU@0.5",)))
        again.update(maps, [truth] * 120)
        low, high = again.result(resamples=200).videos.intervals["CIoU@0.5"]
        over_samples += low <= 0.5 <= high
    assert 50 <= covered <= 60
    assert over_samples < 45


def test_one_video_has_no_interval():
    spread = filled("lvs", 6, ["v"] * 6, range(6)).result().videos
    assert (spread.count, spread.effective_count) == (1, 1.0)
    assert np.isnan(list(spread.intervals.values())).all()
    assert np.isnan(list(spread.mean_intervals.values())).all()


def test_no_sample_and_no_entry():
    metric = SoundLocalization(protocol_of("noprior", ("CAP", "CountAcc")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchmetrics: compute before update
        spread = metric.result(resamples=5).videos
    assert spread.count == 0
    assert np.isnan([spread.effective_count, *spread.means.values(), *spread.intervals["CAP"]]).all()
    metric.update([torch.zeros(0, 2, 2)] * 2, [[[(0.0, 0.0, 0.5, 0.5)]]] * 2, videos=["a", "b"])
    result = metric.result()
    assert np.isnan([*result.videos.intervals["CAP"], result.videos.means["CAP"]]).all()
    assert result.videos.intervals["CountAcc"] == (0, 0)
    assert "2 videos (effectively –)" in str(result)
    assert json.loads(result.to_json())["videos"]["intervals"]["CAP"] == [None, None]


def test_intervals_over_classes():
    maps, boxes = scenes(20)
    generator = np.random.default_rng(0)
    classes = [generator.integers(-1, 4, len(sources)).tolist() for sources in boxes]
    metric = SoundLocalization(protocol_of("clean", ("CAP", "AUC", "CountAcc")))
    metric.update(maps, boxes, source_classes=classes)
    result = metric.result(over_classes=True, resamples=25, seed=2)
    entries = metric.tables()[0]
    by_class = [
        {"video": None, "group": None, "entries": [{"ciou": e[CIOU], "ap": e[PRECISION]} for e in rows.tolist()]}
        for rows in (entries[entries[:, 6] == c] for c in (3, 2, 1, 0))  # the reference starts with the last
    ]
    means, intervals, _ = slow.spread(("CAP", "AUC"), by_class, False, count=25, level=0.95, seed=2)
    assert result.classes.unit == "classes"
    assert result.classes.count == 4
    agree(result.classes.means, means)
    agree({name: result.classes.intervals[name] for name in means}, intervals)
    assert np.isnan(result.classes.intervals["CountAcc"]).all()  # of samples, which have several classes
    assert metric.result().classes is None


# Ids


def test_an_integer_is_the_id_of_its_digits():
    maps, boxes = scenes(4)
    tables = []
    for videos in ([0, 17, -3, 17], ["0", "17", "-3", "17"], torch.tensor([0, 17, -3, 17]), np.array([0, 17, -3, 17])):
        metric = CAP(protocol_of("noprior"))
        metric.update(maps, boxes, videos=videos)
        tables.append(metric.tables()[1][:, VIDEO].tolist())
    assert all(table == tables[0] for table in tables)
    assert tables[0] == [slow.place_of(n) for n in (0, 17, -3, 17)]
    assert all(0 <= value < 2**53 for value in tables[0])


@pytest.mark.parametrize("name", ["videos", "groups"])
@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (["a"], ValueError, "Expected as many samples in `{}` as in `maps` \\(2\\), but got 1"),
        ("ab", TypeError, "Expected `{}` to hold one id per sample, but got 'ab'"),
        (3, TypeError, "Expected `{}` to hold one row per sample, but got 3"),
        (["a", 0.5], TypeError, "Expected `{}\\[1\\]` to be a string or an integer, but got 0.5"),
        ([True, "b"], TypeError, "Expected `{}\\[0\\]` to be a string or an integer, but got True"),
        (torch.zeros(2), TypeError, "Expected `{}\\[0\\]` to be a string or an integer, but got 0.0"),
        ([None, "b"], TypeError, "Expected `{}\\[0\\]` to be a string or an integer, but got None"),
    ],
)
def test_ids_that_are_none(name, ids, error, message):
    metric = CAP(protocol_of("noprior"))
    with pytest.raises(error, match=message.format(name)):
        metric.update(torch.rand(2, 1, 2, 2), [[[(0.0, 0.0, 0.5, 0.5)]]] * 2, **{name: ids})
    assert len(metric.tables()[1]) == 0


def test_ids_stay_with_their_samples_in_every_way_of_adding():
    maps, boxes = scenes(9, seed=3)
    videos = [f"v{i % 4}" for i in range(9)]
    whole = SoundLocalization(protocol_of("noprior"))
    whole.update(maps, boxes, videos=videos, groups=videos)
    updates, merged = SoundLocalization(protocol_of("noprior")), SoundLocalization(protocol_of("noprior"))
    for i in range(0, 9, 2):
        part = slice(i, i + 2)
        ids = {"videos": videos[part], "groups": videos[part]}
        updates.update(maps[part], boxes[part], **ids)
        other = SoundLocalization(protocol_of("noprior"))
        other(maps[part], boxes[part], **ids)
        merged.merge_state(other)
    assert updates.result() == whole.result()
    found, expected = merged.result().per_video, whole.result().per_video
    assert list(found) == list(expected)
    for name, values in expected.items():
        agree(found[name], values)  # in another order of samples, sums are rounded otherwise


def test_metrics_of_a_collection_know_the_videos():
    maps, boxes = scenes(9, seed=3)
    videos = [f"v{i // 3}\n" for i in range(9)]
    collection = MetricCollection({name: SoundLocalization(protocol_of("noprior")) for name in "ab"})
    for part in (slice(0, 3), slice(3, 9)):
        collection.update(maps[part], boxes[part], videos=videos[part], groups=videos[part])
    assert collection.compute_groups == {0: ["a", "b"]}
    assert [set(collection[name].result(resamples=0).per_video) for name in "ab"] == [set(videos)] * 2


def test_a_metric_that_needs_groups_shares_no_rows_with_one_that_does_not():
    maps, boxes = scenes(4)
    metrics = [LocalizationMetric(name, protocol_of("lvs")) for name in ("CIoU@0.5", "IIoU@0.5")]
    collection = MetricCollection(dict(zip("ab", metrics, strict=True)))
    collection.update(maps, boxes, groups=[0, 0, 1, 1])
    with pytest.raises(ValueError, match="Expected `groups` to hold one id per sample, as IIoU"):
        collection.update(maps, boxes)


@pytest.mark.parametrize("name", protocols.available())
def test_each_sample_counts_its_entries(name):
    metric = SoundLocalization(protocols.get(name).replace(size=SIZE))
    metric.update(*scenes(30))
    entries, samples = metric.tables()
    assert int(samples[:, ENTRIES].sum()) == len(entries)


# Interactive IoU


def test_a_group_succeeds_if_all_its_entries_do():
    truth = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.bool)
    truth[..., :4, :] = True
    half = truth.float()
    half[..., 2:6, :], half[..., :2, :] = 1, 0  # a cIoU of 1/3
    maps = torch.cat([truth.float(), half, truth.float(), truth.float()])
    metric = SoundLocalization(protocol_of("lvs", ("CIoU@0.5", "IIoU@0.5", "IIoU@0.3", "IAUC")))
    metric.update(maps, truth.expand(4, -1, -1, -1), groups=["a", "a", "b", "b"])
    values = {name: value.item() for name, value in metric.compute().items()}
    # The least cIoU of a group is 1/3 or 1: up to t = 0.3, both succeed.
    area = 0.05 * (0.5 + 6 + 13 * 0.5 + 0.25)
    assert values["CIoU@0.5"] == 0.75
    assert (values["IIoU@0.5"], values["IIoU@0.3"]) == (0.5, 1.0)
    assert values["IAUC"] == pytest.approx(area, abs=1e-12)
    alone = LocalizationMetric("IAUC", protocol_of("lvs"))
    alone.update(maps, truth.expand(4, -1, -1, -1), groups=[0, 0, 1, 1])
    assert alone.compute() == values["IAUC"]
    assert "IAUC" not in metric.result().per_size["huge"]


def test_interactive_metrics_need_groups():
    metric = LocalizationMetric("IIoU@0.5", protocol_of("noprior"))
    maps, boxes = scenes(4)
    with pytest.raises(ValueError, match=r"Expected `groups` to hold one id per sample, as IIoU@0.5 is over groups"):
        metric.update(maps, boxes)
    assert len(metric.tables()[1]) == 0
    with pytest.raises(ValueError, match=r"to be one of .*IIoU@t, IAUC"):
        LocalizationMetric("IIoU", protocol_of("noprior"))


def test_a_group_of_several_videos_cannot_be_resampled():
    metric = filled("noprior", 4, ["a", "a", "b", "b"], [0, 1, 1, 2])
    assert 0 <= metric.compute()["IAUC"] <= 1
    with pytest.raises(ValueError, match="Expected each group of `groups` to be of one video of `videos`"):
        metric.result()


def test_chance_levels_of_groups():
    _, boxes = scenes(70)
    groups = [i // 2 for i in range(70)]
    levels = chance_levels(boxes, protocol_of("lvs"), groups=groups)
    uniform = SoundLocalization(protocol_of("lvs"))
    maps = torch.exp(-((torch.arange(SIZE) - 3.5)[:, None].square() + (torch.arange(SIZE) - 3.5).square()) / 8)
    uniform.update(maps.expand(70, 1, -1, -1), boxes, groups=groups)
    assert levels["centered Gaussian"]["IIoU@0.5"] == uniform.compute()["IIoU@0.5"]
    with pytest.raises(ValueError, match="as many ids in `groups` as samples in `truths` \\(70\\), but got 2"):
        chance_levels(boxes, protocol_of("lvs"), groups=[0, 1])


# Options, notes and words


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"resamples": -1}, ValueError, "Expected `resamples` to be an integer >= 0"),
        ({"resamples": 0.5}, TypeError, "Expected `resamples` to be an integer >= 0"),
        ({"level": 1.0}, ValueError, "Expected `level` to be"),
        ({"level": 0}, ValueError, "Expected `level` to be"),
        ({"seed": 2**64}, ValueError, "Expected `seed` to be"),
    ],
)
def test_wrong_options(options, error, message):
    with pytest.raises(error, match=message):
        filled("lvs", 3, None, range(3)).result(**options)


@pytest.mark.parametrize(
    ("videos", "note"),
    [
        (["a"] * 6 + ["b"] * 2, "One of 2 videos has 75.0 % of the entries, so an interval over videos means little"),
        ([f"v{i // 2}" for i in range(8)], "The entries are of 4 videos, effectively 4.0, so an interval over"),
        ([f"v{i}" for i in range(8)], "The entries are of 8 videos, effectively 8.0, so"),
        (None, None),
    ],
)
def test_few_videos_are_noted(videos, note):
    metric = SoundLocalization(protocol_of("lvs", ("AUC",)))
    metric.update(torch.rand(8, 1, 2, 2), [[[(0.0, 0.0, 0.5, 0.5)]]] * 8, videos=videos)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = metric.result()
    assert [str(warning.message) for warning in caught] == list(result.notes)
    assert len(result.notes) == (note is not None)
    assert note is None or result.notes[0].startswith(note)


def test_many_videos_are_not_noted():
    metric = SoundLocalization(protocol_of("lvs", ("AUC",)))
    metric.update(torch.rand(10, 1, 2, 2), [[[(0.0, 0.0, 0.5, 0.5)]]] * 10, videos=range(10))
    assert metric.result().notes == ()


def test_results_in_words():
    metric = SoundLocalization(protocol_of("avgn", ("AP", "DetAP@0.3")))
    maps, boxes = scenes(12)
    metric.update(maps, boxes, videos=[f"v{i // 3}" for i in range(12)])
    result = metric.result(chance=chance_levels(boxes, metric.protocol), level=0.9)
    entries = result.counts["entries"]
    effective = result.videos.effective_count
    assert f"{entries} entries of 4 videos (effectively {effective:.1f}), 12 samples" in str(result)
    lines = result.to_markdown().splitlines()
    assert len(lines) == 2 + 1 + 3 + 3
    low, high = result.videos.intervals["AP"]
    assert lines[3].startswith(f"| 90 % interval | {100 * low:.1f} to {100 * high:.1f} | ")
    assert lines[4].startswith(f"| mean over videos | {100 * result.videos.means['AP']:.1f} | – |")
    assert lines[5].startswith("| its 90 % interval | ")
    assert len({line.count("|") for line in lines}) == 1
    assert r"90 \% interval" in result.to_latex()
    assert json.loads(result.to_json())["per_video"]["v0"]["AP"] == result.per_video["v0"]["AP"]
    without = metric.result(resamples=0)
    assert without.videos.intervals == {}
    assert "interval" not in without.to_markdown()


def result_of(maps, boxes, videos):
    metric = SoundLocalization(protocols.noprior.replace(size=8, mixture_metrics=("CAP", "AUC", "IAUC")))
    metric.update(maps, boxes, videos=videos, groups=videos)
    return metric.result().to_json()


def result_with_others(rank, *samples):
    mine = slice(0, 7) if rank == 0 else slice(7, None)
    return result_of(*(values[mine] for values in samples))


@pytest.mark.slow
def test_two_processes_agree_with_one():
    maps, boxes = scenes(12)
    videos = [f"v{i // 3}" for i in range(12)]
    expected = result_of(maps, boxes, videos)
    # Each process knows the videos of both.
    assert run_group(result_with_others, maps, boxes, videos) == [expected] * 2
