import json
from types import SimpleNamespace

import pytest

from sslosses.evaluate.benchmark import LazyTruths, read_benchmark

OVERLAPPING = [[0, 0, 1, 0.5], [0, 0, 0.5, 1]]


@pytest.fixture
def vggss(tmp_path):
    path = tmp_path / "vggss.json"
    path.write_text(json.dumps([{"file": c, "class": "elk bugling", "bbox": OVERLAPPING} for c in ("a", "b", "c")]))
    return path


def benchmark(path, form):
    return read_benchmark(path, form, boxes=None, layout="stacked", on_invalid="report", clips=None)


@pytest.mark.parametrize("adds", [True, False])
def test_protocols_may_add_overlapping_boxes_of_mixtures(tmp_path, vggss, adds):
    protocol = SimpleNamespace(size=2, add_boxes=adds)
    (tmp_path / "duet.csv").write_text("a,elk_bugling,b,elk_bugling\n")
    mixtures = benchmark(tmp_path / "duet.csv", "vggsound-duet")
    source = [[2, 1], [1, 0]] if adds else [[1, 1], [1, 0]]
    assert mixtures.truth(mixtures.records[0], protocol).int().tolist() == [source, source]
    single = benchmark(vggss, "vggss")
    assert single.truth(single.records[0], protocol).int().tolist() == [[[1, 1], [1, 0]]]


def test_truths_are_made_when_asked_for(vggss):
    taken = []
    truths = LazyTruths(benchmark(vggss, "vggss"), SimpleNamespace(size=4), taken.append)
    assert len(truths) == 3
    assert [truth.shape for truth in truths[1:]] == [(1, 4, 4)] * 2
    assert truths[-1].equal(truths[0])
    assert taken == [2]
