"""The study of ceilings: its closed forms, compared with the metrics of maps, with brute force and with real boxes."""

import os
from itertools import combinations
from pathlib import Path

import ceiling
import pytest
import torch

from sslosses.annotations import rasterize
from sslosses.metrics import SoundLocalization, protocols
from sslosses.metrics.functional import binary_average_precision, success_auc, swapped_average_precision

METADATA = os.environ.get("SSLOSSES_METADATA")
BOXES = (
    [(0.1, 0.2, 0.4, 0.9)],
    [(0.0, 0.0, 0.9, 0.95)],
    [(0.05, 0.1, 0.3, 0.2), (0.5, 0.5, 0.9, 0.9)],
    [(0.5, 0.5, 0.5, 0.5)],  # without a pixel
)


def truths_of(boxes=BOXES, frames=None):
    return ceiling.Truths("set", boxes, frames)


def areas_of(truths):
    return torch.cat([chunk.sum((1, 2)) for chunk in ceiling.masks(truths)]).double()


def map_without_ties(mask):
    """The ground truth minus the distance to an asymmetric point."""
    steps = torch.arange(ceiling.SIZE, dtype=torch.float64)
    distance = ((steps[:, None] - 111.31415).square() + (steps - 110.71828).square()).sqrt() / ceiling.SIZE
    return (10 * mask - distance).float()


@pytest.mark.filterwarnings("ignore:1 of 4 sources have no pixel")
def test_ceilings_are_the_metrics_of_the_ground_truth_as_a_map():
    truths = truths_of()
    metric = SoundLocalization(protocols.paper.replace(single_metrics=("AP", "CIoU", "AUC")), task="single")
    maps = torch.stack([map_without_ties(rasterize(boxes, ceiling.SIZE).double()) for boxes in BOXES])
    metric.update(maps[:, None], [[boxes] for boxes in BOXES])
    result, overlap = metric.compute(), ceiling.best(areas_of(truths))
    expected = {"AP": overlap.binary.mean(), "CIoU": overlap.ciou.mean(), "AUC": success_auc(overlap.ciou)}
    for name, value in expected.items():
        torch.testing.assert_close(result[name], value, atol=1e-6, rtol=0)


def test_average_precisions_of_an_overlap_are_those_of_its_maps():
    generator = torch.Generator().manual_seed(0)
    truth, marked = torch.rand(2, 5, 224, 224, generator=generator) < torch.tensor([0.2, 0.6])[:, None, None, None]
    counts = (mask.sum((1, 2)).double() for mask in (truth, marked, truth & marked))
    overlap = ceiling.Overlap(*counts)
    expected = binary_average_precision(marked, truth), swapped_average_precision(marked, truth.double())
    for value, reference in zip((overlap.binary, overlap.swapped), expected, strict=True):
        torch.testing.assert_close(value, reference.double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("area", [0, 1, 5000, 25087, 40000, 50176])
def test_swapped_ap_has_no_lower_and_no_higher_value(area):
    both = torch.arange(max(0, area + ceiling.MARKED - ceiling.PIXELS), min(area, ceiling.MARKED) + 1).double()
    truth = torch.full_like(both, area)
    values = ceiling.Overlap(truth, torch.full_like(both, ceiling.MARKED), both).swapped
    area = torch.tensor([float(area)]).double()
    below = values.min() - ceiling.least_swapped(area)[0]
    assert -1e-12 < below < 3e-6  # the closed form takes fractions of a pixel
    torch.testing.assert_close(ceiling.best(area).swapped[0], values.max(), atol=1e-12, rtol=0)


def test_most_auc_with_few_successes_is_the_best_choice_of_the_failures():
    ciou = torch.tensor([0.9, 0.62, 0.51, 0.5, 0.31, 0.04], dtype=torch.float64)
    for successes in range(5):
        best = 0.0
        for chosen in combinations(range(4), successes):
            capped = [c if i in chosen else min(c, 0.499) for i, c in enumerate(ciou.tolist())]
            best = max(best, float(success_auc(torch.tensor(capped, dtype=torch.float64))))
        assert ceiling.most_auc(ciou, 0.5, successes / 6 + 1e-9) == pytest.approx(best)


def test_entries_are_means_over_frames():
    truths = truths_of(frames=[0, 1, 1, 2])
    values = torch.tensor([0.5, 0.2, 0.6, 1.0])
    torch.testing.assert_close(truths.entries(values), torch.tensor([0.5, 0.4, 1.0]))
    assert truths_of().entries(values) is values


@pytest.mark.parametrize("rule", [0, 3])
def test_gaussian_is_that_of_the_protocols(rule):
    boxes = BOXES[:3]
    offset = (torch.arange(224) + 0.5) / 224 - 0.5
    heat = torch.exp(-8 * (offset[:, None] ** 2 + offset**2))
    if rule:  # half of the maximum
        heat = (heat > heat.max() / 2).float()
    names = ("IoU@0.5", "IoU@0.3", "AUC", "AP")
    metric = SoundLocalization(protocols.paper.replace(single_metrics=names), task="single")
    metric.update(heat.expand(3, 1, -1, -1), [[box] for box in boxes])
    expected = [ceiling.percent(metric.compute()[name]) for name in names]
    row = ceiling.gaussian_rows(truths_of(boxes))[rule]
    assert list(row[2:6]) == (expected if not rule else [*expected[:3], "–"])


def test_truncation_takes_corner_and_side_apart():
    left, top, right, bottom = ceiling.truncated(0.005, 0.1, 0.5, 0.2999999999999)
    x, y, width, height = int(224 * 0.005), int(224 * 0.1), int(224 * 0.495), int(224 * 0.2)
    mask = rasterize([(left, top, right, bottom)], 224)
    assert mask[y : y + height, x : x + width].all()
    assert mask.sum() == width * height < rasterize([(0.005, 0.1, 0.5, 0.3)], 224).sum()


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((50.0, 100.0, 51.2), "–"),
        ((50.2, 100.0, 51.2), "AP"),
        ((50.0, 100.0, 52.6), "AUC"),
        ((None, None, None), "–"),
        ((None, 0.0, 48.0), "AUC (at most 47.5 beside this IoU@0.5)"),
    ],
)
def test_numbers_above_a_ceiling_are_named(numbers, expected):
    truths = truths_of([[(0, 0, 1, 0.25)]])  # a quarter of the frame, where half is marked: cIoU just above 0.5
    assert ceiling.too_high(numbers, ("AP", "IoU@0.5", "AUC"), truths, areas_of(truths)) == expected


def test_quoted_numbers_are_those_of_both_tables():
    rows = list(ceiling.quoted())
    assert len(rows) == 60
    assert ("MUSIC-Solo", "DSOL", [None, 51.4, 43.7]) in rows
    assert ("VGGSound-Duet", "the paper's, ResNet-18", [45.9, 55.2, 44.8]) in rows


@pytest.mark.skipif(not METADATA, reason="SSLOSSES_METADATA names no folder of public lists")
def test_ceilings_of_the_usual_music_boxes():
    truths = next(ceiling.sets(Path(METADATA)))
    row = ceiling.ceiling_row(truths, areas_of(truths))
    assert row[:7] == ("MUSIC-Solo", "2,124", "18.9", "30.6", "42.2", "37.6", "37.7")
