"""The sheet of ``localize.py``."""

from __future__ import annotations

import numpy as np
import torch
from avsl.localization.overlay import draw_sheet, panel_titles


def test_titles() -> None:
    assert panel_titles([0.5], 3) == [
        "the picture",
        "map of the whole sound",
        "source 1: similarity 0.50",
        "source 2: not found",
        "source 3: not found",
    ]
    assert panel_titles([0.5, 0.25], None)[2:] == ["source 1: similarity 0.50", "source 2: similarity 0.25"]
    assert panel_titles([], None) == ["the picture", "map of the whole sound"]


def test_a_sheet_has_a_title_a_key_and_gray_for_a_source_that_was_not_found() -> None:
    picture, heat = np.full((30, 60, 3), 200, np.uint8), torch.rand(7, 7, generator=torch.Generator().manual_seed(0))
    figure = draw_sheet(picture, [heat, heat], [0.5], 2, "Where a.wav comes from in a_$b$.png")
    figure.canvas.draw()
    panels, bar = figure.axes[:4], figure.axes[-1]
    assert [axis.get_title() for axis in panels] == panel_titles([0.5], 2)
    assert figure.get_suptitle() == "Where a.wav comes from in a_$b$.png"
    assert [label.get_text() for label in bar.get_xticklabels()] == ["lowest value of a map", "highest value"]
    assert np.ptp(panels[3].images[0].get_array()) == 0
    assert np.ptp(panels[2].images[0].get_array()) > 0
    assert all(axis.get_window_extent().width >= 200 for axis in panels)
