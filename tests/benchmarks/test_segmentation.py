import json

import pytest
import segmentation


def test_loop_and_library_agree():
    data = list(segmentation.videos(3, "cpu"))
    data[0][1][:] = False  # a video without an object
    library, loop = segmentation.library(data, "cpu"), segmentation.loop(data)
    assert library == pytest.approx(loop, abs=1e-5)
    assert 0 < library["M_F (oracle)"] < 1


def test_a_run_resumes(tmp_path, monkeypatch):
    small = ["--videos", "1", "--loop-videos", "1", "--rounds", "1", "--threads", "1", "--no-memory"]
    segmentation.main([*small, "--output", str(tmp_path)])
    rows = json.loads((tmp_path / "segmentation.json").read_text())["rows"]
    assert "| 5 | 1 |" in (tmp_path / "segmentation.md").read_text()
    monkeypatch.setattr(segmentation, "measure", lambda _: pytest.fail("measured again"))
    segmentation.main([*small, "--output", str(tmp_path)])
    assert json.loads((tmp_path / "segmentation.json").read_text())["rows"] == rows


def test_a_wrong_answer_is_not_timed(tmp_path, monkeypatch):
    monkeypatch.setattr(segmentation, "loop", lambda _: {"M_J": 2.0, "M_F (oracle)": 2.0})
    with pytest.raises(SystemExit, match="metrics differ by"):
        segmentation.main(["--videos", "1", "--no-memory", "--output", str(tmp_path)])
