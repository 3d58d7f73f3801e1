import json

import chance
import metrics
import numpy as np
import pytest
import torch
import video_intervals

from sslosses.metrics import chance_levels, protocols


@pytest.mark.parametrize("protocol", metrics.LOOPS)
def test_loop_and_library_agree(protocol):
    generator = np.random.default_rng(1)
    frames = metrics.synthetic_boxes(6, generator)
    maps = generator.normal(size=(6, 14, 14)).astype(np.float32)
    library, loop = metrics.library(protocol, torch.from_numpy(maps), frames), metrics.loop(protocol, maps, frames)
    for metric in protocols.get(protocol).single_metrics:
        assert library[metric] == pytest.approx(loop[metric], abs=1e-5), metric


def test_a_run_resumes(tmp_path):
    small = ["--frames", "4", "--check-frames", "4", "--loop-frames", "2", "--rounds", "2", "--threads", "1"]
    small += ["--no-memory", "--output", str(tmp_path)]
    metrics.main([*small, "--protocols", "lvs"])
    first = json.loads((tmp_path / "metrics.json").read_text())["rows"]
    metrics.main([*small, "--protocols", "lvs", "paper"])
    rows = json.loads((tmp_path / "metrics.json").read_text())["rows"]
    assert {row["protocol"]: row["run"] for row in rows.values()} == {"lvs": 0, "paper": 1}
    assert rows.items() >= first.items()
    text = (tmp_path / "metrics.md").read_text()
    assert "| `lvs` | 4 |" in text
    assert "| `paper` | 4 |" in text


def test_chance_levels_of_small_sets(tmp_path, monkeypatch):
    boxes = [[0.1, 0.2, 0.5, 0.7], [0.4, 0.3, 0.5, 0.5]]
    files = {
        "vggss": [{"file": f"v{i}", "class": "elk", "bbox": [b]} for i, b in enumerate(boxes)],
        "music_solo": [{"file": f"s{i}", "class": "cello", "bbox": b} for i, b in enumerate(boxes)],
        "music_duet": [
            {"file": "d", "class_src1": "a", "bbox_src1": boxes[0], "class_src2": "b", "bbox_src2": boxes[1]}
        ],
    }
    for name, entries in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(entries))
    out = tmp_path / "out"
    arguments = ["--metadata", str(tmp_path), "--threads", "1", "--output", str(out)]
    monkeypatch.setattr(protocols, "available", lambda: ("lvs", "noprior"))
    chance.main(arguments)
    rows = json.loads((out / "chance.json").read_text())["rows"]
    assert len(rows) == 6
    expected = chance_levels([[[b]] for b in boxes], "lvs", task="single")
    assert rows["VGG-SS lvs"]["chance"]["random maps"]["AUC"] == expected["random maps"]["AUC"].item()
    assert "union of both sources" in rows["MUSIC-Duet lvs"]["reason"]
    assert "no meaning: one entry per frame" in (out / "chance.md").read_text()
    assert rows["MUSIC-Duet noprior"]["entries"] == 2

    def never(*args, **kwargs):
        raise AssertionError

    monkeypatch.setattr(chance, "chance_levels", never)
    chance.main(arguments)
    assert json.loads((out / "chance.json").read_text())["rows"] == rows


def test_intervals_over_videos_of_small_sets(tmp_path, capsys):
    boxes = [[0.1, 0.2, 0.5, 0.7], [0.4, 0.3, 0.5, 0.5], [0.0, 0.0, 0.2, 0.2]]
    clips = ["v_000_00000", "v_000_00001", "w_000_00000"]
    pair = {"class_src1": "a", "bbox_src1": boxes[0], "class_src2": "b", "bbox_src2": boxes[1]}
    files = {
        "vggss": [{"file": f"v{i}_000030", "class": "elk", "bbox": [b]} for i, b in enumerate(boxes)],
        "music_solo": [{"file": c, "class": "cello", "bbox": b} for c, b in zip(clips, boxes, strict=True)],
        "music_duet": [{"file": c, **pair} for c in clips],
    }
    for name, entries in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(entries))
    video_intervals.main(["--metadata", str(tmp_path), "--output", str(tmp_path)])
    text = (tmp_path / "video-intervals.md").read_text()
    assert capsys.readouterr().out == f"{text}\n"
    assert "| VGG-SS | 3 | 3 | 33.3 % | 3.0 |" in text
    assert "| MUSIC-Solo | 3 | 2 | 66.7 % | 1.8 |" in text
    assert "| MUSIC-Duet | 3 | 2 | 66.7 % | 1.8 |" in text
    (row,) = [line for line in text.splitlines() if line.startswith("| VGG-SS | AP |")]
    cells = [cell.strip() for cell in row.split("|")]
    assert cells[3] == cells[6]  # one clip per video
