"""Baselines whose losses know classes: CoarseToFine, DSOL and AVGN."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from inputs.core.subject import Subject
from sslosses.losses import Dictionary, DictionaryConsistencyLoss, build_dictionary

NONE = {"reduction": "none"}
GROUPING = {
    "visual": "B C H W",
    "audio_groups": "B M C",
    "sources": "B N",
    "token_logits": "M M",
    "visual_logits": "B M",
    "audio_logits": "B M",
    "visual_present": "B M",
    "audio_present": "B M",
}


def subjects() -> Iterator[Subject]:
    yield from _categories()
    yield from _dictionary()
    yield from _grouping()


def _categories() -> Iterator[Subject]:
    for name in ("pair_correspondence_loss", "PairCorrespondenceLoss"):
        yield Subject(name, {"logits": "B B"}, none=NONE, contrast=True, light=name[0] == "P")
    shapes = {"features": "B C H W", "weight": "K C"}
    for variant, options in (("", {}), ("differentiable maps", {"detach": False})):
        constant = () if options else ("weight",)
        common: dict[str, Any] = {"samples": ("features",), "vectors": tuple(shapes), "maps": True}
        yield Subject("class_activation_pool", shapes, options, variant, constant=constant, **common)
    shapes = {"visual": "B K D", "audio": "B K D", "visual_probability": "B K", "audio_probability": "B K"}
    common = {
        "samples": tuple(shapes),
        "none": NONE,
        "scaled": ("visual", "audio"),
        "vectors": ("visual", "audio"),
        "kinds": {name: "probability" for name in shapes if "probability" in name},
        "constant": ("visual_probability", "audio_probability"),
        "contrast": True,
    }
    for name in ("category_alignment_loss", "CategoryAlignmentLoss"):
        yield Subject(name, shapes, {"threshold": 0.3}, light=name[0] == "C", **common)
    yield Subject("category_alignment_loss", shapes, {"same_class_negatives": False}, "other classes", **common)


def _build(features: Tensor, **options: Any) -> Dictionary:
    return build_dictionary(features, **{"num_clusters": 2, "generator": torch.Generator().manual_seed(0)} | options)


def _module(**arguments: Any) -> Tensor:
    options = {name: arguments.pop(name) for name in tuple(arguments) if name in OPTIONS}
    return DictionaryConsistencyLoss(**options)(**arguments)


OPTIONS = ("direction", "per_class_mean", "gather_distributed", "reduction")


def _dictionary() -> Iterator[Subject]:
    shapes = {"visual": "B C H W", "localization": "B H W"}
    samples = tuple(shapes)
    for dilation in ("all", "interior"):
        options = {"threshold": 0.05, "dilation": dilation}
        yield Subject(
            "object_features", shapes, options, dilation, samples, vectors=("visual",), smooth=False, maps=True
        )
    yield Subject("build_dictionary", {"features": "M C"}, vectors=("features",), smooth=False, call=_build)
    shapes = shapes | {"dictionary": "K C", "audio_logits": "B K"}
    common: dict[str, Any] = {
        "samples": (*samples, "audio_logits"),
        "none": NONE,
        "vectors": ("visual", "dictionary"),
        "constant": ("audio_logits",),
        "maps": True,
    }
    for direction in ("audio||visual", "visual||audio"):
        options = {"scale": 1.5, "bias": 0.1, "direction": direction}
        yield Subject("dictionary_consistency_loss", shapes, options, direction, **common)
    options = {"scale": 1.5, "bias": 0.1}
    yield Subject("DictionaryConsistencyLoss", shapes, options, call=_module, light=True, **common)


def _grouping() -> Iterator[Subject]:
    kinds = {"sources": "class", "visual_present": "mask", "audio_present": "mask"}
    common: dict[str, Any] = {"none": NONE, "kinds": kinds, "contrast": True, "maps": True}
    samples = tuple(name for name in GROUPING if name != "token_logits")
    vectors = ("visual", "audio_groups")
    for name in ("grouping_loss", "GroupingLoss"):
        yield Subject(
            name, GROUPING, samples=samples, scaled=("visual",), vectors=vectors, light=name[0] == "G", **common
        )
    shapes = GROUPING | {"visual_groups": "B M C"}
    vectors = (*vectors, "visual_groups")
    options = {"normalize_audio": True, "symmetric": False}
    yield Subject(
        "grouping_loss",
        shapes,
        options,
        "paper",
        (*samples, "visual_groups"),
        scaled=vectors,
        vectors=vectors,
        **common,
    )
