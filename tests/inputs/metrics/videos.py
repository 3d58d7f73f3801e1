"""Ids of videos and groups, intervals, and the comparison of two metrics."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from inputs.cases import InputClass, Row, input_classes
from inputs.metrics.tensors import MAPS, NAN, PAPER, TRUTHS, equal_scores, localization, scores
from sslosses.metrics import Comparison, LocalizationMetric, SoundLocalization, Spread, compare

VIDEOS = ("a", "a", "b", "b", "c")


def filled(videos: Any = VIDEOS, **more: Any) -> SoundLocalization:
    metric = localization()
    metric.update(MAPS, TRUTHS, videos=videos, **more)
    return metric


def spread(options: dict[str, Any]) -> Spread | None:
    return filled().result(**options).videos


def difference(options: dict[str, Any]) -> Comparison:
    return compare(**{"a": filled(), "b": filled()} | options)


def least_of_groups(groups: Any) -> float:
    metric = LocalizationMetric("IAUC", PAPER)
    metric.update(MAPS, TRUTHS, groups=groups)
    return float(metric.compute())


def _classes() -> Iterator[InputClass]:
    rows = (
        Row(
            "videos as list, tuple, tensor, array; empty ids, any letters, huge integers",
            [
                {"videos": videos}
                for videos in (
                    *(list(VIDEOS), VIDEOS, torch.arange(5), torch.arange(5, dtype=torch.int8), np.arange(5)),
                    *(["", " ", "\0", "\udcff", "é" * 10_000], [0, -1, 10**40, 2**53, -(2**70)]),
                )
            ],
            equal_scores(scores()),
        ),
        Row(
            "ids that are none",
            [
                {name: ids}
                for name in ("videos", "groups")
                for ids in (
                    3,
                    "abcde",
                    b"abcde",
                    ["a"] * 4,
                    [None] * 5,
                    [NAN] * 5,
                    [True] * 5,
                    torch.rand(5),
                    [["a"]] * 5,
                )
            ],
            "Expected (as many samples in )?`(videos|groups)",
        ),
    )
    yield from input_classes("SoundLocalization", lambda arguments: scores(**arguments), rows)
    row = Row("groups of one, of all, of some", ([1, 2, 3, 4, 5], ["g"] * 5, VIDEOS), lambda r: 0 <= r <= 1)
    yield from input_classes("LocalizationMetric", least_of_groups, [row])
    yield from input_classes(
        "LocalizationMetric", least_of_groups, [Row("no groups for a metric that needs them", (None,), "`groups`")]
    )
    options = (
        *({"resamples": value} for value in (-1, 0.5, True, "9", 10**3 + 0.1)),
        *({"level": value} for value in (0, 1, -1, NAN, "x", True)),
        *({"seed": value} for value in (2**64, -(2**63) - 1, 0.5, None, True)),
    )
    rows = (
        Row(
            "one resample, a level near 0 and 1, extreme seeds",
            (
                *({"resamples": 1}, {"resamples": np.int64(3)}, {"level": 1e-9}, {"level": 0.999999}),
                *({"resamples": 3, "seed": seed} for seed in (2**64 - 1, -(2**63))),
            ),
            lambda r: all(low <= high for low, high in r.intervals.values()),
        ),
        Row("wrong options of the bootstrap", options, "Expected `(resamples|level|seed)`"),
    )
    yield from input_classes("Spread", spread, rows)
    rows = (
        Row(
            "a metric and itself; one without a sample and itself",
            ({}, {"a": localization(), "b": localization()}),
            lambda r: all(value == 0 or value != value for value in r.differences.values()),
        ),
        Row("wrong options of the bootstrap", options, "Expected `(resamples|level|seed)`"),
        Row("what is no metric", [{n: value} for n in "ab" for value in (None, 3, "x", {})], "Expected `[ab]`"),
        Row(
            "another protocol, other samples, another order",
            [{"b": b} for b in (localization("lvs"), localization(), filled(VIDEOS[::-1]), filled(None))],
            "Expected `b`",
        ),
    )
    yield from input_classes("compare", difference, rows)
    row = Row(
        "pickled, copied; JSON, Markdown, text",
        [lambda r: pickle.loads(pickle.dumps(r)), copy.deepcopy],
        lambda r: bool(r.to_dict() and r.to_markdown() and str(r)),
    )
    yield from input_classes("Comparison", lambda change: change(difference({"resamples": 9})), [row])


CLASSES = list(_classes())
