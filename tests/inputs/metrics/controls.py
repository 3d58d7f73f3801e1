"""Controls: negative sounds with their threshold, and the saliency of frames."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from inputs.cases import InputClass, Row, input_classes
from inputs.metrics.tensors import INF, MAPS, NAN, NO_TENSORS, TRUTHS, computed
from sslosses.metrics import NegativeSounds, center_surround_saliency, threshold_from

OWN, GROUND = MAPS[:, 0], TRUTHS[:, 0]
NEGATIVES = {"silence": 0 * OWN, "noise": OWN.flip(0), "offscreen": MAPS[:, 1]}


def scored(changes: dict[str, Any]) -> dict[str, float]:
    """All metrics of a new object after one update with changed arguments."""
    metric = NegativeSounds(0.5, overlaps=True)
    metric.update(**{"maps": OWN, "truths": GROUND, "negatives": NEGATIVES} | changes)
    return computed(metric)


def with_noise(maps: Any) -> dict[str, Any]:
    return {"negatives": NEGATIVES | {"noise": maps}}


UPDATES = (
    Row("maps that are no tensor", [{"maps": value} for value in NO_TENSORS], "`maps` to be a tensor"),
    Row("integers, booleans", [{"maps": OWN.long()}, {"maps": OWN > 0}], "`maps` to have a floating dtype"),
    Row("maps with NaN, infinity", [{"maps": OWN * NAN}, {"maps": OWN + INF}], "`maps` to be finite"),
    Row("maps without pixels, of another rank", [{"maps": OWN[..., :0]}, {"maps": MAPS}], "`maps` to have shape"),
    Row("ground truth of another batch, rank", [{"truths": GROUND[:2]}, {"truths": TRUTHS}], "`truths` to have shape"),
    Row("ground truth outside [0, 1]", [{"truths": GROUND * 2}], r"`truths` to hold values in \[0, 1\]"),
    Row("no mapping", [{"negatives": value} for value in (None, OWN, [OWN] * 3)], "`negatives` to be a mapping"),
    Row("a kind missing, one too many", [{"negatives": {}}, {"negatives": NEGATIVES | {"x": OWN}}], "to hold silence"),
    Row("a kind with NaN, of another batch, no tensor", [with_noise(m) for m in (OWN * NAN, OWN[:2], None)], "'noise'"),
    Row(
        "no frame",
        [{"maps": OWN[:0], "truths": GROUND[:0], "negatives": {k: m[:0] for k, m in NEGATIVES.items()}}],
        lambda result: result["entries"] == 0 and result["F_LOC"] != result["F_LOC"],
    ),
    Row(
        "half precision, fractional ground truth, kinds of other resolutions",
        [{"maps": OWN.half()}, {"truths": GROUND.double() / 3}, with_noise(OWN[:, :2, :5])],
        lambda result: result["entries"] == 5 and all(value == value for value in result.values()),
    ),
)
THRESHOLDS = (
    Row("no mapping", [{"negatives": OWN}, {"negatives": None}], "`negatives` to be a mapping"),
    Row("no kind, no map", [{"negatives": {}}, {"negatives": {"noise": OWN[:0]}}], "at least one map"),
    Row("NaN, no tensor, another rank", [{"negatives": {"noise": m}} for m in (OWN * NAN, 3.0, MAPS)], "'noise'"),
    Row("an unknown rule, upsampling", [{"rule": "median"}, {"upsampling": "nearest"}], "`(rule|upsampling)` to be"),
    Row("an impossible size", [{"size": 7}, {"size": (0, 7)}, {"size": (7.0, 7)}], "`size"),
)

FRAMES = torch.rand(2, 3, 8, 9, generator=torch.Generator().manual_seed(0))
SALIENCY = (
    Row("float64, half precision, non-contiguous", [FRAMES.double(), FRAMES.half(), FRAMES.mT], lambda s: s.max() == 1),
    Row("uniform, black, no frame", [0 * FRAMES + 0.3, 0 * FRAMES, FRAMES[:0]], lambda s: not s.any()),
    Row("no tensor", NO_TENSORS, "`frames` to be a tensor"),
    Row("integers from 0 to 255, booleans", [(FRAMES * 255).byte(), FRAMES > 0.5], "`frames` to have a floating dtype"),
    Row("values up to 255, NaN, infinity", [FRAMES * 255, FRAMES * NAN, FRAMES + INF], "`frames` to hold values in"),
    Row(
        "gray, channels last, no pixel",
        [FRAMES[:, :1], FRAMES.movedim(1, 3), FRAMES[..., :0]],
        "`frames` to have shape",
    ),
)


def _classes() -> Iterator[InputClass]:
    yield from input_classes("NegativeSounds", scored, UPDATES)
    yield from input_classes("threshold_from", lambda c: threshold_from(**{"negatives": NEGATIVES} | c), THRESHOLDS)
    yield from input_classes("center_surround_saliency", center_surround_saliency, SALIENCY)


CLASSES = list(_classes())
