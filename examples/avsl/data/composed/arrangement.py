"""Arranges sounding and silent objects in a scene: which objects and where, without pixels or sound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

#: x, y, width and height in fractions of the frame.
Placement = tuple[float, float, float, float]

HEADROOM = 0.12  # fraction of a slot kept free above an instrument, for the head of its player
MAX_STRETCH = 1.7  # maximum factor by which an aspect ratio may change


@dataclass(frozen=True)
class SceneObject:
    """An object of a scene: its class name, whether it sounds, and its place."""

    name: str
    sounding: bool
    box: Placement


@dataclass(frozen=True)
class Scene:
    """A composed scene. The order of its sounding objects is that of the annotation."""

    objects: tuple[SceneObject, ...]

    @property
    def sounding(self) -> list[SceneObject]:
        return [o for o in self.objects if o.sounding]

    @property
    def silent(self) -> list[SceneObject]:
        return [o for o in self.objects if not o.sounding]


@dataclass(frozen=True)
class Vocabulary:
    """The classes of objects.

    Args:
        sounding: names of classes that can sound, with their natural width / height.
        silent: names of classes that never sound, with their natural width / height.
        twin_share: fraction of scenes in which a silent object has the class of a sounding one.
    """

    sounding: dict[str, float]
    silent: dict[str, float]
    twin_share: float = 0.6

    def tall(self, name: str) -> bool:
        """Whether a sounding class is taller than wide."""
        return self.sounding[name] < 1


def sample_scene(rng: np.random.Generator, vocabulary: Vocabulary, sources: int) -> Scene:
    """Samples a scene with ``sources`` (1 or 2) sounding objects of different classes, and silent objects.

    In a fraction ``twin_share`` of the scenes, one silent object has the class of a sounding one. These twins have the
    same distribution of sizes and positions as the sounding objects. Other silent objects in solos are smaller on
    average, because only silent objects are placed in a strip that is cut in two.
    """
    names = [str(n) for n in rng.choice(list(vocabulary.sounding), size=sources, replace=False)]
    tall = [vocabulary.tall(n) for n in names]
    slots, slot_is_tall = _slots(rng, tall)
    order = [int(i) for i in rng.permutation(len(slots))]
    objects: list[SceneObject] = []
    used: set[int] = set()
    for name, is_tall in zip(names, tall, strict=True):
        index = next(i for i in order if i not in used and slot_is_tall[i] == is_tall)
        used.add(index)
        objects.append(SceneObject(name, True, _place(rng, slots[index], vocabulary.sounding[name])))
    twin_due = rng.random() < vocabulary.twin_share
    for index in (i for i in order if i not in used):
        twins = [n for n in names if vocabulary.tall(n) == slot_is_tall[index]]
        others = [n for n in vocabulary.sounding if n not in names and vocabulary.tall(n) == slot_is_tall[index]]
        if twin_due and twins:
            name, twin_due = str(rng.choice(twins)), False
        elif others and rng.random() < 0.65:
            name = str(rng.choice(others))
        else:
            name = str(rng.choice(list(vocabulary.silent)))
        aspect = vocabulary.sounding.get(name, vocabulary.silent.get(name, 1.0))
        objects.append(SceneObject(name, False, _place(rng, slots[index], aspect)))
    return Scene(tuple(objects))


def _slots(rng: np.random.Generator, tall: Sequence[bool]) -> tuple[list[Placement], list[bool]]:
    """Rectangles that tile the frame, and for each whether it is taller than wide.

    Slots are large because binarization at the upper median marks half of the frame: with small boxes, cIoU could not
    distinguish maps.
    """
    if len(tall) == 1 or all(t == tall[0] for t in tall):
        parts = 2 if len(tall) == 1 else 3
        edges = _edges(rng, parts)
        strips: list[Placement] = [(a, 0.0, b - a, 1.0) for a, b in pairwise(edges)]
        shapes = [True] * parts
        if len(tall) == 1 and rng.random() < 0.4:
            left, cut = strips.pop(0), rng.uniform(0.42, 0.58)
            quarters = [(left[0], 0.0, left[2], cut), (left[0], cut, left[2], 1 - cut)]
            strips, shapes = [*strips, *quarters], [True, False, False]
        if rng.random() < 0.5:
            strips = [(1 - x - w, y, w, h) for x, y, w, h in strips]
        if not tall[0]:
            strips, shapes = [(y, x, h, w) for x, y, w, h in strips], [not s for s in shapes]
        return strips, shapes
    column, cut = rng.uniform(0.36, 0.44), rng.uniform(0.45, 0.55)
    slots = [(0.0, 0.0, column, 1.0), (column, 0.0, 1 - column, cut), (column, cut, 1 - column, 1 - cut)]
    if rng.random() < 0.5:
        slots = [(1 - x - w, y, w, h) for x, y, w, h in slots]
    return slots, [True, False, False]


def _edges(rng: np.random.Generator, parts: int) -> list[float]:
    cuts = [(i + rng.uniform(-0.12, 0.12)) / parts for i in range(1, parts)]
    return [0.0, *cuts, 1.0]


def _place(rng: np.random.Generator, slot: Placement, aspect: float) -> Placement:
    x, y, width, height = slot
    y, height = y + HEADROOM * height, (1 - HEADROOM) * height
    target = float(np.clip(width / height, aspect / MAX_STRETCH, aspect * MAX_STRETCH))
    fill = rng.uniform(0.88, 0.99)
    w = fill * min(width, height * target)
    h = w / target
    return (
        float(x + rng.uniform(0, width - w)),
        float(y + rng.uniform(0, height - h)),
        float(w),
        float(h),
    )
