"""The files and tables of a report."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from avsl.evaluation import sheet
from avsl.evaluation.held_out import HeldOutScenes
from avsl.evaluation.legend import source_labels
from avsl.evaluation.predict import Prediction
from avsl.evaluation.report import SMOKE_TEST, markdown_table, rich_table, write_report
from avsl.evaluation.sheet import SHEET_TITLE, draw_sheet, entitle
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
        ["0\nscenes", "0.1"],
        ["13\nscenes", "0.1"],
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


MODELS = ("trained", "trained, clustering", "untrained", "untrained, clustering")
BASELINES = ("centered Gaussian", "whole frame", "random maps")


def bold(rows: dict[str, dict[str, float]]) -> dict[str, list[str]]:
    """The bold cells of each row."""
    columns = rich_table(rows, "").columns[1:]
    return {
        row: [cell for cell in map(str, column.cells) if "[bold]" in cell]
        for row, column in zip(rows, columns, strict=True)
    }


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((70.0, 80.0, 60.0, 65.0, 50.0), ["[bold]70.0[/]", "[bold]80.0[/]"]),  # each against the references only
        ((70.0, 80.0, 60.0, 75.0, 50.0), [None, "[bold]80.0[/]"]),  # the untrained model's other identification counts
        ((70.0, 80.0, 60.0, 65.0, 90.0), [None, None]),
        ((70.0, 60.0, 70.0, 50.0, 50.0), [None, None]),  # as high is not above
        ((10.0, 20.0, 90.0, 95.0, 5.0), [None, None]),  # rows of untrained models are never bold
    ],
)
def test_trained_rows_are_bold_where_they_exceed_all_references(
    values: tuple[float, ...], expected: list[str | None]
) -> None:
    *models, chance = values
    rows = {name: {"duet CAP": value} for name, value in zip(MODELS, models, strict=True)}
    rows |= {name: {"duet CAP": chance} for name in BASELINES}
    shown = bold(rows)
    assert [shown[name] for name in MODELS[:2]] == [[cell] if cell else [] for cell in expected]
    assert not any(shown[name] for name in (*MODELS[2:], *BASELINES))


def test_a_model_of_another_name_is_bold() -> None:
    """In the tables of evaluate.py the first row is the model."""
    rows = {"model": {"AP": 60.0}, "whole frame": {"AP": 50.0}}
    assert bold(rows) == {"model": ["[bold]60.0[/]"], "whole frame": []}


def test_the_table_of_a_run_fits_a_terminal() -> None:
    names = ("solo AP", "solo IoU@0.5", "solo > silent", "duet CIoU@0.3", "duet without map")
    rows = {row: dict.fromkeys(names, 100.0) for row in (*MODELS, *BASELINES)}
    console = Console(width=80)
    with console.capture() as capture:
        console.print(rich_table(rows, "runs/name"))
    text = capture.get()
    assert "…" not in text
    assert all(len(line) <= 80 for line in text.splitlines())
    counts = {"trained": 2, "untrained": 2, "clustering": 2, "Gaussian": 1, "random": 1, "scenes": 7, "CIoU@0.3": 1}
    words = text.replace(",", " ").split()
    assert {word: words.count(word) for word in counts} == counts
    assert words.count("100.0") == 4 * 7


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
    monkeypatch.setattr(sheet.plt, "close", lambda figure: titles.append(figure.get_suptitle().replace("\n", " ")))
    for title in (SMOKE_TEST, ""):
        draw_sheet(tmp_path / "sheet.png", [(held_out["solo"], perfect(held_out["solo"]))], title)
    assert titles == [f"{SMOKE_TEST} {SHEET_TITLE}", SHEET_TITLE]


def test_a_sheet_of_frames_side_by_side(side_by_side: HeldOutScenes, tmp_path: Path) -> None:
    path, heat = tmp_path / "sheet.png", torch.rand(2, 7, 14)
    draw_sheet(path, [(side_by_side, Prediction(heat, heat[:, None].expand(-1, 2, -1, -1), torch.ones(2, 2) > 0))], "")
    with Image.open(path) as image:
        assert image.width > 2.5 * image.height


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
    for box in ((0, 255, 0), (0, 191, 255), (255, 0, 0)):  # of two sounding objects and of silent ones
        assert ((pixels - torch.tensor(box)).abs().amax(1) < 40).sum() > 20


def test_every_panel_of_a_sheet_says_what_it_is(
    held_out: dict[str, HeldOutScenes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    duet = perfect(held_out["duet"])._replace(valid=torch.tensor([[True, False]]))
    figures = []
    monkeypatch.setattr(sheet.plt, "close", figures.append)
    draw_sheet(tmp_path / "sheet.png", [(held_out["solo"], perfect(held_out["solo"])), (held_out["duet"], duet)], "")
    (figure,) = figures
    solo, both = (source_labels(held_out[subset], 0) for subset in ("solo", "duet"))
    assert [axis.get_title() for axis in figure.axes] == [
        *(solo[0], "map of the sound"),
        *(" + ".join(both), "map of the sound", f"source 1: {both[0]}", "source 2: not found"),
    ]
    assert [text.get_text() for text in figure.axes[0].texts + figure.axes[2].texts] == [*solo, *both]
    assert [text.get_text() for text in figure.axes[5].texts] == [f"{both[1]}\nnot found"]
    assert len({text.get_color() for text in figure.axes[2].texts}) == 2
    (legend,) = figure.legends
    assert "the model has found no such source" in [text.get_text() for text in legend.get_texts()]
    assert all(axis.get_window_extent().width >= 200 for axis in figure.axes)
    plt.close("all")


@pytest.mark.parametrize("width", [2.5, 4.2, 5.2, 14.0])
def test_a_title_is_not_cut(width: float) -> None:
    figure, _ = plt.subplots(figsize=(width, 4), layout="constrained")
    entitle(figure, SMOKE_TEST)
    figure.canvas.draw()
    box = figure._suptitle.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    plt.close(figure)
