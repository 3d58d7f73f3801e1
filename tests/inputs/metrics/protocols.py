"""Protocols, options of the metrics, chance levels."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

from inputs.cases import Row, input_classes
from inputs.metrics.tensors import BOXES, NAN, PAPER, TRUTHS, localization
from sslosses.metrics import LocalizationMetric, chance_levels, protocols


def levels(arguments: dict[str, Any]) -> Any:
    return chance_levels(**{"truths": TRUTHS, "protocol": PAPER} | arguments)


#: Function, what is called with each of the arguments, the row.
TABLE: tuple[tuple[str, Callable[[Any], Any], Row], ...] = (
    (
        "Protocol",
        lambda changes: PAPER.replace(**changes),
        Row(
            "wrong values of every field",
            (
                *({"size": size} for size in (0, 2.5, True, 10**30)),
                *({"upsampling": None}, {"threshold": NAN}, {"name": ""}, {"bogus": 1}),
                *({"mixture_metrics": metrics} for metrics in ((), ["AUC"], (["a"],), ("AUC", "AUC"))),
                *({"mixture_metrics": (name,)} for name in ("CIoU@2", "CIoU@1e400", "CIoU@٠.٣")),
            ),
            "Expected",
        ),
    ),
    (
        "Protocol",
        lambda name: pickle.loads(pickle.dumps(copy.deepcopy(protocols.get(name)))) == protocols.get(name),
        Row("pickled, copied deeply", protocols.available(), bool),
    ),
    (
        "protocols.get",
        protocols.get,
        Row("other names and types", (None, 3, "../paper", "", "PAPER"), "Expected `protocol`"),
    ),
    (
        "LocalizationMetric",
        LocalizationMetric,
        Row("unknown metrics", ("", "CIoU@", "CIoU@0", "AUC\n", None, 3), "Expected a metric to be one of"),
    ),
    (
        "SoundLocalization",
        lambda options: localization(**options),
        Row("unknown tasks and layouts", ({"task": "x"}, {"layout": "x"}, {"task": None}), "Expected `(task|layout)`"),
    ),
    (
        "chance_levels",
        levels,
        Row(
            "truths as tensor, boxes; one sample, one pixel",
            ({}, {"truths": BOXES}, {"truths": TRUTHS[:1], "resolution": (1, 1)}),
            lambda r: len(r) == 3,
        ),
    ),
    (
        "chance_levels",
        lambda seed: str(levels({"seed": seed})),
        Row("the same seed twice", (3,), lambda r: r == str(levels({"seed": 3}))),
    ),
    (
        "chance_levels",
        levels,
        Row(
            "truths that are none, empty, meta",
            [{"truths": truths} for truths in (None, 3, TRUTHS[:0], [], TRUTHS.to("meta"))],
            "Expected `truths`",
        ),
    ),
    (
        "chance_levels",
        levels,
        Row(
            "wrong options",
            (
                *({"resolution": resolution} for resolution in (7, (7, 7, 7), (0, 7))),
                *({"seed": seed} for seed in ("a", 2**70, True)),
                *({"sigma": sigma} for sigma in (0, 1e300, NAN)),
                *({"maps_per_sample": 0}, {"layout": "x"}),
            ),
            "Expected `(resolution|seed|sigma|maps_per_sample|layout)",
        ),
    ),
)

CLASSES = [inputs for function, run, row in TABLE for inputs in input_classes(function, run, [row])]
