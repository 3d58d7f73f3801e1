"""Sums over cells between boxes' edges against sums over drawn masks."""

import pytest
import torch

from sslosses.annotations import rasterize, rasterize_sum
from sslosses.metrics import SoundLocalization, protocols
from sslosses.metrics._pipeline.targets import MaskTargets, box_targets

SIZE = 12


def boxes(generator, batch=5, sources=3, count=3):
    """Overlapping, inverted, beyond the frame, and none."""
    found = torch.rand(batch, sources, count, 4, generator=generator, dtype=torch.float64) * 1.6 - 0.3
    found[0, 0] = torch.nan
    found[1, :, 1] = torch.nan
    found[2, 1, 0] = found[2, 1, 1]
    return found


def drawn(found, add):
    draw = rasterize_sum if add else rasterize
    rows = [[draw(b[~b[:, 0].isnan()], SIZE).float() for b in sample] for sample in found]
    return MaskTargets(torch.stack([torch.stack(row) for row in rows]))


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("axis", [None, -1, -2])
@pytest.mark.parametrize("union", [False, True])
def test_sums_of_boxes_are_those_of_masks(add, axis, union):
    generator = torch.Generator().manual_seed(1)
    found = boxes(generator)
    targets, masks = box_targets(found, SIZE, add), drawn(found, add)
    if axis is not None:
        targets, masks = targets.spread(axis), masks.spread(axis)
    if union:
        targets, masks = targets.union(), masks.union()
    assert torch.equal(targets.maps, masks.maps)
    assert torch.equal(targets.total, masks.total)
    assert masks.maps.shape[1] == targets.sources
    for frames in {1, targets.sources}:
        binary = (torch.rand(5, 2, frames, *masks.maps.shape[-2:], generator=generator) < 0.5).float()
        ours, theirs = targets.sums(binary), masks.sums(binary)
        assert {name: value.shape for name, value in ours.items()} == dict.fromkeys(theirs, (5, 2, targets.sources))
        for name, value in theirs.items():
            assert torch.equal(ours[name], value), name
        of_pairs = binary.expand(-1, -1, targets.sources, -1, -1) * masks.maps[:, None]
        assert torch.equal(theirs["inter"], of_pairs.sum((-2, -1)).double())
        assert torch.equal(theirs["hits"], (of_pairs > 0).sum((-2, -1)).double())
        assert torch.equal(theirs["positive"], (masks.maps > 0).sum((-2, -1)).double()[:, None].expand(5, 2, -1))


@pytest.mark.parametrize("name", protocols.available())
@pytest.mark.parametrize("layout", ["one", "stacked", "side-by-side"])
def test_boxes_and_masks_give_one_table(name, layout):
    generator = torch.Generator().manual_seed(2)
    found, shape = boxes(generator), {"one": (4, 4), "stacked": (12, 4), "side-by-side": (4, 12)}[layout]
    maps = torch.randn(5, 2, *shape, generator=generator)
    # each source with another number of boxes, so that batches differ
    given = [[b[~b[:, 0].isnan()] for b in sample] for sample in found]
    protocol = protocols.get(name).replace(size=SIZE)
    kinds = (*(() if isinstance(protocol.threshold, tuple) else ("PIAP", "IoU")), *protocol.mixture_metrics)
    protocol = protocol.replace(mixture_metrics=tuple(dict.fromkeys(kinds)))
    one, other = (SoundLocalization(protocol, layout=layout) for _ in range(2))
    one.update(maps, given)
    other.update(maps, drawn(found, protocol.add_boxes).maps)
    for mine, theirs in zip(one.tables(), other.tables(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-7)


def test_only_zeros_and_ones_are_binary():
    assert MaskTargets(torch.tensor([[[[0.0, 1.0, 1.0]]]])).is_binary
    assert not MaskTargets(torch.tensor([[[[0.0, 0.5, 1.0]]]])).is_binary
    # squares that add up to the sum by chance
    assert not MaskTargets(torch.tensor([[[[2.0, *[0.5] * 8]]]])).is_binary
    # a value that rounding drops from the sum
    assert not MaskTargets(torch.tensor([[[[1.0, 1e-9]]]])).is_binary
