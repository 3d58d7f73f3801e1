"""VGGSound: one source a clip, and mixtures of two or three clips side by side."""

from __future__ import annotations

from sslosses.annotations import read_vggsound_mixtures, read_vggss

from .folders import Clip, ClipFolder, ListedScenes, Pool
from .vggsound_list import read_vggsound_list

SIZES = {"single": 1, "duet": 2, "trio": 3}


class VggsoundFolder(ClipFolder):
    """``metadata/``: ``vggsound_train.csv``, ``vggsound_{single,duet,trio}_test.csv``, ``vggss.json``.

    Mixtures for training are drawn anew every epoch from the clips of the one training list.
    """

    lists = "vggsound_train.csv, vggsound_single_test.csv, vggsound_duet_test.csv, vggss.json"

    def training_pool(self, subset: str) -> Pool:
        name = "vggsound_train.csv"
        listed = ((clip, (label,)) for clip, label in read_vggsound_list(self.listed(name)))
        return Pool(self.with_captions(listed, name), SIZES[subset])

    def test_scenes(self, subset: str) -> ListedScenes:
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
        places: dict[str, int] = {}
        clips = []
        for scene, record in zip(names, records, strict=True):
            for clip, label in zip(scene, record.classes, strict=True):
                if clip not in places:
                    places[clip] = len(clips)
                    clips.append(Clip(clip, (label,)))
        return ListedScenes(clips, [tuple(places[c] for c in scene) for scene in names], [r.boxes for r in records])
