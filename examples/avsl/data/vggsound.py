"""VGGSound data: one source per clip, and mixtures of two or three clips side by side."""

from __future__ import annotations

from typing import ClassVar

from .folders import Clip, ClipFolder, ListedScenes
from .vggsound_list import read_vggsound_list


class VggsoundFolder(ClipFolder):
    """A VGGSound folder.

    ``metadata/`` contains ``vggsound_train.csv``, ``vggsound_{single,duet,trio}_test.csv`` and ``vggss.json``.
    Training mixtures are drawn from the clips of the single training list, with new ones in every epoch.
    """

    clips_per_scene: ClassVar = {"single": 1, "duet": 2, "trio": 3}
    lists = "vggsound_train.csv, vggsound_single_test.csv, vggsound_duet_test.csv, vggss.json"

    def files(self, subset: str) -> tuple[str, ...]:
        return "vggsound_train.csv", f"vggsound_{subset}_test.csv", "vggss.json"

    def training_list(self, subset: str) -> tuple[str, list[tuple[str, tuple[str, ...]]]]:  # noqa: ARG002
        name = "vggsound_train.csv"
        return name, [(clip, (label,)) for clip, label in read_vggsound_list(self.listed(name))]

    def test_scenes(self, subset: str) -> ListedScenes:
        from sslosses.annotations import read_vggsound_mixtures, read_vggss

        boxes, path = self.listed("vggss.json"), self.listed(f"vggsound_{subset}_test.csv")
        if subset == "single":
            annotations = read_vggss(boxes)
            names = [(clip,) for clip, _ in read_vggsound_list(path)]
            missing = next((clip for (clip,) in names if clip not in annotations), None)
            if missing:
                raise ValueError(f"Clip {missing!r} of {path.name} is not in vggss.json")
            records = [annotations[clip] for (clip,) in names]
        else:
            mixtures = list(read_vggsound_mixtures(path, boxes))
            names = [m.frames for m in mixtures]
            records = mixtures
        indices: dict[str, int] = {}
        clips = []
        for scene, record in zip(names, records, strict=True):
            for clip, label in zip(scene, record.classes, strict=True):
                if clip not in indices:
                    indices[clip] = len(clips)
                    clips.append(Clip(clip, (label,)))
        return ListedScenes(clips, [tuple(indices[c] for c in scene) for scene in names], [r.boxes for r in records])
