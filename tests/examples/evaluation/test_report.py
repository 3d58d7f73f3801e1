"""The files and tables of a report."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from avsl.evaluation import report
from avsl.evaluation.held_out import HeldOutScenes
from avsl.evaluation.predict import Prediction
from avsl.evaluation.report import SMOKE_TEST, draw_sheet, entitle, markdown_table, rich_table, write_report
from PIL import Image
from rich.console import Console

from .conftest import perfect

ROWS = {
    "trained": {"solo AP": 61.25, "solo AUC": 30.0, "solo without map": 0.0},
    "untrained": {"solo AP": 40.0, "solo AUC": 31.04, "solo without map": 0.0},
    "chance": {"solo AP": 50.0, "solo AUC": 10.0},
}


def test_markdown_table() -> None:
    assert markdown_table(ROWS).splitlines() == [
        "| % | trained | untrained | chance |",
        "| --- | ---: | ---: | ---: |",
        "| solo AP | 61.2 | 40.0 | 50.0 |",
        "| solo AUC | 30.0 | 31.0 | 10.0 |",
    ]


def test_tables_show_what_metrics_leave_out() -> None:
    rows = {name: dict(row) for name, row in ROWS.items()}
    rows["untrained"]["solo without map"] = 13.0
    for name in ("trained", "untrained"):
        rows[name]["solo share of the public list"] = 0.02
    assert markdown_table(rows).splitlines()[4:] == [
        "| solo without map | 0 scenes | 13 scenes | – |",
        "| solo share of the public list | 0.1 | 0.1 | – |",
    ]
    cells = [list(column.cells) for column in rich_table(rows, "").columns]
    assert [column[2:] for column in cells] == [
        ["solo without map", "solo share of the public list"],
        ["0 scenes", "0.1"],
        ["13 scenes", "0.1"],
        ["–", "–"],
    ]


def test_terminal_table() -> None:
    console = Console(width=100, record=True)
    with console.capture() as capture:
        console.print(rich_table(ROWS, "a title"))
    text = capture.get()
    assert "a title" in text
    assert text.index("61.2") < text.index("30.0")
    bold = [str(cell) for column in rich_table(ROWS, "").columns for cell in column.cells if "[bold]" in str(cell)]
    assert bold == ["[bold]61.2[/]"]


def test_report_files(tmp_path: Path) -> None:
    write_report(tmp_path, ROWS, {"training": 1.5})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {
        "percent": ROWS,
        "seconds": {"training": 1.5},
        "notes": [],
    }
    assert (tmp_path / "table.md").read_text() == markdown_table(ROWS)


def test_a_smoke_test_says_so_in_every_file(
    held_out: dict[str, HeldOutScenes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(tmp_path, ROWS, {}, [SMOKE_TEST])
    assert json.loads((tmp_path / "metrics.json").read_text())["notes"] == [SMOKE_TEST]
    assert (tmp_path / "table.md").read_text() == f"{SMOKE_TEST}\n\n{markdown_table(ROWS)}"
    titles = []
    monkeypatch.setattr(report.plt, "close", lambda figure: titles.append(figure.get_suptitle().replace("\n", " ")))
    for title in (SMOKE_TEST, ""):
        draw_sheet(tmp_path / "sheet.png", [(held_out["solo"], perfect(held_out["solo"]))], title)
    assert titles == [SMOKE_TEST, ""]


def test_a_sheet_of_frames_side_by_side(side_by_side: HeldOutScenes, tmp_path: Path) -> None:
    path, heat = tmp_path / "sheet.png", torch.rand(2, 7, 14)
    draw_sheet(path, [(side_by_side, Prediction(heat, heat[:, None].expand(-1, 2, -1, -1), torch.ones(2, 2) > 0))], "")
    with Image.open(path) as image:
        assert image.width > 3 * image.height


def test_sheet(held_out: dict[str, HeldOutScenes], tmp_path: Path) -> None:
    duet = perfect(held_out["duet"])._replace(valid=torch.tensor([[True, False]]))
    path = tmp_path / "sheet.png"
    draw_sheet(path, [(held_out["solo"], perfect(held_out["solo"])), (held_out["duet"], duet)], "")
    assert [p.name for p in tmp_path.glob("*.png")] == ["sheet.png"]
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert image.width > image.height > 50
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).view(-1, 3).int()
    for box in ((0, 255, 0), (255, 0, 0)):  # of sounding and of silent objects
        assert ((pixels - torch.tensor(box)).abs().amax(1) < 40).sum() > 20


@pytest.mark.parametrize("width", [2.5, 4.2, 5.2, 14.0])
def test_a_title_is_not_cut(width: float) -> None:
    figure, _ = plt.subplots(figsize=(width, 4), layout="constrained")
    entitle(figure, SMOKE_TEST)
    figure.canvas.draw()
    box = figure._suptitle.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    plt.close(figure)
