"""Degrades captions on purpose, to measure how much their quality matters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..config import QUALITIES
from .folders import Clip

NOISY_SHARE = 1 / 3


def with_quality(clips: Sequence[Clip], quality: str, seed: int) -> list[Clip]:
    """Returns the clips with captions of the given quality.

    Args:
        clips: clips with their true captions.
        quality: ``"true"``: unchanged. ``"noisy"``: a third of the clips get the captions of another clip.
            ``"shuffled"``: all clips get the captions of another clip. ``"class"``: foreground captions only name the
            class, and background captions, where there are any, name no object.
        seed: decides which clips exchange captions. They always have equal numbers of sources.
    """
    if quality == "true":
        return list(clips)
    if quality == "class":
        return [
            replace(
                clip,
                foreground=tuple(f"an image of {name.replace('_', ' ')}" for name in clip.classes),
                background=None if clip.background is None else "an image of a background",
            )
            for clip in clips
        ]
    rng = np.random.default_rng([seed, QUALITIES.index(quality)])
    changed = rng.random(len(clips)) < (NOISY_SHARE if quality == "noisy" else 1)
    degraded = list(clips)
    for sources in {len(clip.classes) for clip in clips}:
        chosen = [i for i, clip in enumerate(clips) if changed[i] and len(clip.classes) == sources]
        order = rng.permutation(chosen)
        # Each clip takes the captions of its predecessor in a random cycle, so none keeps its own.
        for index, other in zip(order, np.roll(order, 1), strict=True):
            degraded[index] = replace(
                clips[index], foreground=clips[other].foreground, background=clips[other].background
            )
    return degraded
