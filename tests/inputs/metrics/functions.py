"""The pure functions of ``sslosses.metrics.functional``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from inputs.cases import InputClass, Row, input_classes
from inputs.metrics.tensors import BINARY, GENERATOR, HEAT, INF, NAN, NO_TENSORS, close_to, no_nan
from sslosses.metrics import functional as F

Function = Callable[[Any], Any]
#: Functions of maps.
OF_MAPS: dict[str, Function] = {
    "average_precision": lambda x: F.average_precision(x, BINARY),
    "min_max_normalize": F.min_max_normalize,
    "fixed_range_normalize": F.fixed_range_normalize,
    "upper_median": F.upper_median,
    "binarize_above_upper_median": F.binarize_above_upper_median,
    "binarize_from_upper_median": F.binarize_from_upper_median,
    "binarize_from_value": lambda x: F.binarize_from_value(x, 0.5),
    "binarize_area": lambda x: F.binarize_area(x, 0.3),
    "binarize_truth_area": lambda x: F.binarize_truth_area(x, x),
    "resize_bicubic": lambda x: F.resize_bicubic(x, (8, 9)),
    "resize_bilinear": lambda x: F.resize_bilinear(x, (8, 9)),
    "silent_object_discrimination": lambda x: F.silent_object_discrimination(x, BINARY, BINARY[:, None].flip(2)),
}
#: Functions of binary maps and truths.
OF_PAIRS: dict[str, Callable[[Any, Any], Any]] = {
    "ciou": F.ciou,
    "smoothed_iou": F.smoothed_iou,
    "binary_average_precision": F.binary_average_precision,
    "swapped_average_precision": F.swapped_average_precision,
}
#: Functions of a score per entry, or per pair of a map and a source.
OF_SCORES: dict[str, Function] = {
    "greedy_assignment": F.greedy_assignment,
    "optimal_assignment": F.optimal_assignment,
    "success_rate": lambda x: F.success_rate(x, 0.5),
    "success_auc": F.success_auc,
    "detection_average_precision": lambda x: F.detection_average_precision(x, x),
    "detection_f1": lambda x: F.detection_f1(x, x),
    "detection_max_f1": lambda x: F.detection_max_f1(x, x, negatives=x),
}
COMPLEX, FLOAT8 = HEAT.to(torch.complex64), HEAT.to(torch.float8_e4m3fn)
ENTRIES, PAIRS = torch.rand(9, generator=GENERATOR), torch.rand(4, 3, 2, generator=GENERATOR)


def with_extremes(value: float) -> torch.Tensor:
    """HEAT with a value and its negative in one map."""
    changed = HEAT.clone()
    changed[0, 0, :2] = torch.tensor([value, -value])
    return changed


WRONG_MAPS = (
    Row("no tensor", NO_TENSORS, "Expected `(maps|scores)` to be a tensor, but got"),
    Row(
        "integers, booleans, complex numbers",
        (HEAT.long(), HEAT > 0, COMPLEX, HEAT.byte()),
        "Expected `(maps|scores)` to have a floating dtype",
    ),
    Row(
        "float8, sparse, meta",
        (FLOAT8, HEAT.to_sparse(), HEAT.to("meta")),
        "`(maps|scores)` to (have a real dtype|be a dense|hold values)|on the device",
    ),
)
EXTREMES = {"NaN": NAN, "infinity": INF, "±3e38, whose difference is infinite": 3e38}
#: Functions that take infinite maps.
TAKE_INFINITY = ("average_precision", "upper_median", "binarize_area", "binarize_truth_area")
MAPS_ALONE = (
    Row("a map of one pixel, of 112×112, no map", (HEAT[:, :1, :1], torch.rand(2, 112, 112), HEAT[:0]), no_nan),
    Row("expanded maps", (HEAT[:1].expand(3, -1, -1),), lambda r: torch.equal(r[0], r[2])),
    Row("denormal values, 1e30", (HEAT * 1e-42, HEAT * 1e30), lambda r: bool(r.isfinite().all())),
)


def map_rows(name: str, function: Function) -> Iterator[Row]:
    transposed = HEAT.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    same = (transposed, HEAT.clone().requires_grad_(), HEAT.double())
    half = HEAT.bfloat16()
    tolerance = 1e-2 if name == "upper_median" else 1e-6
    yield Row("non-contiguous, with a gradient, float64", same, close_to(function(HEAT)))
    yield Row("bfloat16 and float16", (half, half.half()), close_to(function(half.float()), tolerance))
    yield from WRONG_MAPS
    if name == "fixed_range_normalize":
        yield Row("NaN and infinity", (HEAT * INF, HEAT * NAN), lambda r: not r.isfinite().any())
    else:
        no_pixel = () if name == "average_precision" else (HEAT[:, :0], HEAT[..., :0])
        few = (HEAT[0, 0], HEAT.sum(), *no_pixel)
        yield Row("too few dimensions, no pixel", few, "Expected `(maps|scores)`")
        for extreme, value in EXTREMES.items():
            allowed = name in TAKE_INFINITY and extreme != "NaN"
            refused = Row(extreme, (with_extremes(value),), "Expected `(maps|scores)` to be (finite|free of NaN)")
            yield Row(*refused[:2]) if allowed else refused
    if name not in ("average_precision", "silent_object_discrimination"):
        yield from MAPS_ALONE


WRONG_NUMBERS = (NAN, INF, -0.1, 1.1, "0.5", None, True, 10**400)
WRONG_SIZES = (8, None, "88", (8,), (8, 8, 8), (0, 8), (8, -1), (2.5, 8), (True, 8), (8, 10**9))
#: Function, what takes one of its options, the row.
OPTIONS: tuple[tuple[str, Function, Row], ...] = (
    ("resize_bicubic", lambda v: F.resize_bicubic(HEAT, v), Row("wrong sizes", WRONG_SIZES, "Expected `size")),
    ("resize_bilinear", lambda v: F.resize_bilinear(HEAT, v), Row("wrong sizes", WRONG_SIZES, "Expected `size")),
    *(
        (name, run, Row("thresholds out of range, NaN, text, true", WRONG_NUMBERS, "to be a finite number"))
        for name, run in (
            ("binarize_from_value", lambda v: F.binarize_from_value(HEAT, v)),
            ("binarize_area", lambda v: F.binarize_area(HEAT, v)),
            ("success_rate", lambda v: F.success_rate(HEAT, v)),
            ("detection_f1", lambda v: F.detection_f1(HEAT[0, 0], HEAT[0, 0], v)),
        )
    ),
    (
        "fixed_range_normalize",
        lambda v: F.fixed_range_normalize(HEAT, v),
        Row("τ of 0, negative, NaN, 1e-320", (0, -1, NAN, 1e-320, "1"), "Expected `tau`"),
    ),
)

REAL_DTYPES = (torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.int64)
#: Each argument is a binary map and a truth.
PAIR_ROWS = (
    Row(
        "leading dimensions that broadcast, expanded",
        ((BINARY[:, None], BINARY), (BINARY[0].expand(3, -1, -1), BINARY)),
        no_nan,
    ),
    Row(
        "no tensor, complex, float8, sparse, meta",
        [(v, BINARY) for v in (*NO_TENSORS, COMPLEX, FLOAT8, BINARY.to_sparse(), BINARY.to("meta"))]
        + [(BINARY, v) for v in (*NO_TENSORS, COMPLEX, BINARY.to("meta"))],
        "Expected `(binary|truth)`",
    ),
    Row(
        "frames or batches that do not fit",
        [(BINARY, v) for v in (BINARY[:2], BINARY[:, :3], BINARY[0, 0], BINARY[:0])],
        "Expected .*`(binary|truth)` and `(binary|truth)`",
    ),
    Row(
        "a binary map of other values",
        [(v, BINARY) for v in (HEAT, HEAT * NAN, 2 * BINARY.float(), -BINARY.float())],
        "Expected `(binary|truth)` to hold 0 and 1 only",
    ),
    Row(
        "no map, one pixel, empty maps of empty truths",
        ((BINARY[:0], BINARY[:0]), (BINARY[:, :1, :1], BINARY[:, :1, :1]), (BINARY & False, BINARY & False)),
        no_nan,
    ),
)


def pair_rows(name: str, function: Callable[[Any, Any], Any]) -> Iterator[Row]:
    other = BINARY.flip(0)
    pairs = [(BINARY.to(d), other) for d in REAL_DTYPES] + [(BINARY, other.to(d)) for d in REAL_DTYPES]
    yield Row("any real dtype of either", pairs, close_to(function(BINARY, other)))
    yield from PAIR_ROWS
    # The others only ask whether a truth is 0.
    outside = (-1 - HEAT.abs(), 2 + HEAT.abs()) if name in ("ciou", "smoothed_iou") else ()
    yield Row(
        "truths of NaN, or out of [0, 1] where that matters",
        [(BINARY, truth) for truth in (HEAT * NAN, *outside)],
        "Expected `(truth|scores)` to (hold values in|be free of NaN)",
    )


ASSIGNMENT_ROWS = (
    Row("negative and infinite scores, no source", (-PAIRS, PAIRS * INF, PAIRS[..., :0]), "Expected `scores`"),
    Row("no map, more maps than sources, one of each", (PAIRS[:, :0], PAIRS, PAIRS[:, :1, :1])),
)


def score_rows(name: str, function: Function) -> Iterator[Row]:
    assigns = "assignment" in name
    scores = PAIRS if assigns else ENTRIES
    same = (scores.double(), torch.stack([scores, scores], -1)[..., 0], scores.clone().requires_grad_())
    wrong = (*NO_TENSORS, scores.long(), scores.to(torch.complex64), scores.to_sparse(), scores.to("meta"))
    yield Row("float64, non-contiguous, with a gradient", same, close_to(function(scores)))
    yield Row("no tensor, integers, complex, sparse, meta", wrong, "Expected `(ciou|scores)`")
    yield Row("NaN", (scores * NAN,), "Expected `(ciou|scores)` to (be free of NaN|hold finite)")
    yield Row("no entry, one entry", (scores[:0], scores[:1]))
    yield Row("a scalar", (torch.tensor(0.5),), "Expected `(ciou|scores)` to have shape")
    if assigns:
        yield from ASSIGNMENT_ROWS


BOXES_BEYOND = torch.tensor([[-1e300, -1, 1.5, 2]], dtype=torch.float64)
BOXES_PADDED = torch.tensor([[0.0, 0, 1, 1], [NAN] * 4])
OTHERS: tuple[tuple[str, Function, Row], ...] = (
    (
        "optimal_assignment",
        F.optimal_assignment,
        Row("9 maps for 9 sources", (torch.rand(1, 9, 9),), "at most 50000 ways"),
    ),
    (
        "boxes_to_truths",
        lambda arguments: F.boxes_to_truths(*arguments),
        Row("from -1e300, NaN as padding", ((BOXES_BEYOND, 4), (BOXES_PADDED, 1)), lambda r: bool(r.all())),
    ),
    (
        "boxes_to_truths",
        lambda boxes: F.boxes_to_truths(boxes, 4),
        Row(
            "meta, integers, None, other lengths",
            (HEAT, HEAT[0, 0], torch.zeros(1, 4, device="meta"), torch.zeros(1, 4).long(), None),
            "Expected `boxes`",
        ),
    ),
    (
        "area_under_success",
        F.area_under_success,
        Row(
            "other lengths, a scalar, meta",
            (HEAT, torch.tensor(1.0), torch.rand(21, device="meta"), None),
            "Expected `rates`",
        ),
    ),
)


def _classes() -> Iterator[InputClass]:
    for name, function in OF_MAPS.items():
        yield from input_classes(name, function, map_rows(name, function))
    for name, run, row in OPTIONS:
        yield from input_classes(name, run, [row])
    for name, of_pair in OF_PAIRS.items():
        yield from input_classes(name, lambda pair, of_pair=of_pair: of_pair(*pair), pair_rows(name, of_pair))
    for name, function in OF_SCORES.items():
        yield from input_classes(name, function, score_rows(name, function))
    for name, run, row in OTHERS:
        yield from input_classes(name, run, [row])


CLASSES = list(_classes())
