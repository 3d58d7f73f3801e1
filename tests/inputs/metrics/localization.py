"""Metrics: the pure functions, SoundLocalization and the metrics of one metric, protocols, results, chance levels."""

from __future__ import annotations

import copy
import io
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from inputs.readers.outcomes import Attempt, InputClass
from sslosses.metrics import (
    AUC,
    CAP,
    PIAP,
    CIoU,
    CountingAccuracy,
    LocalizationMetric,
    SilentObjectDiscrimination,
    SoundLocalization,
    chance_levels,
    protocols,
)
from sslosses.metrics import functional as F

PAPER = protocols.paper.replace(size=16)
NAN, INF = float("nan"), float("inf")
_GENERATOR = torch.Generator().manual_seed(0)
MAPS = torch.rand(5, 2, 7, 7, generator=_GENERATOR)
TRUTHS = torch.rand(5, 2, 16, 16, generator=_GENERATOR) > 0.6
BOXES = [[[(0.0, 0.0, 0.5, 0.5)], [(0.5, 0.5, 1.0, 1.0)]]] * 5
BINARY = torch.rand(3, 6, 5, generator=_GENERATOR) > 0.5
HEAT = torch.randn(3, 6, 5, generator=_GENERATOR)

Function = Callable[[Any], Any]
#: What takes maps: each as a function of the maps alone.
OF_MAPS: dict[str, Function] = {
    "average_precision": lambda x: F.average_precision(x, BINARY),
    "min_max_normalize": F.min_max_normalize,
    "fixed_range_normalize": F.fixed_range_normalize,
    "upper_median": F.upper_median,
    "binarize_above_upper_median": F.binarize_above_upper_median,
    "binarize_from_upper_median": F.binarize_from_upper_median,
    "binarize_from_value": lambda x: F.binarize_from_value(x, 0.5),
    "binarize_area": lambda x: F.binarize_area(x, 0.3),
    "resize_bicubic": lambda x: F.resize_bicubic(x, (8, 9)),
    "resize_bilinear": lambda x: F.resize_bilinear(x, (8, 9)),
    "silent_object_discrimination": lambda x: F.silent_object_discrimination(x, BINARY, BINARY[:, None].flip(2)),
}
#: What takes a pair of maps, binary ones and truths.
OF_PAIRS: dict[str, Callable[[Any, Any], Any]] = {
    "ciou": F.ciou,
    "smoothed_iou": F.smoothed_iou,
    "binary_average_precision": F.binary_average_precision,
    "swapped_average_precision": F.swapped_average_precision,
}
#: What takes a score for each of some pairs or entries.
OF_SCORES: dict[str, Function] = {
    "greedy_assignment": F.greedy_assignment,
    "optimal_assignment": F.optimal_assignment,
    "success_rate": lambda x: F.success_rate(x, 0.5),
    "success_auc": F.success_auc,
    "detection_average_precision": lambda x: F.detection_average_precision(x, x),
    "detection_f1": lambda x: F.detection_f1(x, x),
}
NO_TENSORS = (None, 3.0, "maps", [[1.0]], HEAT.numpy())


def _calls(function: str, name: str, wanted: str | None, *runs: Callable[[], Any], check: Any = None) -> InputClass:
    attempts = [Attempt(run, wanted) if check is None else Attempt(run, wanted, check) for run in runs]
    return InputClass(function, name, lambda _: attempts)


def _first(result: Any) -> Tensor:
    return result if isinstance(result, Tensor) else result[0]


def _same(expected: Any, tolerance: float) -> Callable[[Any], bool]:
    return lambda found: torch.allclose(_first(found).double(), _first(expected).double(), atol=tolerance, rtol=0)


def _of_maps() -> Iterator[InputClass]:
    for name, f in OF_MAPS.items():
        plain = f(HEAT)
        views = (HEAT.permute(2, 0, 1).contiguous().permute(1, 2, 0), HEAT.clone().requires_grad_(), HEAT.double())
        yield _calls(
            name,
            "non-contiguous, with a gradient, float64",
            None,
            *(lambda f=f, v=v: f(v) for v in views),
            check=_same(plain, 1e-6),
        )
        half = HEAT.bfloat16()
        yield _calls(
            name,
            "bfloat16 and float16",
            None,
            lambda f=f, h=half: f(h),
            lambda f=f, h=half: f(h.half()),
            check=_same(f(half.float()), 1e-2 if name == "upper_median" else 1e-6),
        )
        yield _calls(
            name,
            "no tensor",
            "Expected `(maps|scores)` to be a tensor, but got",
            *(lambda f=f, v=v: f(v) for v in NO_TENSORS),
        )
        kinds = (HEAT.long(), HEAT > 0, HEAT.to(torch.complex64), HEAT.byte())
        yield _calls(
            name,
            "integers, booleans, complex numbers",
            "Expected `(maps|scores)` to have a floating dtype",
            *(lambda f=f, v=v: f(v) for v in kinds),
        )
        odd = (HEAT.to(torch.float8_e4m3fn), HEAT.to_sparse(), HEAT.to("meta"))
        yield _calls(
            name,
            "float8, sparse, meta",
            "`(maps|scores)` to (have a real dtype|be a dense|hold values)|on the device",
            *(lambda f=f, v=v: f(v) for v in odd),
        )
        if name != "fixed_range_normalize":
            shapes = (
                (HEAT[0, 0], HEAT.sum())
                if name == "average_precision"
                else (HEAT[0, 0], HEAT.sum(), HEAT[:, :0], HEAT[..., :0])
            )
            yield _calls(
                name,
                "too few dimensions, no pixel",
                "Expected `(maps|scores)`",
                *(lambda f=f, v=v: f(v) for v in shapes),
            )
            for cls, value in (("NaN", NAN), ("infinity", INF), ("±3e38, whose difference is infinite", 3e38)):
                worst = HEAT.clone()
                worst[0, 0, :2] = torch.tensor([value, -value])
                right = name in ("average_precision", "upper_median", "binarize_area") and cls != "NaN"
                yield _calls(
                    name,
                    cls,
                    None if right else "Expected `(maps|scores)` to be (finite|free of NaN)",
                    lambda f=f, w=worst: f(w),
                )
        else:
            yield _calls(
                name,
                "NaN and infinity",
                None,
                lambda f=f: f(HEAT * INF),
                lambda f=f: f(HEAT * NAN),
                check=lambda r: not r.isfinite().any(),
            )
        if name not in ("average_precision", "silent_object_discrimination"):
            yield _calls(
                name,
                "a map of one pixel, of 112×112, no map",
                None,
                lambda f=f: f(HEAT[:, :1, :1]),
                lambda f=f: f(torch.rand(2, 112, 112)),
                lambda f=f: f(HEAT[:0]),
                check=lambda r: not r.isnan().any(),
            )
            yield _calls(
                name,
                "expanded maps",
                None,
                lambda f=f: f(HEAT[:1].expand(3, -1, -1)),
                check=lambda r: torch.equal(r[0], r[2]),
            )
            yield _calls(
                name,
                "denormal values, 1e30",
                None,
                lambda f=f: f(HEAT * 1e-42),
                lambda f=f: f(HEAT * 1e30),
                check=lambda r: bool(r.isfinite().all()),
            )
    for name, f in (("resize_bicubic", F.resize_bicubic), ("resize_bilinear", F.resize_bilinear)):
        sizes: tuple[Any, ...] = (8, None, "88", (8,), (8, 8, 8), (0, 8), (8, -1), (2.5, 8), (True, 8), (8, 10**9))
        yield _calls(name, "wrong sizes", "Expected `size", *(lambda f=f, s=s: f(HEAT, s) for s in sizes))
    numbers = (NAN, INF, -0.1, 1.1, "0.5", None, True, 10**400)
    for name, g in (
        ("binarize_from_value", lambda v: F.binarize_from_value(HEAT, v)),
        ("binarize_area", lambda v: F.binarize_area(HEAT, v)),
        ("success_rate", lambda v: F.success_rate(HEAT, v)),
        ("detection_f1", lambda v: F.detection_f1(HEAT[0, 0], HEAT[0, 0], v)),
    ):
        yield _calls(
            name,
            "thresholds out of range, NaN, text, true",
            "to be a finite number",
            *(lambda g=g, v=v: g(v) for v in numbers),
        )
    yield _calls(
        "fixed_range_normalize",
        "τ of 0, negative, NaN, 1e-320",
        "Expected `tau`",
        *(lambda v=v: F.fixed_range_normalize(HEAT, v) for v in (0, -1, NAN, 1e-320, "1")),
    )


def _of_pairs() -> Iterator[InputClass]:
    for name, f in OF_PAIRS.items():
        plain = f(BINARY, BINARY.flip(0))
        dtypes = (torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.int64)
        yield _calls(
            name,
            "any real dtype of either",
            None,
            *(lambda f=f, d=d: f(BINARY.to(d), BINARY.flip(0)) for d in dtypes),
            *(lambda f=f, d=d: f(BINARY, BINARY.flip(0).to(d)) for d in dtypes),
            check=_same(plain, 1e-6),
        )
        yield _calls(
            name,
            "leading dimensions that broadcast, expanded",
            None,
            lambda f=f: f(BINARY[:, None], BINARY),
            lambda f=f: f(BINARY[0].expand(3, -1, -1), BINARY),
            check=lambda r: not r.isnan().any(),
        )
        yield _calls(
            name,
            "no tensor, complex, float8, sparse, meta",
            "Expected `(binary|truth)`",
            *(
                lambda f=f, v=v: f(v, BINARY)
                for v in (
                    *NO_TENSORS,
                    HEAT.to(torch.complex64),
                    HEAT.to(torch.float8_e4m3fn),
                    BINARY.to_sparse(),
                    BINARY.to("meta"),
                )
            ),
            *(lambda f=f, v=v: f(BINARY, v) for v in (*NO_TENSORS, HEAT.to(torch.complex64), BINARY.to("meta"))),
        )
        yield _calls(
            name,
            "frames or batches that do not fit",
            "Expected .*`(binary|truth)` and `(binary|truth)`",
            *(lambda f=f, v=v: f(BINARY, v) for v in (BINARY[:2], BINARY[:, :3], BINARY[0, 0], BINARY[:0])),
        )
        yield _calls(
            name,
            "a binary map of other values",
            "Expected `(binary|truth)` to hold 0 and 1 only",
            *(lambda f=f, v=v: f(v, BINARY) for v in (HEAT, HEAT * NAN, 2 * BINARY.float(), -BINARY.float())),
        )
        truths = (HEAT * NAN, -1 - HEAT.abs(), 2 + HEAT.abs()) if name in ("ciou", "smoothed_iou") else (HEAT * NAN,)
        yield _calls(
            name,
            "truths of NaN, or out of [0, 1] where that matters",
            "Expected `(truth|scores)` to (hold values in|be free of NaN)",
            *(lambda f=f, v=v: f(BINARY, v) for v in truths),
        )
        empties = (
            lambda f=f: f(BINARY[:0], BINARY[:0]),
            lambda f=f: f(BINARY[:, :1, :1], BINARY[:, :1, :1]),
            lambda f=f: f(BINARY & False, BINARY & False),
        )
        yield _calls(
            name, "no map, one pixel, empty maps of empty truths", None, *empties, check=lambda r: not r.isnan().any()
        )


def _of_scores() -> Iterator[InputClass]:
    entries, pairs = torch.rand(9, generator=_GENERATOR), torch.rand(4, 3, 2, generator=_GENERATOR)
    for name, f in OF_SCORES.items():
        given = pairs if "assignment" in name else entries
        plain = f(given)
        views = (given.double(), torch.stack([given, given], -1)[..., 0], given.clone().requires_grad_())
        yield _calls(
            name,
            "float64, non-contiguous, with a gradient",
            None,
            *(lambda f=f, v=v: f(v) for v in views),
            check=_same(plain, 1e-6),
        )
        yield _calls(
            name,
            "no tensor, integers, complex, sparse, meta",
            "Expected `(ciou|scores)`",
            *(
                lambda f=f, v=v: f(v)
                for v in (*NO_TENSORS, given.long(), given.to(torch.complex64), given.to_sparse(), given.to("meta"))
            ),
        )
        yield _calls(
            name, "NaN", "Expected `(ciou|scores)` to (be free of NaN|hold finite)", lambda f=f, g=given: f(g * NAN)
        )
        yield _calls(name, "no entry, one entry", None, lambda f=f, g=given: f(g[:0]), lambda f=f, g=given: f(g[:1]))
        yield _calls(name, "a scalar", "Expected `(ciou|scores)` to have shape", lambda f=f: f(torch.tensor(0.5)))
        if "assignment" in name:
            yield _calls(
                name,
                "negative and infinite scores, no source",
                "Expected `scores`",
                lambda f=f: f(-pairs),
                lambda f=f: f(pairs * INF),
                lambda f=f: f(pairs[..., :0]),
            )
            yield _calls(
                name,
                "no map, more maps than sources, one of each",
                None,
                lambda f=f: f(pairs[:, :0]),
                lambda f=f: f(pairs),
                lambda f=f: f(pairs[:, :1, :1]),
            )
    yield _calls(
        "optimal_assignment",
        "9 maps for 9 sources",
        "at most 50000 ways",
        lambda: F.optimal_assignment(torch.rand(1, 9, 9)),
    )
    yield _calls(
        "boxes_to_truths",
        "±1e300, NaN as padding, no box, meta, wrong lengths and sizes",
        None,
        lambda: F.boxes_to_truths(torch.tensor([[-1e300, -1, 1e300, 2]], dtype=torch.float64), 4),
        lambda: F.boxes_to_truths(torch.tensor([[0.0, 0, 1, 1], [NAN] * 4]), 1),
        check=lambda r: bool(r.all()),
    )
    wrong = (HEAT, HEAT[0, 0], torch.zeros(1, 4, device="meta"), torch.zeros(1, 4).long(), None)
    yield _calls(
        "boxes_to_truths",
        "meta, integers, None, other lengths",
        "Expected `boxes`",
        *(lambda v=v: F.boxes_to_truths(v, 4) for v in wrong),
    )
    yield _calls(
        "area_under_success",
        "other lengths, a scalar, meta",
        "Expected `rates`",
        *(lambda v=v: F.area_under_success(v) for v in (HEAT, torch.tensor(1.0), torch.rand(21, device="meta"), None)),
    )


def metric(name: str = "paper", **options: Any) -> SoundLocalization:
    return SoundLocalization(protocols.get(name).replace(size=16), **options)


def scores(
    maps: Any = MAPS, truths: Any = TRUTHS, *more: Any, of: Metric | None = None, **extras: Any
) -> dict[str, float]:
    of = of or metric()
    of.update(maps, truths, *more, **extras)
    return values(of)


def values(of: Metric) -> dict[str, float]:
    found = of.compute()
    found = found if isinstance(found, dict) else {"value": found}
    return {name: float(value) for name, value in found.items()}


def _equal(expected: dict[str, float]) -> Callable[[dict[str, float]], bool]:
    return lambda found: (
        found.keys() == expected.keys()
        and all(
            abs(found[n] - expected[n]) < 1e-9 or (found[n] != found[n] and expected[n] != expected[n])
            for n in expected
        )
    )


def _localization() -> Iterator[InputClass]:
    name = "SoundLocalization"
    plain = scores()
    for protocol in protocols.available():
        half = MAPS.sub(0.5).mul(1.2e5).clamp(-65000, 65000).half()
        yield _calls(
            name,
            f"{protocol}: float16 maps near their largest value",
            None,
            lambda p=protocol, h=half: scores(h, of=metric(p)),
            check=_equal(scores(half.float(), of=metric(protocol))),
        )
        yield _calls(
            name,
            f"{protocol}: one pixel, 112×112, empty truths, a frame of one pixel",
            None,
            lambda p=protocol: scores(MAPS[..., :1, :1], of=metric(p)),
            lambda p=protocol: scores(torch.rand(1, 2, 112, 112), TRUTHS[:1], of=metric(p)),
            lambda p=protocol: scores(MAPS, TRUTHS & False, of=metric(p)),
            lambda p=protocol: scores(
                MAPS, TRUTHS[..., :1, :1], of=SoundLocalization(protocols.get(p).replace(size=1))
            ),
            check=lambda r: r["samples"] > 0,
        )
        yield _calls(
            name,
            f"{protocol}: ±1e38",
            "`maps` to be within",
            lambda p=protocol: scores((MAPS - 0.5) * 2e38, of=metric(p)),
        )
    views = (
        MAPS.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2),
        MAPS.double(),
        MAPS.clone().requires_grad_(),
        list(MAPS),
    )
    yield _calls(
        name,
        "maps non-contiguous, float64, with a gradient, in a list",
        None,
        *(lambda v=v: scores(v) for v in views),
        check=_equal(plain),
    )
    dtypes = (
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
        torch.uint8,
        torch.int8,
        torch.int32,
        torch.int64,
    )
    yield _calls(
        name,
        "truths of every real dtype, in a list",
        None,
        *(lambda d=d: scores(truths=TRUTHS.to(d)) for d in dtypes),
        lambda: scores(truths=list(TRUTHS)),
        check=_equal(plain),
    )
    yield _calls(
        name,
        "scaled by 1e30, shifted",
        None,
        lambda: scores(MAPS * 1e30),
        lambda: scores(MAPS.double() - 7),
        check=_equal(plain),
    )
    yield _calls(
        name,
        "expanded maps",
        None,
        lambda: scores(MAPS[:1].expand(5, -1, -1, -1)),
        check=_equal(scores(MAPS[:1].repeat(5, 1, 1, 1))),
    )
    big = torch.rand(1024, 2, 7, 7, generator=_GENERATOR)
    yield _calls(
        name,
        "1,024 samples at once",
        None,
        lambda: scores(big, TRUTHS[:1].expand(1024, -1, -1, -1)),
        check=lambda r: r["samples"] == 1024,
    )
    yield _calls(
        name,
        "no sample, as tensors and lists",
        None,
        lambda: scores(MAPS[:0], TRUTHS[:0]),
        lambda: scores([], []),
        check=lambda r: r["samples"] == 0 and r["AUC"] != r["AUC"],
    )
    many = torch.rand(1, 53, 7, 7, generator=_GENERATOR)
    yield _calls(
        name,
        "53 sources with empty truths",
        None,
        lambda: scores(many, torch.zeros(1, 53, 16, 16)),
        check=lambda r: r["empty_truths"] == 53,
    )
    yield _calls(
        name,
        "more than 53 sources",
        "at most 53 sources",
        lambda: scores(torch.rand(1, 54, 7, 7), torch.zeros(1, 54, 16, 16)),
    )
    masked = torch.cat([MAPS, MAPS * NAN], 1)
    yield _calls(
        name,
        "NaN in maps that are masked out",
        None,
        lambda: scores(masked, TRUTHS, torch.tensor([[True, True, False, False]] * 5)),
        check=_equal(plain),
    )
    yield _calls(
        name,
        "NaN, infinite maps",
        "`maps` to be finite",
        lambda: scores(MAPS * NAN),
        lambda: scores(MAPS * INF),
        lambda: scores([m * NAN for m in MAPS]),
    )
    kinds = (
        None,
        "abc",
        3,
        MAPS.numpy(),
        [m.numpy() for m in MAPS],
        MAPS.long(),
        MAPS.to(torch.complex64),
        MAPS.to(torch.float8_e4m3fn),
        MAPS.to_sparse(),
        MAPS.to("meta"),
        list(MAPS.to("meta")),
    )
    yield _calls(
        name,
        "maps that are no tensors, integers, complex, float8, sparse, meta",
        "Expected `maps",
        *(lambda v=v: scores(v) for v in kinds),
    )
    others = (
        None,
        3,
        TRUTHS.numpy(),
        TRUTHS.to(torch.complex64),
        TRUTHS.to("meta"),
        list(TRUTHS.to("meta")),
        TRUTHS.float().to(torch.float8_e4m3fn),
        "abcde",
    )
    yield _calls(
        name,
        "truths that are no tensors, complex, float8, meta",
        "Expected `truths",
        *(lambda v=v: scores(truths=v) for v in others),
    )
    yield _calls(
        name,
        "truths of NaN, negative, above 1",
        r"`truths` to hold values in \[0, 1\]",
        *(lambda v=v: scores(truths=TRUTHS * v) for v in (NAN, -1.0, 2.0)),
    )
    yield _calls(
        name,
        "other numbers of samples, sources, pixels",
        "Expected",
        lambda: scores(MAPS[:2]),
        lambda: scores(truths=TRUTHS[..., :8]),
        lambda: scores(truths=TRUTHS[:, :0]),
        lambda: scores(MAPS[..., :0]),
        lambda: scores(of=metric(task="single")),
    )
    rows: tuple[Any, ...] = (
        [(NAN, 0, 1, 1)],
        [(-(10**400), 0, 1, 1)],
        ["1234"],
        "1234",
        None,
        [(0, 0, 1)],
        (0, 0, 1, 1),
        torch.rand(4),
        torch.rand(1, 4, device="meta"),
        [(0, 0, 1, "1")],
    )
    yield _calls(
        name,
        "boxes of NaN, huge integers, text, other lengths, meta",
        r"Expected `truths\[0\]` to hold for each source rows of 4",
        *(lambda r=r: scores(truths=[[r, r]] * 5) for r in rows),
    )
    yield _calls(
        name,
        "boxes in pixels, of 1e300",
        r"Expected `truths\[0\]` to hold boxes as fractions of the frame",
        lambda: scores(truths=[[[(10, 20, 100, 120)]] * 2] * 5),
        lambda: scores(truths=[[[(-1e300, -1e300, 1e300, 10**300)]] * 2] * 5),
    )
    yield _calls(
        name,
        "boxes from -1e300, as tensors, NumPy arrays; no box",
        None,
        lambda: scores(truths=[[[(-1e300, -1e300, 1.5, 2)]] * 2] * 5),
        lambda: scores(truths=[[torch.rand(2, 4), torch.rand(1, 4).numpy()]] * 5),
        lambda: scores(truths=[[[], []]] * 5),
        check=lambda r: r["entries"] == 10,
    )
    bad = (
        [[0.5, 1]] * 5,
        [["a", "b"]] * 5,
        [[10**30, 1]] * 5,
        [[2**60, 1]] * 5,
        [None] * 5,
        5,
        torch.rand(5, 2),
        torch.zeros(5, 2, dtype=torch.long, device="meta"),
        [[0, 1, 2]] * 5,
    )
    yield _calls(
        name,
        "class ids that are no integers, too large, missing",
        "Expected `source_classes",
        *(lambda v=v: scores(source_classes=v) for v in bad),
    )
    yield _calls(
        name,
        "confidences of NaN, text, meta",
        "Expected `confidences",
        *(
            lambda v=v: scores(confidences=v)
            for v in ([[NAN, 1]] * 5, [["a", "b"]] * 5, torch.rand(5, 2, device="meta"), 3)
        ),
    )
    priors = (
        torch.rand(5, 7, 7) * NAN,
        torch.rand(5, 0, 7),
        [torch.rand(7, 7)] * 4 + [torch.rand(6, 7)],
        [None] * 5,
        torch.rand(5, 7, 7, device="meta"),
        (torch.rand(5, 7, 7) - 0.5) * 6e38,
    )
    yield _calls(
        name,
        "object priors of NaN, no pixel, several sizes, None, meta",
        "Expected `(priors|maps)",
        *(lambda v=v: scores(priors=v, of=metric("ez-vsl")) for v in priors),
    )
    yield _calls(
        name,
        "`valid` of another dtype, a list, with maps in a list",
        "Expected `valid`",
        *(lambda v=v: scores(MAPS, TRUTHS, v) for v in (torch.ones(5, 2), [[True, True]] * 5)),
        lambda: scores(list(MAPS), TRUTHS, torch.ones(5, 2).bool()),
    )


def _life() -> Iterator[InputClass]:
    whole = scores()
    makers: dict[str, tuple[Callable[[], Metric], Callable[[Metric], None]]] = {
        "SoundLocalization": (metric, lambda m: [m.update(MAPS[i : i + 1], TRUTHS[i : i + 1]) for i in range(5)]),
        "SilentObjectDiscrimination": (
            SilentObjectDiscrimination,
            lambda m: m.update(MAPS[:, 0], TRUTHS[:, 0], TRUTHS[:, 1:]),
        ),
    }
    for kind in (CAP, CIoU, AUC, PIAP, CountingAccuracy):
        makers[kind.__name__] = (lambda kind=kind: kind(protocol=PAPER), makers["SoundLocalization"][1])
    for name, (make, fill) in makers.items():

        def full(make=make, fill=fill) -> Metric:
            made = make()
            fill(made)
            return made

        def stored(make=make, full=full) -> Metric:
            source, target = full(), make()
            source.persistent(True)
            target.persistent(True)
            buffer = io.BytesIO()
            torch.save(source.state_dict(), buffer)
            buffer.seek(0)
            target.load_state_dict(torch.load(buffer, weights_only=True))
            target._update_count = 1
            return target

        def merged(make=make, full=full) -> Metric:
            target = make()
            target.merge_state(full())
            target._update_count = 1
            return target

        def emptied(full=full, fill=fill) -> Metric:
            made = full()
            made.reset()
            fill(made)
            return made

        changed = (
            lambda full=full: pickle.loads(pickle.dumps(full())),
            lambda full=full: copy.deepcopy(full()),
            lambda full=full: full().clone(),
            stored,
            merged,
            emptied,
            lambda full=full: full().to("cpu"),
            *(lambda full=full, how=how: getattr(full(), how)() for how in ("half", "float", "double", "bfloat16")),
            *(lambda full=full, d=d: full().set_dtype(d) for d in (torch.float16, torch.float32)),
        )
        yield _calls(
            name,
            "pickled, copied, stored, merged, reset, moved, cast",
            None,
            *(lambda c=c: values(c()) for c in changed),
            check=_equal(values(full())),
        )
    name = "SoundLocalization"

    def threads() -> list[dict[str, float]]:
        found: list[dict[str, float]] = []
        workers = [threading.Thread(target=lambda: found.append(scores())) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return found

    yield _calls(
        name,
        "four threads with a metric each",
        None,
        threads,
        check=lambda r: len(r) == 4 and all(map(_equal(whole), r)),
    )

    def deterministic() -> dict[str, float]:
        torch.use_deterministic_algorithms(True)
        try:
            return scores()
        finally:
            torch.use_deterministic_algorithms(False)

    yield _calls(name, "deterministic algorithms", None, deterministic, check=_equal(whole))

    def collection() -> dict[str, float]:
        together = MetricCollection([AUC(PAPER), CAP(PAPER), CIoU(0.3, PAPER)])
        together.update(MAPS[:1], TRUTHS[:1] & False)  # equal tables of all
        together.update(MAPS, TRUTHS)
        return {n: float(v) for n, v in together.compute().items()}

    def alone() -> dict[str, float]:
        found = {}
        for one in (AUC(PAPER), CAP(PAPER), CIoU(0.3, PAPER)):
            one.update(MAPS[:1], TRUTHS[:1] & False)
            found[type(one).__name__] = scores(of=one)["value"]
        return found

    yield _calls(
        "MetricCollection", "a first update that all metrics see alike", None, collection, check=_equal(alone())
    )

    def of_other_rules(how: str) -> None:
        source, target = metric("lvs"), metric()
        source.persistent(True)
        target.persistent(True)
        scores(of=source)
        target.merge_state(source) if how == "merge" else target.load_state_dict(source.state_dict())

    yield _calls(
        name,
        "merged with, loaded from a metric of another protocol",
        "of other rules",
        *(lambda h=h: of_other_rules(h) for h in ("merge", "load")),
    )

    def named(names: Any) -> Any:
        m = metric()
        m.update(MAPS, TRUTHS, source_classes=[[0, 7]] * 5)
        return m.result(class_names=names)

    yield _calls(
        "LocalizationResult",
        "too few class names, one twice",
        "`class_names`",
        lambda: named(["a"]),
        lambda: named(["a"] * 8),
    )
    yield _calls(
        "LocalizationResult",
        "chance levels without a metric",
        "`chance`",
        lambda: metric().result(chance={"x": {"AUC": torch.tensor(1.0)}}),
    )
    yield _calls(
        "LocalizationResult",
        "no sample; JSON, Markdown, LaTeX",
        None,
        lambda: [f() for f in (metric().result().to_json, metric().result().to_markdown, metric().result().to_latex)],
    )


def _options() -> Iterator[InputClass]:
    changes: tuple[dict[str, Any], ...] = (
        {"size": 0},
        {"size": 2.5},
        {"size": True},
        {"size": 10**30},
        {"upsampling": None},
        {"threshold": NAN},
        {"name": ""},
        {"bogus": 1},
        {"mixture_metrics": ()},
        {"mixture_metrics": ["AUC"]},
        {"mixture_metrics": ("CIoU@2",)},
        {"mixture_metrics": ("CIoU@1e400",)},
        {"mixture_metrics": ("CIoU@٠.٣",)},
        {"mixture_metrics": (["a"],)},
        {"mixture_metrics": ("AUC", "AUC")},
    )
    yield _calls(
        "Protocol", "wrong values of every field", "Expected", *(lambda c=c: PAPER.replace(**c) for c in changes)
    )
    yield _calls(
        "Protocol",
        "pickled, copied deeply",
        None,
        *(
            lambda n=n: pickle.loads(pickle.dumps(copy.deepcopy(protocols.get(n)))) == protocols.get(n)
            for n in protocols.available()
        ),
        check=bool,
    )
    yield _calls(
        "protocols.get",
        "other names and types",
        "Expected `protocol`",
        *(lambda v=v: protocols.get(v) for v in (None, 3, "../paper", "", "PAPER")),
    )
    yield _calls(
        "LocalizationMetric",
        "unknown metrics",
        "Expected a metric to be one of",
        *(lambda v=v: LocalizationMetric(v) for v in ("", "CIoU@", "CIoU@0", "AUC\n", None, 3)),
    )
    yield _calls(
        "SoundLocalization",
        "unknown tasks and places of the frames",
        "Expected `(task|frames)`",
        lambda: metric(task="x"),
        lambda: metric(layout="x"),
        lambda: metric(task=None),
    )
    name = "chance_levels"
    yield _calls(
        name,
        "truths as tensor, boxes; one sample, one pixel",
        None,
        lambda: chance_levels(TRUTHS, PAPER),
        lambda: chance_levels(BOXES, PAPER),
        lambda: chance_levels(TRUTHS[:1], PAPER, resolution=(1, 1)),
        check=lambda r: len(r) == 3,
    )
    yield _calls(
        name,
        "the same seed twice",
        None,
        lambda: str(chance_levels(TRUTHS, PAPER, seed=3)),
        check=lambda r: r == str(chance_levels(TRUTHS, PAPER, seed=3)),
    )
    yield _calls(
        name,
        "truths that are none, empty, meta",
        "Expected `truths`",
        *(lambda v=v: chance_levels(v, PAPER) for v in (None, 3, TRUTHS[:0], [], TRUTHS.to("meta"))),
    )
    wrong: tuple[dict[str, Any], ...] = (
        {"resolution": 7},
        {"resolution": (7, 7, 7)},
        {"resolution": (0, 7)},
        {"seed": "a"},
        {"seed": 2**70},
        {"seed": True},
        {"sigma": 0},
        {"sigma": 1e300},
        {"sigma": NAN},
        {"maps_per_sample": 0},
        {"layout": "x"},
    )
    yield _calls(
        name,
        "wrong options",
        "Expected `(resolution|seed|sigma|maps_per_sample|frames)",
        *(lambda w=w: chance_levels(TRUTHS, PAPER, **w) for w in wrong),
    )


CLASSES = [*_of_maps(), *_of_pairs(), *_of_scores(), *_localization(), *_life(), *_options()]
