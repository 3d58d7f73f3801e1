"""The baseline whose loss reads text features of class names: T-VSL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

import sslosses
from inputs.core.subject import SIZES, Subject
from sslosses import TextGuidedHeads

FEATURES = {"visual": "B C H W", "audio": "B C T F"}
LOSS = FEATURES | {"class_text": "M C", "sources": "B K"}
NAMES = FEATURES | {"text": "B K C"}


def subjects() -> Iterator[Subject]:
    """The functions without heads and with heads whose gates are open."""
    none = {"reduction": "none"}
    common: dict[str, Any] = {"kinds": {"sources": "class"}, "none": none, "contrast": True, "maps": True}
    vectors, samples = ("visual", "audio", "class_text"), ("visual", "audio", "sources")
    unit = {"normalize_audio": True}
    for name in ("text_guided_loss", "TextGuidedLoss"):
        scaled, light = ("visual", "class_text"), name[0] == "T"
        yield Subject(name, LOSS, {}, "", samples, scaled=scaled, vectors=vectors, light=light, **common)
    yield Subject("text_guided_loss", LOSS, unit, "cosines", samples, scaled=vectors, vectors=vectors, **common)
    for name, shapes, rows in (
        ("text_guided_loss", LOSS, samples),
        ("text_guided_queries", NAMES, tuple(NAMES)),
        ("text_guided_maps", NAMES, tuple(NAMES)),
    ):
        changed = common if shapes is LOSS else {"maps": True}
        scaled = tuple(x for x in shapes if x not in ("audio", "sources"))
        vectors = tuple(x for x in shapes if x != "sources")
        call = _with_heads(name)
        yield Subject(name, shapes, {}, "heads", rows, scaled=scaled, vectors=vectors, call=call, **changed)
        if shapes is NAMES:
            yield Subject(name, shapes, unit, "cosines", rows, scaled=vectors, vectors=vectors, **changed)


def _with_heads(name: str) -> Any:
    def call(**arguments: Any) -> Any:
        if "heads" not in arguments:
            arguments["heads"] = _heads(arguments["visual"])
        return getattr(sslosses, name)(**arguments)

    return call


def _heads(visual: Any) -> TextGuidedHeads:
    """Heads that fit the frames, if those are ordinary ones, with half-open gates."""
    ordinary = isinstance(visual, Tensor) and not visual.is_nested and visual.ndim == 4
    with torch.random.fork_rng():
        torch.manual_seed(0)
        heads = TextGuidedHeads(visual.shape[1] if ordinary else SIZES["C"]).double()
    for parameter in heads.parameters():
        if not parameter.ndim:
            torch.nn.init.constant_(parameter, 0.5)
    return heads.to(visual.device) if ordinary else heads
