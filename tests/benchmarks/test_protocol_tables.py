"""The studies behind the page on protocols: the maps of the ceiling, and the table of all protocols."""

import ceiling
import same_maps
import torch
from paper_options import costs, literal_oca

from sslosses import object_aware_contrastive_loss
from sslosses.metrics import SoundLocalization


def test_best_map_has_no_plateau_and_is_highest_in_the_truth():
    mask = torch.zeros(ceiling.SIZE, ceiling.SIZE, dtype=torch.float64)
    mask[20:90, 100:180] = 1
    heat = ceiling.best_map(mask)
    assert heat[mask > 0].min() > heat[mask == 0].max()
    assert heat.float().unique().numel() > 0.99 * heat.numel()


def test_ceiling_of_an_object_is_twice_its_area():
    mask = torch.zeros(224, 224, dtype=torch.float64)
    mask[:56] = 1  # a quarter of the frame, where half is marked
    metric = SoundLocalization("paper", task="single")
    metric.update(ceiling.best_map(mask)[None, None].float(), mask[None, None].bool())
    torch.testing.assert_close(metric.compute()["AP"], torch.tensor(0.5, dtype=torch.float64), atol=1e-4, rtol=0)


def test_table_puts_metrics_under_the_name_that_readers_take_them_for():
    levels = {
        "centered Gaussian": {"AP50": 0.2, "mCIoU": 0.1, "AUC": 0.0},
        "whole frame": dict.fromkeys(("AP50", "mCIoU", "AUC"), 0.3),
    }
    results = {"ez-vsl": {"metrics": {"AP50": 0.5, "mCIoU": 0.4, "AUC": 0.25}, "chance": levels}}
    line = same_maps.table(results).splitlines()[-1]
    assert line == "| `ez-vsl` | AP50 **50.0** (30.0) | mCIoU **40.0** (30.0) | AUC **25.0** (30.0) |"


def test_literal_equations_are_those_of_the_loss_in_float64():
    torch.manual_seed(0)
    shapes = (4, 16, 5, 5), (4, 16), (4, 2, 16), (4, 16)
    inputs = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    torch.testing.assert_close(literal_oca(*inputs), object_aware_contrastive_loss(*inputs).loss)


def test_values_alone_do_not_see_places():
    cells = {name: cell for _, name, cell in costs()}
    assert "values alone 0.000" in cells["maps of 0.3 and 0.7: equal"]
    assert "both parts 0.650" in cells["maps of 0.3 and 0.7: equal"]
