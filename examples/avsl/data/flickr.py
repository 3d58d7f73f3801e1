"""Flickr-SoundNet: one source per clip, without classes; boxes of several annotators."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from .folders import Clip, ClipFolder, ListedScenes

#: Stands for the class, which is not known.
ANY_CLASS = ("sounding object",)


class FlickrFolder(ClipFolder):
    """A Flickr-SoundNet folder.

    ``metadata/`` contains ``flickr_train.txt``, ``flickr_single_test.csv`` and ``flickr_boxes/<id>.xml``.
    """

    has_classes: ClassVar[bool] = False
    several_annotators: ClassVar[bool] = True
    lists = "flickr_train.txt, flickr_single_test.csv, flickr_boxes/<id>.xml"

    def files(self, subset: str) -> tuple[str, ...]:
        return "flickr_train.txt", f"flickr_{subset}_test.csv"

    def training_list(self, subset: str) -> tuple[str, list[tuple[str, tuple[str, ...]]]]:  # noqa: ARG002
        from sslosses.annotations import lists as clip_lists

        name = "flickr_train.txt"
        return name, [(clip, ANY_CLASS) for clip in clip_lists.read_ids(self.listed(name))]

    @property
    def captions(self) -> Path:
        path = self.root / "metadata" / "captions.jsonl"
        if not path.is_file():
            raise FileNotFoundError(
                f"Expected {path.resolve()}, but there is no such file. generate_captions.py can't write it, as it "
                "needs the class of each clip. Choose a method without captions, such as --method ez-vsl"
            )
        return path

    def test_scenes(self, subset: str) -> ListedScenes:
        from sslosses.annotations import lists as clip_lists
        from sslosses.annotations import read_flickr

        path = self.listed(f"flickr_{subset}_test.csv")
        annotations = read_flickr(self.root / "metadata" / "flickr_boxes")
        names = clip_lists.read_ids(path)
        missing = next((name for name in names if name not in annotations), None)
        if missing:
            raise ValueError(f"Clip {missing!r} of {path.name} has no file in flickr_boxes/")
        clips = [Clip(name, ANY_CLASS) for name in names]
        boxes = [annotations[name].boxes for name in names]
        return ListedScenes(clips, [(i,) for i in range(len(clips))], boxes)
