"""The pictures of docs/ that explain: what they say of the commands, and that nothing is written outside of them."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))
diagrams = importlib.import_module("diagrams")


def pictures() -> dict[str, Figure]:
    picture, heat = np.full((32, 32, 3), 0.5), torch.rand(7, 7, generator=torch.Generator().manual_seed(0))
    pair = diagrams.Pair(picture, heat, "clip A: the rest of the frame\n(with silent things)", 0.9, diagrams.LEFT_OUT)
    box = [(0.1, 0.1, 0.5, 0.5)]
    caption = "an image of a person playing the accordion"
    maps = (torch.rand(8, 7, 7), heat, heat.expand(3, -1, -1), heat.expand(2, -1, -1))
    scene = diagrams.Scene(picture, torch.rand(4800), ("cello", "tuba"), [box] * 2, [caption] * 3, *maps, "a score")
    return {
        "pipeline": diagrams.draw_pipeline(scene),
        "oca": diagrams.draw_oca(caption, caption, [pair] * 4, [pair] * 2, 0.7),
        "files": diagrams.draw_files(),
    }


def test_the_commands_are_those_of_the_page() -> None:
    page = (ROOT / "docs" / "guide" / "data.md").read_text(encoding="utf-8")
    assert [command for command, _, _ in diagrams.STEPS] == re.findall(r"^python examples/(\w+\.py)", page, re.M)[:6]


@pytest.mark.parametrize("name", ["pipeline", "oca", "files"])
def test_nothing_is_written_outside_and_letters_are_large(name: str) -> None:
    figure = pictures()[name]
    figure.canvas.draw()
    assert figure.bbox.width == 780
    texts = [text for axis in figure.axes for text in axis.texts if text.get_text()]
    for text in texts:
        box = text.get_window_extent()
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1, text.get_text()
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1, text.get_text()
        assert text.get_fontsize() * 100 / 72 >= 20
    plt.close("all")
