"""The study of the paper's options: its literal equations."""

import torch
from paper_options import costs, literal_oca

from sslosses import object_aware_contrastive_loss


def test_literal_equations_are_those_of_the_loss_in_float64():
    torch.manual_seed(0)
    shapes = (4, 16, 5, 5), (4, 16), (4, 2, 16), (4, 16)
    inputs = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    torch.testing.assert_close(literal_oca(*inputs), object_aware_contrastive_loss(*inputs).loss)


def test_values_alone_do_not_see_places():
    cells = {name: cell for _, name, cell in costs()}
    assert "values alone 0.000" in cells["maps of 0.3 and 0.7: equal"]
    assert "both parts 0.650" in cells["maps of 0.3 and 0.7: equal"]
