"""MUSIC data: one or two instruments per frame."""

from __future__ import annotations

from .folders import Clip, ClipFolder, ListedScenes


class MusicFolder(ClipFolder):
    """A MUSIC folder.

    ``metadata/`` contains ``music_{solo,duet}_train.txt``, ``music_{solo,duet}_test.csv`` and
    ``music_{solo,duet}.json``.
    """

    lists = "music_solo_train.txt, music_solo_test.csv, music_solo.json, the same for duet"

    def files(self, subset: str) -> tuple[str, ...]:
        return f"music_{subset}_train.txt", f"music_{subset}_test.csv", f"music_{subset}.json"

    def training_list(self, subset: str) -> tuple[str, list[tuple[str, tuple[str, ...]]]]:
        from sslosses.annotations import read_music_split

        name = f"music_{subset}_train.txt"
        return name, [(entry.clip, entry.classes) for entry in read_music_split(self.listed(name))]

    def test_scenes(self, subset: str) -> ListedScenes:
        from sslosses.annotations import read_music_duet, read_music_solo, read_music_split

        read = read_music_solo if subset == "solo" else read_music_duet
        annotations = read(self.listed(f"music_{subset}.json"))
        records = []
        for entry in read_music_split(self.listed(f"music_{subset}_test.csv")):
            if entry.clip not in annotations:
                raise ValueError(f"Clip {entry.clip!r} of music_{subset}_test.csv is not in music_{subset}.json")
            records.append(annotations[entry.clip])
        clips = [Clip(r.clip, r.classes) for r in records]
        return ListedScenes(clips, [(i,) for i in range(len(clips))], [r.boxes for r in records])
