"""The states of metrics: memory, wrappers of torchmetrics, and the order in which samples come."""

import pickle
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torchmetrics import MetricCollection
from torchmetrics.wrappers import BootStrapper, MetricTracker, MinMaxMetric, MultitaskWrapper, Running

from sslosses.metrics import AUC, CAP, CIoU, SilentObjectDiscrimination, SoundLocalization, protocols
from sslosses.metrics._pipeline.tables import joined

from .. import processes

processes.preload(__name__)

SMALL = protocols.paper.replace(size=16)
COUNT = 7
MAPS = torch.rand(COUNT, 2, 4, 4, generator=torch.Generator().manual_seed(0))
TRUTHS = torch.zeros(COUNT, 2, 16, 16, dtype=torch.bool)
TRUTHS[:, 0, :8] = TRUTHS[:, 1, 8:] = True


def direct(*samples, metric=CAP):
    whole = metric(SMALL)
    whole.update(MAPS[list(samples)], TRUTHS[list(samples)])
    return float(whole.compute())


# Rows


def test_rows_are_joined_in_order_into_few_tables():
    tables = []
    for i in range(1000):
        tables = joined([*tables, torch.full((i % 3, 1), float(i))])
        assert len(tables) <= 11
    assert torch.cat(tables)[:, 0].tolist() == [i for i in range(1000) for _ in range(i % 3)]
    sizes = [len(table) for table in tables]
    assert all(size > 2 * after for size, after in pairwise(sizes))


def test_rows_without_an_entry_are_joined_too():
    tables = []
    for _ in range(100):
        tables = joined([*tables, torch.zeros(0, 7)])
    assert [tuple(table.shape) for table in tables] == [(0, 7)]


@pytest.mark.parametrize("way", ["update", "forward", "merge"])
def test_every_way_of_adding_samples_joins_rows_and_gives_the_same_value(way):
    metric = SoundLocalization(SMALL)
    for i in range(COUNT):
        if way == "update":
            metric.update(MAPS[i : i + 1], TRUTHS[i : i + 1])
        elif way == "forward":
            assert float(metric(MAPS[i : i + 1], TRUTHS[i : i + 1])["CAP"]) == direct(i)
        else:
            other = SoundLocalization(SMALL)
            other.update(MAPS[i : i + 1], TRUTHS[i : i + 1])
            metric.merge_state(other)
    metric._update_count = COUNT
    assert len(metric.entry_rows) <= 3
    assert float(metric.compute()["CAP"]) == pytest.approx(direct(*range(COUNT)), abs=1e-15)


def test_a_copy_does_not_share_rows_with_its_original():
    metric = CAP(SMALL)
    metric.update(MAPS[:3], TRUTHS[:3])
    copied, stored = metric.clone(), pickle.dumps(metric)
    metric.update(MAPS[3:], TRUTHS[3:])
    copied.update(MAPS[5:6], TRUTHS[5:6])
    assert float(copied.compute()) == direct(0, 1, 2, 5)
    assert float(metric.compute()) == direct(*range(COUNT))
    assert float(pickle.loads(stored).compute()) == direct(0, 1, 2)


def test_rows_that_are_kept_on_the_cpu():
    metric = CAP(SMALL, compute_on_cpu=True)
    metric.update(MAPS[:3], TRUTHS[:3])
    metric(MAPS[3:], TRUTHS[3:])
    assert float(metric.compute()) == pytest.approx(direct(*range(COUNT)), abs=1e-15)


def resident():
    with Path("/proc/self/status").open() as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def growth(_rank, kind):
    """Bytes per update."""
    torch.set_num_threads(1)
    maps, boxes = torch.rand(1, 1, 7, 7), [[[(0.1, 0.1, 0.5, 0.6)]]]
    mask = torch.zeros(1, 224, 224, dtype=torch.bool)
    mask[:, 20:100, 30:150] = True
    metric, method = {
        "update": lambda: (SoundLocalization("paper", task="single"), "update"),
        "forward": lambda: (CAP(), "forward"),
        "collection": lambda: (MetricCollection([CAP(), AUC(), CIoU()]), "update"),
        "discrimination": lambda: (SilentObjectDiscrimination(), "update"),
    }[kind]()
    arguments = (maps[:, 0], mask, mask[:, None]) if kind == "discrimination" else (maps, boxes)
    count = 1500
    for i in range(300 + count):
        if i == 300:  # buffers and compiled code are there
            before = resident()
        getattr(metric, method)(*arguments)
    return (resident() - before) / count


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the system does not report resident memory")
@pytest.mark.parametrize("kind", ["update", "forward", "collection", "discrimination"])
def test_an_update_of_one_sample_takes_no_more_memory_than_its_rows(kind):
    """In a process of its own: small tensors of every update pin the memory of large temporary ones."""
    (grown,) = processes.run(growth, kind, processes=1)
    assert grown < 3000  # 128 bytes of rows, and what the allocator keeps; 8,000 to 24,000 unjoined


# Wrappers of torchmetrics


@pytest.mark.parametrize("first", ["update", "forward"])
def test_a_running_window_is_over_its_last_updates(first):
    running = Running(CAP(SMALL), 2)
    for i in range(COUNT):
        if (i % 2 == 0) == (first == "update"):
            running.update(MAPS[i : i + 1], TRUTHS[i : i + 1])
        else:
            assert float(running(MAPS[i : i + 1], TRUTHS[i : i + 1])) == direct(i)
        assert float(running.compute()) == pytest.approx(direct(*range(max(0, i - 1), i + 1)), abs=1e-15)
    running.reset()
    running.update(MAPS[:1], TRUTHS[:1])
    assert float(running.compute()) == direct(0)


def test_a_running_window_of_several_metrics_counts_its_samples():
    running = Running(SoundLocalization(SMALL), 3)
    for i in range(COUNT):
        running.update(MAPS[i : i + 1], TRUTHS[i : i + 1])
    result = running.compute()
    assert (int(result["samples"]), int(result["entries"])) == (3, 6)


def test_a_running_window_of_discrimination():
    running = Running(SilentObjectDiscrimination(), 2)
    for i in range(3):
        running.update(MAPS[i : i + 1, 0], TRUTHS[i : i + 1, 0], TRUTHS[i : i + 1, 1:])
    assert int(running.compute()["pairs"]) == 2


def test_other_wrappers_and_sums_of_metrics():
    extremes = MinMaxMetric(CAP(SMALL))
    for part in (slice(0, 3), slice(3, COUNT)):
        extremes.update(MAPS[part], TRUTHS[part])
        value = extremes.compute()
    assert float(value["raw"]) == pytest.approx(direct(*range(COUNT)), abs=1e-15)
    assert {float(value["min"]), float(value["max"])} == {direct(0, 1, 2), float(value["raw"])}
    tracker = MetricTracker(MetricCollection([CAP(SMALL), AUC(SMALL)]))
    for i in range(3):
        tracker.increment()
        tracker.update(MAPS[i : i + 2], TRUTHS[i : i + 2])
    assert tracker.compute_all()["CAP"].tolist() == [direct(i, i + 1) for i in range(3)]
    tasks = MultitaskWrapper({"a": CAP(SMALL), "b": AUC(SMALL)})
    tasks.update({"a": MAPS, "b": MAPS}, {"a": TRUTHS, "b": TRUTHS})
    assert float(tasks.compute()["b"]) == direct(*range(COUNT), metric=AUC)
    total = (CAP(SMALL) + AUC(SMALL)) / 2
    total.update(MAPS, TRUTHS)
    mean = (direct(*range(COUNT)) + direct(*range(COUNT), metric=AUC)) / 2
    assert float(total.compute()) == pytest.approx(mean, abs=1e-15)


@pytest.mark.parametrize("sampling", ["poisson", "multinomial"])
def test_bootstraps_of_tensors(sampling):
    torch.manual_seed(0)
    bootstraps = BootStrapper(CAP(SMALL), num_bootstraps=20, raw=True, sampling_strategy=sampling)
    bootstraps.update(MAPS, TRUTHS)
    values = bootstraps.compute()
    assert float(values["mean"]) == pytest.approx(direct(*range(COUNT)), abs=0.03)
    assert 0 < float(values["std"]) < 0.03
