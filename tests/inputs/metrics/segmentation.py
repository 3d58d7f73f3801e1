"""Metrics of masks: the pure functions, and the classes over them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from inputs.cases import InputClass, Row, input_classes
from inputs.metrics.functions import COMPLEX, FLOAT8, PAIR_ROWS
from inputs.metrics.states import CHANGES, Kind
from inputs.metrics.tensors import BINARY, GENERATOR, HEAT, INF, NAN, NO_TENSORS, close_to, computed, equal_scores
from sslosses.metrics import AVSBenchSegmentation, SemanticSegmentation
from sslosses.metrics import functional as F

SHARES = torch.rand(3, 6, 5, generator=GENERATOR)
LOGITS = torch.randn(3, 2, 6, 5, generator=GENERATOR)
MASKS = torch.rand(3, 2, 6, 5, generator=GENERATOR) > 0.5
SCORES = torch.randn(3, 4, 6, 5, generator=GENERATOR)
IDS = torch.randint(4, (3, 6, 5), generator=GENERATOR)
NO_VALUES = (*NO_TENSORS, COMPLEX, HEAT.to_sparse(), HEAT.to("meta"))


def curve(arguments: Any) -> Any:
    return F.f_measure_curve(*arguments)


def areas(arguments: Any) -> Any:
    return F.class_areas(*arguments)


def same_areas(result: Any) -> bool:
    expected = F.class_areas(IDS, IDS.flip(0), 4)
    return all(torch.equal(a, b) for a, b in zip(result, expected, strict=True))


def functions() -> Iterator[InputClass]:
    # Broadcasting and empty masks are in PAIR_ROWS.
    yield from input_classes("foreground_iou", lambda pair: F.foreground_iou(*pair), PAIR_ROWS)
    plain = close_to(curve((SHARES, BINARY)))
    rows = (
        Row(
            "non-contiguous, with a gradient, float64",
            [
                (SHARES.permute(2, 0, 1).contiguous().permute(1, 2, 0), BINARY),
                (SHARES.clone().requires_grad_(), BINARY.byte()),
                (SHARES.double(), BINARY.double()),
            ],
            plain,
        ),
        Row(
            "bfloat16 and float16",
            [(SHARES.bfloat16(), BINARY), (SHARES.bfloat16().half(), BINARY)],
            close_to(curve((SHARES.bfloat16().float(), BINARY))),
        ),
        Row(
            "no tensor, integers, complex, float8, sparse, meta",
            [(v, BINARY) for v in (*NO_VALUES, FLOAT8, HEAT.long())] + [(SHARES, v) for v in NO_VALUES],
            "Expected .*`(probabilities|truth)`",
        ),
        Row(
            "out of [0, 1], NaN, infinite; masks of other values",
            [(SHARES + 1, BINARY), (SHARES * NAN, BINARY), (SHARES * INF, BINARY), (SHARES, 255 * BINARY.long())],
            "Expected `(probabilities|truth)` to hold",
        ),
        Row("no map", [(SHARES[:0], BINARY[:0])], lambda r: r.shape == (0, 255)),
        Row("no pixel, other sizes", [(SHARES[..., :0], BINARY[..., :0]), (SHARES, BINARY[:, 1:])], "Expected `prob"),
    )
    yield from input_classes("f_measure_curve", curve, rows)
    dtypes = (torch.uint8, torch.int8, torch.int16, torch.int32)
    rows = (
        Row("any integer dtype", [(IDS.to(d), IDS.flip(0).to(d), 4) for d in dtypes], same_areas),
        Row(
            "no tensor, booleans, complex, sparse, meta",
            [(v, IDS, 4) for v in (*NO_VALUES, MASKS[:, 0])] + [(IDS, v, 4) for v in (*NO_VALUES, SHARES)],
            "Expected `(predictions|truths)`",
        ),
        Row(
            "ids beyond the classes, NaN scores", [(IDS, IDS, 3), (IDS, -IDS, 4), (SCORES * NAN, IDS, 4)], "Expected `"
        ),
        Row("scores of other classes, no pixel", [(SCORES, IDS, 5), (IDS[..., :0], IDS[..., :0], 4)], "Expected `pred"),
        Row("wrong numbers of classes", [(IDS, IDS, v) for v in (0, -1, 2.5, None, "4", True)], "`num_classes`"),
        Row("no frame", [(IDS[:0], IDS[:0], 4), (SCORES[:0], IDS[:0], 4)], lambda r: r.both.shape == (0, 4)),
    )
    yield from input_classes("class_areas", areas, rows)


def binary() -> AVSBenchSegmentation:
    return AVSBenchSegmentation(scale="logits", videos_per_batch=2)


def semantic() -> SemanticSegmentation:
    return SemanticSegmentation(4)


def scored(metric: Any, maps: Any, truths: Any) -> dict[str, float]:
    metric.update(maps, truths)
    return computed(metric)


def in_parts(metric: Any) -> None:
    for i in range(3):
        metric.update(LOGITS[i : i + 1], MASKS[i : i + 1])


KINDS = {
    "AVSBenchSegmentation": Kind(binary, in_parts),
    "SemanticSegmentation": Kind(semantic, lambda metric: metric.update(SCORES, IDS)),
}


def metrics() -> Iterator[InputClass]:
    for name, kind in KINDS.items():
        row = Row("pickled, copied, stored, merged, reset, moved, cast", CHANGES, equal_scores(computed(kind.filled())))
        yield from input_classes(name, lambda change, kind=kind: computed(change(kind)), [row])
    expected = equal_scores(scored(binary(), LOGITS, MASKS))
    rows = (
        Row("masks of any dtype", [(LOGITS, MASKS.to(d)) for d in (torch.uint8, torch.int64, torch.float16)], expected),
        Row("infinite logits", [(LOGITS * INF, MASKS)], equal_scores(scored(binary(), LOGITS.sign() * 200, MASKS))),
        Row("no video", [(LOGITS[:0], MASKS[:0])], lambda r: r["videos"] == 0),
        Row(
            "no tensor, other shapes, no frame, NaN, other masks",
            [(v, MASKS) for v in (*NO_VALUES, LOGITS[0], LOGITS[:, :0], LOGITS * NAN, LOGITS[..., :0])]
            + [(LOGITS, v) for v in (*NO_VALUES, MASKS[0], 255 * MASKS.long())],
            "Expected `(maps|truths)`",
        ),
    )
    yield from input_classes("AVSBenchSegmentation", lambda pair: scored(binary(), *pair), rows)
    options = (
        Row("wrong scales", [{"scale": v} for v in (None, "", "sigmoid", 1)], "`scale`"),
        Row("wrong batches", [{"scale": "logits", "videos_per_batch": v} for v in (0, 1.5, None, True)], "`videos_per"),
    )
    yield from input_classes("AVSBenchSegmentation", lambda kwargs: AVSBenchSegmentation(**kwargs), options)
    rows = (Row("no frame", [(IDS[:0], IDS[:0])], lambda r: r["frames"] == 0),)
    yield from input_classes("SemanticSegmentation", lambda pair: scored(semantic(), *pair), rows)
    row = Row("wrong classes to leave out", (3, "0", (4,), (-1,), (0, 1, 2, 3), (0.5,), None), "`without")
    yield from input_classes("SemanticSegmentation", lambda v: SemanticSegmentation(4, without=v), [row])


CLASSES = [*functions(), *metrics()]
