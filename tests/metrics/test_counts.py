"""Marks that a compiled kernel counts, against loops over pixels and against canvases that are drawn."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sslosses.metrics import SoundLocalization, localization, protocols
from sslosses.metrics._pipeline import scorer as pipeline
from sslosses.metrics._pipeline.marks import MedianMarks
from sslosses.metrics._pipeline.samples import batches
from sslosses.metrics._pipeline.scorer import Scorer
from sslosses.metrics._pipeline.targets import BoxTargets
from sslosses.metrics.layout import FrameLayout

sys.path.insert(0, str(Path(__file__).parent))
from reference import cubic, frames_of, tent, upper_median

pytest.importorskip("numba")
from sslosses.metrics.functional._compiled_counts import _level

COUNTED = {"lvs", "ez-vsl", "noprior", "paper", "sslalign", "fnac", "fnac-bicubic", "htf", "ssl-tie", "noprior-union"}
UPSAMPLINGS = {
    "bilinear": (tent, False, (4, 8), 16),
    "bicubic": (cubic, False, (8, 4), 16),
    "bilinear, aligned corners": (tent, True, (5, 3), 17),
    "bicubic, aligned corners": (cubic, True, (3, 5), 17),
}


def whole_maps(generator, *shape):
    """Integers of few values, with ties: the weights here are short binary fractions, so no resized value is rounded.

    Map 1 is constant; most pixels of map 2 are at its maximum, and of map 3 at its minimum.
    """
    maps = torch.randint(-3, 4, shape, generator=generator).float()
    rows = maps.view(-1, *shape[-2:])
    rows[1], rows[2], rows[3] = 2, 1, -1
    rows[2, 0, 0], rows[3, 0, 0] = 0, 0
    return maps


def some_boxes(generator, samples, sources, most=3):
    """From 0 boxes per source; overlapping, inverted and beyond the frame."""
    counts = torch.randint(0, most + 1, (samples, sources), generator=generator).tolist()
    return [[(torch.rand(n, 4, generator=generator) * 1.4 - 0.2).tolist() for n in row] for row in counts]


def marked_of(frame, binarization):
    median = upper_median(frame)
    if binarization == "from upper median":
        return frame >= median
    if binarization == "above upper median" and median == frame.max():
        return (frame == median) & (frame.min() < median)
    return frame > median


@pytest.mark.parametrize("binarization", ["above upper median", "above upper median, strict", "from upper median"])
@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
def test_counts_are_those_of_loops_over_pixels(upsampling, binarization):
    kernel, aligned, shape, size = UPSAMPLINGS[upsampling]
    generator = torch.Generator().manual_seed(3)
    maps = whole_maps(generator, 5, 2, *shape)
    corners = torch.randint(0, size + 1, (5, 3, 2, 4), generator=generator)
    corners[0, 0] = 0
    rules = protocols.paper.replace(size=size, upsampling=upsampling, binarization=binarization)
    sums = BoxTargets(corners, (size, size), add=False).sums(MedianMarks(maps, rules))
    for b, m, s in np.ndindex(5, 2, 3):
        (frame,) = frames_of(maps[b, m].double().numpy(), "one", 1, size, kernel, aligned)
        marked, truth = marked_of(frame, binarization), np.zeros((size, size), dtype=bool)
        for xmin, ymin, xmax, ymax in corners[b, s].tolist():
            truth[ymin:ymax, xmin:xmax] = True
        expected = {"inter": marked & truth, "hits": marked & truth, "binary": marked, "truth": truth}
        assert {name: sums[name][b, m, s].item() for name in expected} == {k: v.sum() for k, v in expected.items()}


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("range_", [(-3, 3), (-1, 1e30), (-1e30, 1), (5, 6), (-6, -5), (0, 0), (1, -1)])
def test_level_in_a_range_guessed_right_or_wrong(range_, strict):
    low, high = map(np.float32, range_)
    generator = np.random.default_rng(9)
    for kind in ("spread", "ties", "half zeros", "two values", "constant"):
        values = generator.normal(size=241).astype(np.float32)
        if kind == "ties":
            values = values.round(1)
        elif kind == "half zeros":
            values = values.clip(0)
        elif kind == "two values":
            values = (values > 0.3).astype(np.float32)
        elif kind == "constant":
            values[:] = 0.7
        median = np.sort(values)[120]
        marked = values > median if strict else values >= median
        assert ((values >= _level(values, strict, low, high)) == marked).all(), kind


def tables(protocol, task, maps, boxes, **options):
    metric = SoundLocalization(protocol, task=task)
    metric.update(maps, boxes, **options)
    return metric.tables()


@pytest.fixture
def drawn_or_counted(monkeypatch):
    """Returns both tables of the same samples, those of drawn canvases first, and the number of counted batches."""

    def both(*arguments, **options):
        counted = []
        cells = MedianMarks.cells
        monkeypatch.setattr(MedianMarks, "cells", lambda *args: counted.append(args) or cells(*args))
        drawn = tables(*arguments, **options)
        assert not counted
        monkeypatch.setattr(pipeline, "_WORTH_COMPILING", 0)
        return drawn, tables(*arguments, **options), len(counted)

    return both


@pytest.mark.parametrize("name", protocols.available())
@pytest.mark.parametrize(("task", "sources", "maps"), [("single", 1, 1), ("mixtures", 2, 3), ("mixtures", 3, 2)])
def test_both_ways_give_one_table(name, task, sources, maps, drawn_or_counted):
    generator = torch.Generator().manual_seed(4)
    rules = protocols.get(name)
    rules = rules.replace(size=17 if rules.upsampling.endswith("aligned corners") else 16)
    values = whole_maps(generator, 7, maps, *((5, 3) if rules.size == 17 else (4, 8)))
    valid = torch.rand(7, maps, generator=generator) < 0.8
    drawn, counted, calls = drawn_or_counted(rules, task, values, some_boxes(generator, 7, sources), valid=valid)
    assert (calls > 0) == (name in COUNTED)
    for one, other in zip(drawn, counted, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("assignment", ["position", "optimal"])
def test_other_assignments_give_one_table(assignment, drawn_or_counted):
    generator = torch.Generator().manual_seed(7)
    rules = protocols.noprior.replace(size=16, assignment=assignment)
    maps, boxes = whole_maps(generator, 7, 3, 4, 8), some_boxes(generator, 7, 2)
    drawn, counted, calls = drawn_or_counted(rules, "mixtures", maps, boxes)
    assert calls
    for one, other in zip(drawn, counted, strict=True):
        assert torch.equal(one, other)


def test_values_that_rounding_merges_are_ties_both_ways(drawn_or_counted):
    generator = torch.Generator().manual_seed(8)
    maps, boxes = whole_maps(generator, 7, 1, 4, 8), some_boxes(generator, 7, 1)
    rules = protocols.ez_vsl.replace(size=16, upsampling="bilinear")
    drawn, counted, calls = drawn_or_counted(rules, "single", maps + 2**23, boxes)
    assert calls
    assert torch.equal(drawn[0], counted[0])
    assert not torch.equal(drawn[0], tables(rules, "single", maps, boxes)[0])


def test_maps_of_usual_size_give_one_table(drawn_or_counted):
    """The default size, where kernel and drawn canvases round alike unless a processor lacks fused multiply-add."""
    generator = torch.Generator().manual_seed(5)
    maps, boxes = torch.randn(4, 1, 14, 14, generator=generator), some_boxes(generator, 4, 1)
    drawn, counted, calls = drawn_or_counted("lvs", "single", maps, boxes)
    assert calls
    for one, other in zip(drawn, counted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize("at_once", [1, 3, 64])
def test_batches_of_any_length_give_one_table(at_once, monkeypatch):
    generator = torch.Generator().manual_seed(6)
    maps, boxes = torch.randn(23, 1, 4, 4, generator=generator), some_boxes(generator, 23, 1)
    rules = protocols.lvs.replace(size=16)
    monkeypatch.setattr(pipeline, "_WORTH_COMPILING", 0)
    monkeypatch.setattr(localization, "_PIXELS", 16**2)
    whole = tables(rules, "single", maps, boxes)
    monkeypatch.setattr(localization, "_BOXES", at_once)
    lengths = []
    score = Scorer.score
    monkeypatch.setattr(Scorer, "score", lambda self, part: lengths.append(len(part.maps)) or score(self, part))
    for one, other in zip(whole, tables(rules, "single", maps, boxes), strict=True):
        assert torch.equal(one, other)
    assert max(lengths) <= at_once
    assert sum(lengths) == 23


class _Marker(Scorer):
    def binary(self, scores, threshold, targets):
        return super().binary(scores, threshold, targets)


def scored(maps, truths, rules=protocols.paper, layout="one", scorer=Scorer, kinds=("AP",), **extras):
    """Whether the scorer counts one batch."""
    frame = FrameLayout(layout)
    (batch,) = batches(maps, truths, None, extras, size=rules.size, layout=frame, most_sources=None)
    return scorer(rules, "mixtures", frame, set(kinds)).only_counts(batch)


def test_canvases_are_drawn_where_counts_do_not_suffice(monkeypatch):
    maps, boxes = torch.rand(6, 1, 7, 7), [[[[0, 0, 1, 1]]]] * 6
    assert scored(maps, boxes)
    assert scored(maps.half(), boxes)
    assert not scored(maps[:5], boxes[:5])  # too few pixels
    assert not scored(maps, torch.ones(6, 1, 224, 224))
    assert not scored(maps.double(), boxes)
    assert not scored(torch.rand(6, 1, 224, 7), boxes)  # as high as the frame
    assert not scored(maps, boxes, layout="stacked")
    assert not scored(maps, boxes, scorer=_Marker)
    assert not scored(maps, boxes, protocols.ez_vsl, priors=torch.rand(6, 7, 7))
    assert not scored(maps, boxes, protocols.paper.replace(add_boxes=True))
    assert not scored(maps, boxes, protocols.paper.replace(average_precision="continuous"))
    assert scored(maps, boxes, protocols.paper.replace(average_precision="continuous"), kinds=("AUC",))
    monkeypatch.setattr(pipeline, "can_import", lambda _: False)
    assert not scored(maps, boxes)
