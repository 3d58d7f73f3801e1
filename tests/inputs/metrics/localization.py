"""SoundLocalization: what its ``update`` is called with."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from inputs.cases import Row, input_classes
from inputs.metrics.tensors import GENERATOR, INF, MAPS, NAN, TRUTHS, equal_scores, localization, scores
from sslosses.metrics import SoundLocalization, protocols

PLAIN = equal_scores(scores())
HALF = MAPS.sub(0.5).mul(1.2e5).clamp(-65000, 65000).half()
LARGE_BATCH = torch.rand(1024, 2, 7, 7, generator=GENERATOR)
MANY_SOURCES = torch.rand(1, 53, 7, 7, generator=GENERATOR)
REAL_DTYPES = (
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.uint8, torch.int8, torch.int32, torch.int64),
)


def vary(argument: str, *values: Any, **others: Any) -> list[dict[str, Any]]:
    """Arguments of calls that differ in one of them."""
    return [{argument: value} | others for value in values]


def boxes(*rows: Any) -> list[dict[str, Any]]:
    """The boxes of both sources of all samples."""
    return vary("truths", *([[row, row]] * 5 for row in rows))


def protocol_rows(name: str) -> Iterator[Row]:
    make = partial(localization, name)
    tiny = protocols.get(name).replace(size=1)
    yield Row(
        f"{name}: float16 maps near their largest value",
        [{"maps": HALF, "make": make}],
        equal_scores(scores(HALF.float(), make=make)),
    )
    yield Row(
        f"{name}: one pixel, 112×112, empty truths, a frame of one pixel",
        [
            {"maps": MAPS[..., :1, :1], "make": make},
            {"maps": torch.rand(1, 2, 112, 112), "truths": TRUTHS[:1], "make": make},
            {"truths": TRUTHS & False, "make": make},
            {"truths": TRUTHS[..., :1, :1], "make": partial(SoundLocalization, tiny)},
        ],
        lambda r: r["samples"] > 0,
    )
    yield Row(f"{name}: ±1e38", [{"maps": (MAPS - 0.5) * 2e38, "make": make}], "`maps` to be within")


MAP_ROWS = (
    Row(
        "maps non-contiguous, float64, with a gradient, in a list",
        vary("maps", MAPS.mT.contiguous().mT, MAPS.double(), MAPS.clone().requires_grad_(), list(MAPS)),
        PLAIN,
    ),
    Row("scaled by 1e30, shifted", vary("maps", MAPS * 1e30, MAPS.double() - 7), PLAIN),
    Row(
        "expanded maps",
        vary("maps", MAPS[:1].expand(5, -1, -1, -1)),
        equal_scores(scores(MAPS[:1].repeat(5, 1, 1, 1))),
    ),
    Row(
        "1,024 samples at once",
        [{"maps": LARGE_BATCH, "truths": TRUTHS[:1].expand(1024, -1, -1, -1)}],
        lambda r: r["samples"] == 1024,
    ),
    Row(
        "no sample, as tensors and lists",
        [{"maps": MAPS[:0], "truths": TRUTHS[:0]}, {"maps": [], "truths": []}],
        lambda r: r["samples"] == 0 and r["AUC"] != r["AUC"],
    ),
    Row(
        "no source, as tensors and lists",
        vary("truths", TRUTHS[:, :0], [t[:0] for t in TRUTHS], [[]] * 5, [()] * 5),
        lambda r: r["samples_without_source"] == 5 and r["entries"] == 0,
    ),
    Row(
        "53 sources with empty truths",
        [{"maps": MANY_SOURCES, "truths": torch.zeros(1, 53, 16, 16)}],
        lambda r: r["empty_truths"] == 53,
    ),
    Row(
        "more than 53 sources",
        [{"maps": torch.rand(1, 54, 7, 7), "truths": torch.zeros(1, 54, 16, 16)}],
        "at most 53 sources",
    ),
    Row(
        "NaN in maps that are masked out",
        [{"maps": torch.cat([MAPS, MAPS * NAN], 1), "valid": torch.tensor([[True, True, False, False]] * 5)}],
        PLAIN,
    ),
    Row("NaN, infinite maps", vary("maps", MAPS * NAN, MAPS * INF, [m * NAN for m in MAPS]), "`maps` to be finite"),
    Row(
        "channels last, as tensors and lists",
        [
            *vary("maps", *(MAPS[:, :1].movedim(1, -1), MAPS[:, [0, 0, 0]].movedim(1, -1))),
            {"maps": list(MAPS.movedim(1, -1)), "truths": TRUTHS},
        ],
        "channels last",
    ),
    Row(
        "maps that are no tensors, integers, complex, float8, sparse, meta",
        vary(
            "maps",
            *(None, "abc", 3, MAPS.numpy(), [m.numpy() for m in MAPS]),
            *(MAPS.long(), MAPS.to(torch.complex64), MAPS.to(torch.float8_e4m3fn)),
            *(MAPS.to_sparse(), MAPS.to("meta"), list(MAPS.to("meta"))),
        ),
        "Expected `maps",
    ),
)
TRUTH_ROWS = (
    Row(
        "truths of every real dtype, in a list",
        vary("truths", *(TRUTHS.to(dtype) for dtype in REAL_DTYPES), list(TRUTHS)),
        PLAIN,
    ),
    Row(
        "truths that are no tensors, complex, float8, meta",
        vary(
            "truths",
            *(None, 3, TRUTHS.numpy(), "abcde"),
            *(TRUTHS.to(torch.complex64), TRUTHS.float().to(torch.float8_e4m3fn)),
            *(TRUTHS.to("meta"), list(TRUTHS.to("meta"))),
        ),
        "Expected `truths",
    ),
    Row(
        "truths of NaN, negative, above 1",
        vary("truths", TRUTHS * NAN, TRUTHS * -1.0, TRUTHS * 2.0),
        r"`truths` to hold values in \[0, 1\]",
    ),
    Row(
        "other numbers of samples, sources, pixels",
        [
            {"maps": MAPS[:2]},
            {"truths": TRUTHS[..., :8]},
            {"maps": MAPS[..., :0]},
            {"make": partial(localization, task="single")},
        ],
        "Expected",
    ),
    Row(
        "boxes of NaN, huge integers, text, other lengths, meta",
        boxes(
            *([(NAN, 0, 1, 1)], [(-(10**400), 0, 1, 1)], ["1234"], "1234", None),
            *([(0, 0, 1)], (0, 0, 1, 1), torch.rand(4), torch.rand(1, 4, device="meta"), [(0, 0, 1, "1")]),
        ),
        r"Expected `truths\[0\]` to hold for each source rows of 4",
    ),
    Row(
        "boxes in pixels, of 1e300",
        boxes([(10, 20, 100, 120)], [(-1e300, -1e300, 1e300, 10**300)]),
        r"Expected `truths\[0\]` to hold boxes as fractions of the frame",
    ),
    Row(
        "boxes from -1e300, as tensors, NumPy arrays; no box",
        [
            *boxes([(-1e300, -1e300, 1.5, 2)], []),
            {"truths": [[torch.rand(2, 4), torch.rand(1, 4).numpy()]] * 5},
        ],
        lambda r: r["entries"] == 10,
    ),
)
MORE_ROWS = (
    Row(
        "class ids that are no integers, too large, missing",
        vary(
            "source_classes",
            *([[0.5, 1]] * 5, [["a", "b"]] * 5, [[10**30, 1]] * 5, [[2**60, 1]] * 5, [None] * 5, 5),
            *(torch.rand(5, 2), torch.zeros(5, 2, dtype=torch.long, device="meta"), [[0, 1, 2]] * 5),
        ),
        "Expected `source_classes",
    ),
    Row(
        "confidences of NaN, text, meta",
        vary("confidences", [[NAN, 1]] * 5, [["a", "b"]] * 5, torch.rand(5, 2, device="meta"), 3),
        "Expected `confidences",
    ),
    Row(
        "object priors of NaN, no pixel, several sizes, None, meta",
        vary(
            "priors",
            *(torch.rand(5, 7, 7) * NAN, torch.rand(5, 0, 7), [torch.rand(7, 7)] * 4 + [torch.rand(6, 7)]),
            *([None] * 5, torch.rand(5, 7, 7, device="meta"), (torch.rand(5, 7, 7) - 0.5) * 6e38),
            make=partial(localization, "ez-vsl"),
        ),
        "Expected `(priors|maps)",
    ),
    Row(
        "`valid` of another dtype, a list, with maps in a list",
        [
            {"valid": torch.ones(5, 2)},
            {"valid": [[True, True]] * 5},
            {"maps": list(MAPS), "valid": torch.ones(5, 2).bool()},
        ],
        "Expected `valid`",
    ),
)

ROWS = [
    *(row for name in protocols.available() for row in protocol_rows(name)),
    *MAP_ROWS,
    *TRUTH_ROWS,
    *MORE_ROWS,
]
CLASSES = list(input_classes("SoundLocalization", lambda arguments: scores(**arguments), ROWS))
