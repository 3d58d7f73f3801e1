"""The test scenes of a subset, with the boxes of sounding objects and, where known, of silent ones."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

from ..data.folders import Box, ClipFolder, ListedScenes
from ..data.scenes import Scenes
from ..files import read_json


class SilentObjects(NamedTuple):
    """Boxes (fractional corners) of the silent objects of a frame, and their class names."""

    boxes: tuple[Box, ...]
    classes: tuple[str, ...]


class HeldOutScenes(NamedTuple):
    """The test scenes of one subset.

    subset: its name. scenes: frames and sounds. test: the clips and boxes of each scene. silent: the silent objects of
    each clip; empty where they are not known.
    """

    subset: str
    scenes: Scenes
    test: ListedScenes
    silent: list[SilentObjects]

    @property
    def task(self) -> str:
        """The task in the protocols' terms: "single" (one source) or "mixtures"."""
        return "single" if self.num_sources == 1 else "mixtures"

    @property
    def layout(self) -> str:
        """Where the frames of a mixture are."""
        return "one" if self.num_frames == 1 else "side-by-side"

    @property
    def num_sources(self) -> int:
        """Number of sources per scene."""
        return len(self.test.boxes[0])

    @property
    def num_frames(self) -> int:
        """Number of frames per scene."""
        return len(self.test.scenes[0])


def load_held_out(folder: ClipFolder, subset: str, image_size: int) -> HeldOutScenes:
    """Reads the test scenes of ``subset``, with frames of ``image_size`` pixels per side.

    Raises:
        ValueError: naming the first clip without boxes, or whose silent objects are malformed.
    """
    test = folder.test_scenes(subset)
    silent: list[SilentObjects] = []
    if folder.silent_objects.is_file():
        objects_by_clip = read_json(folder.silent_objects)
        silent = [_silent_objects(objects_by_clip, clip.name, folder.silent_objects) for clip in test.clips]
    return HeldOutScenes(subset, Scenes(folder.root, [c.name for c in test.clips], image_size), test, silent)


def _silent_objects(objects_by_clip: Any, clip: str, path: Path) -> SilentObjects:
    try:
        objects = objects_by_clip[clip]
        boxes = tuple((float(x), float(y), float(x + w), float(y + h)) for x, y, w, h in (o["bbox"] for o in objects))
        classes = tuple(str(o["class"]) for o in objects)
        if all(math.isfinite(value) for box in boxes for value in box):
            return SilentObjects(boxes, classes)
    except (KeyError, IndexError, TypeError, ValueError, OverflowError):
        pass
    raise ValueError(
        f'Expected {path} to hold {{"class", "bbox": [x, y, width, height]}} per silent object of clip {clip!r}, '
        "but it does not"
    )
