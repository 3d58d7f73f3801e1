"""The studies behind the page on protocols: the table of all protocols, and the paper's options."""

import same_maps
import torch
from paper_options import costs, literal_oca

from sslosses import object_aware_contrastive_loss


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
