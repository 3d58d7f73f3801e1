"""Captions made worse on purpose, to see what their quality is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..config import QUALITIES
from .folders import Clip

NOISY_SHARE = 1 / 3


def with_quality(clips: Sequence[Clip], quality: str, seed: int) -> list[Clip]:
    """The clips with captions of a quality.

    ``"true"``: as they are. ``"noisy"``: a third of the clips have the captions of another clip. ``"class"``: the
    foreground captions name the class only, and the background caption names nothing. ``"shuffled"``: every clip has
    the captions of another one. The other clip is any with as many sources; ``seed`` chooses.
    """
    if quality == "true":
        return list(clips)
    if quality == "class":
        return [
            replace(
                clip,
                foreground=tuple(f"an image of {name.replace('_', ' ')}" for name in clip.classes),
                background="an image of a background",
            )
            for clip in clips
        ]
    rng = np.random.default_rng([seed, QUALITIES.index(quality)])
    changed = rng.random(len(clips)) < (NOISY_SHARE if quality == "noisy" else 1)
    made = list(clips)
    for sources in {len(clip.classes) for clip in clips}:
        chosen = [i for i, clip in enumerate(clips) if changed[i] and len(clip.classes) == sources]
        order = rng.permutation(chosen)
        # one place further round a random circle: nobody keeps its own
        for own, other in zip(order, np.roll(order, 1), strict=True):
            made[own] = replace(clips[own], foreground=clips[other].foreground, background=clips[other].background)
    return made
