"""Clips whose sound has no source in the frame, such as those of extended test sets."""

import dataclasses
import json

import numpy as np
import pytest

from sslosses.annotations import Record
from sslosses.evaluate.benchmark import read_benchmark
from sslosses.evaluate.output import as_json, tables
from sslosses.evaluate.saved_maps import SavedMaps
from sslosses.evaluate.scoring import score
from sslosses.evaluate.sheet import draw
from sslosses.metrics import protocols


@pytest.fixture
def extended(tmp_path):
    """Three clips with a source, and two without one."""
    path = tmp_path / "vggss.json"
    entries = [{"file": clip, "class": "elk bugling", "bbox": [[0, 0, 0.5, 1]]} for clip in ("a", "b", "c")]
    path.write_text(json.dumps(entries))
    options = {"boxes": None, "layout": "stacked", "on_invalid": "report", "clips": None}
    plain = read_benchmark(path, "vggss", **options)
    negatives = (Record("a+b", (), ()), Record("b+c", (), ()))
    return dataclasses.replace(plain, records=(negatives[0], *plain.records, negatives[1]))


def scores_of(benchmark, tmp_path, *names):
    maps = {record.clip: np.random.default_rng(i).normal(size=(4, 4)) for i, record in enumerate(benchmark.records)}
    np.savez(tmp_path / "maps.npz", **maps)
    chosen = [protocols.get(name) for name in names]
    with SavedMaps(tmp_path / "maps.npz") as saved:
        return score(saved, benchmark, chosen, missing=(), chance=True, seed=0, tick=lambda _: None)


def test_clips_without_a_source_are_scored_and_counted(extended, tmp_path):
    scores = scores_of(extended, tmp_path, "slavc", "sslalign-adaptive")
    assert [clip for clip, _ in sorted(scores.ranking)] == ["a", "b", "c"]
    assert not scores.surplus.clips
    for result in scores.results:
        assert (result.counts["samples"], result.counts["samples_without_source"]) == (5, 2)
        assert result.counts["entries"] == 3
    table = tables(scores, "", breakdown=True)
    assert table.count("2 samples without source") == 2
    assert "| sslalign-adaptive (oracle), % |" in table
    assert "| sslalign-adaptive (oracle), %, by class |" in table
    assert "Note: 2 of 5 samples have no source and are left out by protocol 'sslalign-adaptive'" in table
    written = json.loads(as_json(scores, extended, []))["protocols"]
    assert {name: part["oracle"] for name, part in written.items()} == {"slavc": False, "sslalign-adaptive": True}
    assert written["slavc"]["chance"]["random maps"]["DetAP@0.5"] is not None


def test_without_such_clips_nothing_is_said(extended, tmp_path):
    plain = dataclasses.replace(extended, records=extended.records[1:-1])
    assert "without source" not in tables(scores_of(plain, tmp_path, "slavc"), "", breakdown=False)


def test_the_sheet_is_left_out_if_no_clip_has_a_source(extended, tmp_path, caplog):
    negatives = dataclasses.replace(extended, records=(extended.records[0], extended.records[-1]))
    ranking = scores_of(negatives, tmp_path, "slavc").ranking
    with SavedMaps(tmp_path / "maps.npz") as saved:
        more = {"missing": (), "frames": None, "per_group": 4}
        draw(tmp_path / "sheet.png", ranking, saved, negatives, protocols.slavc, **more)
    assert not (tmp_path / "sheet.png").exists()
    assert "No scored clip has a source, so sheet.png is left out" in caplog.text
