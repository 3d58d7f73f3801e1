"""Scenes of sounding and silent objects: which objects, where, in which state; no pixels and no samples yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

#: x, y, width and height in fractions of the frame.
Placement = tuple[float, float, float, float]
Box = Placement  # the former name, until training/pretraining.py imports the new one

HEADROOM = 0.12  # share of a slot kept free above an instrument, for the head of whoever plays it
MAX_STRETCH = 1.7


@dataclass(frozen=True)
class SceneObject:
    """One object: class name, whether it sounds, and its box (x, y, width, height) in fractions of the frame."""

    name: str
    sounding: bool
    box: Placement


@dataclass(frozen=True)
class Scene:
    """Objects in drawing order; the sounding ones first carry the order of the annotation."""

    objects: tuple[SceneObject, ...]

    @property
    def sounding(self) -> list[SceneObject]:
        return [o for o in self.objects if o.sounding]

    @property
    def silent(self) -> list[SceneObject]:
        return [o for o in self.objects if not o.sounding]


@dataclass(frozen=True)
class Vocabulary:
    """Names with their natural width / height: what can sound, and what never does."""

    sounding: dict[str, float]
    silent: dict[str, float]
    twin_share: float = 0.6

    def tall(self, name: str) -> bool:
        return self.sounding[name] < 1


def sample_scene(rng: np.random.Generator, vocabulary: Vocabulary, sources: int) -> Scene:
    """A scene with ``sources`` (1 or 2) sounding objects of different classes among silent ones.

    In a share of the scenes (``twin_share``) one silent object has the class of a sounding one; such twins have the
    sizes and positions of the sounding objects. Other silent objects of solos are smaller on average, as only silent
    ones are put into a strip that is cut in two.
    """
    names = [str(n) for n in rng.choice(list(vocabulary.sounding), size=sources, replace=False)]
    tall = [vocabulary.tall(n) for n in names]
    slots, slot_is_tall = _slots(rng, tall)
    order = rng.permutation(len(slots))
    objects: list[SceneObject] = []
    taken: set[int] = set()
    for name, is_tall in zip(names, tall, strict=True):
        index = next(int(i) for i in order if int(i) not in taken and slot_is_tall[int(i)] == is_tall)
        taken.add(index)
        objects.append(SceneObject(name, True, _place(rng, slots[index], vocabulary.sounding[name])))
    twin_due = rng.random() < vocabulary.twin_share
    for index in (int(i) for i in order if int(i) not in taken):
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
    """Rectangles that tile the frame, and whether each is taller than wide.

    Upper-median binarization marks half of the frame, so cIoU can only tell maps apart where boxes are large.
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
    wanted = float(np.clip(width / height, aspect / MAX_STRETCH, aspect * MAX_STRETCH))
    fill = rng.uniform(0.88, 0.99)
    w = fill * min(width, height * wanted)
    h = w / wanted
    return (
        float(x + rng.uniform(0, width - w)),
        float(y + rng.uniform(0, height - h)),
        float(w),
        float(h),
    )
