"""Results, breakdowns, single metrics, and all of it over two processes."""

import json

import numpy as np
import pytest
import torch

from sslosses.metrics import (
    AUC,
    CAP,
    PIAP,
    CIoU,
    CountingAccuracy,
    LocalizationMetric,
    SoundLocalization,
    chance_levels,
    protocols,
)

from ..processes import preload, run_group

preload(__name__)

# Generated samples lack maps, have surplus ones, or ground truth without a pixel.
pytestmark = pytest.mark.filterwarnings("ignore:.* (samples|sources|maps) have :UserWarning")


def scenes(count=12, size=56, seed=0):
    """Maps 7×7, boxes of one to three sources of all sizes, classes."""
    generator = np.random.default_rng(seed)
    maps, boxes, classes = [], [], []
    for _ in range(count):
        sources = int(generator.integers(1, 4))
        maps.append(torch.tensor(generator.normal(size=(int(generator.integers(0, 4)), 7, 7))))
        corner = generator.random((sources, 2)) * 0.3
        side = generator.choice([0.0, 0.1, 0.3, 0.6, 0.7], (sources, 1))
        boxes.append([[tuple(row)] for row in np.hstack([corner, corner + side])])
        classes.append(generator.integers(0, 3, sources).tolist())
    return maps, boxes, classes, size


def metric_of(name, size=56, **options):
    return SoundLocalization(protocols.get(name).replace(size=size, name=name), **options)


@pytest.mark.parametrize("name", protocols.available())
def test_result_agrees_with_compute_and_its_parts_add_up(name):
    maps, boxes, classes, size = scenes()
    metric = metric_of(name, size)
    metric.update(maps, boxes, source_classes=classes)
    metrics, result = metric.compute(), metric.result(class_names=("cello", "flute", "horn"))
    assert type(metrics) is dict
    assert all(isinstance(value, torch.Tensor) and value.ndim == 0 for value in metrics.values())
    merged = {**result.metrics, **result.counts}
    assert list(merged) == list(metrics)
    np.testing.assert_allclose(list(merged.values()), [float(v) for v in metrics.values()])
    assert len(result.empty_truths) == result.counts["empty_truths"] > 0
    entries = metric.tables()[0]
    own = int((entries[:, 0] >= 0).sum())
    assert sum(part["entries"] for part in result.per_size.values()) == own
    rules = metric.protocol
    if not (rules.one_entry_per_frame or rules.union_sources or rules.average_sources):
        # An entry of two classes has none.
        assert set(result.per_class) == {"cello", "flute", "horn"}
        assert sum(part["entries"] for part in result.per_class.values()) == own
    if name == "clean":
        mean = sum(part["mCIoU"] * part["entries"] for part in result.per_size.values()) / own
        assert mean == pytest.approx(result.metrics["mCIoU"])


def test_empty_truths_are_named_in_the_callers_order():
    full, none = [(0.0, 0.0, 1.0, 1.0)], [(0.5, 0.5, 0.5, 0.5)]
    metric = metric_of("noprior", 8)
    maps = [torch.rand(1, s, s) for s in (2, 4, 2, 4)]  # grouped by resolution inside
    metric.update(maps, [[full], [full, none], [none], [full]])
    metric.update(maps[:1], [[none, full]])
    assert metric.result().empty_truths == ((1, 1), (2, 0), (4, 0))


def test_sizes_are_avgns():
    boxes = [[[(0.0, 0.0, s / 224, s / 224)]] for s in (31, 32, 95, 96, 143, 144, 224)]
    metric = SoundLocalization("lvs")
    metric.update(torch.rand(7, 1, 7, 7), boxes)
    counts = {name: part["entries"] for name, part in metric.result().per_size.items()}
    assert counts == {"small": 1, "medium": 2, "large": 2, "huge": 2}


def test_row_json_markdown_and_latex():
    maps, boxes, classes, size = scenes(4)
    metric = metric_of("noprior", size)
    metric.update(maps, boxes, source_classes=classes)
    result = metric.result(chance=chance_levels(boxes, metric.protocol))
    assert str(result).startswith("noprior (mixtures) | CAP ")
    assert "samples without map" in str(result)
    best = max(levels["CAP"] for levels in result.chance.values())
    assert f"CAP {100 * result.metrics['CAP']:.1f} (chance {100 * best:.1f}) |" in str(result)
    assert "chance" not in str(metric.result())
    loaded = json.loads(result.to_json())
    assert loaded["protocol"] == "noprior"
    assert "bicubic" in loaded["description"]
    assert loaded["metrics"]["CAP"] == result.metrics["CAP"]
    assert loaded["empty_truths"] == [list(pair) for pair in result.empty_truths]
    assert list(loaded["chance"]) == ["centered Gaussian", "whole frame", "random maps"]
    lines = result.to_markdown().splitlines()
    assert len(lines) == 2 + 1 + 3
    # the metrics, entries and empty truths; each sample has a map
    assert {line.count("|") for line in lines} == {len(result.metrics) + 4}
    latex = result.to_latex()
    assert latex.count("\\\\\n") == 1 + 1 + 3
    assert r"\begin{tabular}{lrrrrrrrr}" in latex
    empty = metric_of("noprior", size)
    empty.update(torch.zeros(1, 0, 2, 2), boxes[:1])
    assert json.loads(empty.result().to_json())["metrics"]["CAP"] is None
    assert "CAP –" in str(empty.result())


@pytest.mark.parametrize(
    ("single", "name", "metric"),
    [
        (CAP, "noprior", "CAP"),
        (CIoU, "noprior", "CIoU@0.3"),
        (AUC, "lvs", "AUC"),
        (PIAP, "noprior", "PIAP"),
        (CountingAccuracy, "clean", "CountAcc"),
    ],
)
def test_each_one_is_a_metric_of_its_own(single, name, metric):
    maps, boxes, _, size = scenes()
    protocol = protocols.get(name).replace(size=size)
    whole, alone = SoundLocalization(protocol), single(protocol=protocol)
    whole.update(maps, boxes)
    alone.update(maps, boxes)
    assert alone.compute() == whole.compute()[metric]
    other = LocalizationMetric(metric, protocol)
    assert other(maps, boxes) == alone.compute()
    with pytest.raises(ValueError, match="CAP, AP, CIoU@t"):
        LocalizationMetric("mAP")


def test_mean_and_threshold_of_ciou():
    maps, boxes, _, size = scenes()
    mean = CIoU(None, protocols.clean.replace(size=size))
    mean.update(maps, boxes)
    metric = metric_of("clean", size)
    metric.update(maps, boxes)
    assert mean.compute() == metric.compute()["mCIoU"]
    assert [CIoU(t).metrics for t in (0.25, 1, 1e-7)] == [("CIoU@0.25",), ("CIoU@1",), ("CIoU@0.0000001",)]


def test_a_ciou_of_exactly_the_threshold_reaches_it():
    metric = CIoU(2 / 3, protocols.clean.replace(size=3), task="single")
    metric.update(torch.tensor([[[[1.0, 1, 0], [0, 0, 0], [0, 0, 0]]]]), [[[(0.0, 0.0, 1.0, 1 / 3)]]])
    assert metric.compute() == 1


def test_an_error_adds_nothing():
    metric = metric_of("noprior", 8)
    truths = [torch.ones(1, 8, 8), torch.full((1, 8, 8), 2.0)]
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        metric.update([torch.rand(1, 2, 2)] * 2, truths)
    assert len(metric.tables()[0]) == 0


@pytest.mark.parametrize("name", protocols.available())
def test_chunks_and_batches_change_nothing(name, monkeypatch):
    maps, boxes, classes, size = scenes(20)
    whole, parts = metric_of(name, size), metric_of(name, size)
    whole.update(maps, boxes, source_classes=classes)
    monkeypatch.setattr("sslosses.metrics.localization._PIXELS", 1)
    for i in range(0, 20, 3):
        parts.update(maps[i : i + 3], boxes[i : i + 3], source_classes=classes[i : i + 3])
    np.testing.assert_allclose(parts.tables()[0], whole.tables()[0], atol=1e-12)
    np.testing.assert_allclose(parts.tables()[1], whole.tables()[1], atol=1e-12)


@pytest.mark.parametrize("name", protocols.available())
def test_chance_levels_of_every_protocol(name):
    _, boxes, _, size = scenes()
    protocol = protocols.get(name).replace(size=size)
    levels = chance_levels(boxes, protocol)
    assert {len(metrics) for metrics in levels.values()} == {len(protocol.mixture_metrics) + 5}
    assert levels["random maps"] == chance_levels(boxes, protocol)["random maps"]
    if name == "tvsl":  # maps that are low where it sounds: the Gaussian still is in the middle of the frame
        middle = [[[(0.3, 0.3, 0.7, 0.7)]]]
        assert chance_levels(middle, protocol)["centered Gaussian"]["CIoU"] > 0.2


def results_of_both(rank, maps, boxes, classes):
    results = []
    for cut in (5, len(maps)):  # then the second process sees no sample
        mine = slice(0, cut) if rank == 0 else slice(cut, None)
        for name in protocols.available():
            metric = SoundLocalization(protocols.get(name).replace(size=56))
            if maps[mine]:
                metric.update(maps[mine], boxes[mine], source_classes=classes[mine])
            metrics = {k: float(v) for k, v in metric.compute().items()}
            result = metric.result()
            assert metrics == {**result.metrics, **result.counts} or any(v != v for v in metrics.values())
            results.append(result.to_json())
            if maps[mine]:
                assert len(metric.tables()[1]) == len(maps[mine])  # its own samples again
    return results


@pytest.mark.slow
def test_two_processes_agree_with_one_for_every_protocol():
    maps, boxes, classes, size = scenes()
    expected = []
    for name in protocols.available():
        metric = SoundLocalization(protocols.get(name).replace(size=size))
        metric.update(maps, boxes, source_classes=classes)
        expected.append(metric.result().to_json())
    assert run_group(results_of_both, maps, boxes, classes) == [expected * 2] * 2
