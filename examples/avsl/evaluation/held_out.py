"""The test scenes of a subset, with the boxes of sounding objects and, where known, of silent ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sslosses.annotations import rasterize_annotators

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
    each clip; empty where they are not known. listed: number of scenes in the public list, of which these could be
    prepared; None where the folder's report does not say it. annotators: whether the boxes of a source are those of
    several annotators of one object.
    """

    subset: str
    scenes: Scenes
    test: ListedScenes
    silent: list[SilentObjects]
    listed: int | None = None
    annotators: bool = False

    @property
    def share(self) -> str:
        """The number of scenes in words, as a share of the public list where it is known."""
        count = len(self.test.scenes)
        if self.listed is None:
            return f"{count:,} scenes"
        part = f"{count:,} of {self.listed:,} scenes of the public list ({percent_of_list(count, self.listed)})"
        return part if count == self.listed else f"{part}: not comparable with metrics on all of them"

    def truths(self, size: int) -> Sequence[Any]:
        """The ground truth of each scene, as metrics take it.

        That is the boxes of each source. Of several annotators it is a mask of ``size`` × ``size``, in which a pixel
        that only one of them marked counts half.
        """
        if not self.annotators:
            return self.test.boxes
        return [torch.stack([rasterize_annotators(boxes, size) for boxes in sources]) for sources in self.test.boxes]

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
    scenes = Scenes(folder.root, [c.name for c in test.clips], image_size)
    listed = _listed(folder, subset, len(test.scenes))
    return HeldOutScenes(subset, scenes, test, silent, listed, folder.several_annotators)


def percent_of_list(count: int, listed: int) -> str:
    """Returns a share in percent. Only the whole list is 100 %, and no part of it is 0 %."""
    return "100 %" if count == listed else f"{min(max(100 * count / listed, 0.1), 99.9):.1f} %"


def _listed(folder: ClipFolder, subset: str, scenes: int) -> int | None:
    """Number of scenes in the public list of ``subset``, from the report of the preparation."""
    path = folder.root / "metadata" / "report.json"
    lists = read_json(path).get("lists", {}) if path.is_file() else {}
    counts = [entry.get("listed") for name, entry in lists.items() if name.endswith(f"_{subset}_test.csv")]
    return counts[0] if counts and isinstance(counts[0], int) and counts[0] >= scenes else None


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
