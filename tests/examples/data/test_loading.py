"""Batches with the classes and clips of their scenes, with captions and without, and all clips one by one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from avsl.config import Config
from avsl.data.folders import Clip
from avsl.data.loading import Collate, TrainingScenes, class_names
from avsl.data.music import MusicFolder
from avsl.data.scenes import Example
from avsl.model.caption_features import CaptionTable
from avsl.model.encoders import ClapAudioEncoder, ClipVisualEncoder, Features
from torch import Tensor

from ..conftest import TINY

CONFIG = Config(**TINY, batch_size=2, workers=0, mirror=False)
CLIPS = [
    Clip("a", ("flute",), ("one flute",), "a chair"),
    Clip("b", ("cello", "drum"), ("one cello", "one drum"), None),
    Clip("c", ("drum",), ("another drum",), "a table"),
]
#: With each caption's number as its feature.
TEXTS = ["one flute", "one cello", "one drum", "another drum", "a chair", "a table"]
CAPTIONS = CaptionTable(
    torch.arange(1.0, 7)[:, None] * torch.tensor([1.0, 10.0]), {text: i for i, text in enumerate(TEXTS)}
)


def without_captions(clips: list[Clip]) -> list[Clip]:
    return [Clip(clip.name, clip.classes) for clip in clips]


def examples(*scenes: tuple[int, ...]) -> list[Example]:
    return [Example(torch.zeros(3, 2, 2 * len(scene)), torch.zeros(9), scene) for scene in scenes]


def test_the_names_of_classes_are_sorted() -> None:
    assert class_names(CLIPS) == ["cello", "drum", "flute"]
    assert class_names([Clip("a", ())]) == []


def test_scenes_of_one_clip() -> None:
    batch = Collate(CLIPS, CAPTIONS)(examples((1,), (0,), (2,)))
    assert batch.foreground[:, :, 0].tolist() == [[2, 3], [1, 0], [4, 0]]
    assert batch.foreground[:, :, 1].tolist() == [[20, 30], [10, 0], [40, 0]]
    assert batch.background.tolist() == [[0, 0], [5, 50], [6, 60]]
    assert batch.background_mask.tolist() == [False, True, True]
    assert batch.source_mask.tolist() == [[True, True], [True, False], [True, False]]
    assert batch.classes.tolist() == [[0, 1], [2, -1], [1, -1]]
    assert batch.clips.tolist() == [[1], [0], [2]]
    assert (batch.classes.dtype, batch.clips.dtype) == (torch.int64, torch.int64)


def test_scenes_of_several_clips_have_the_classes_of_all_without_gaps() -> None:
    batch = Collate(CLIPS, CAPTIONS, largest_scene=2)(examples((0, 1), (2, 0)))
    assert batch.classes.tolist() == [[2, 0, 1, -1], [1, 2, -1, -1]]
    assert batch.source_mask.tolist() == [[True, True, True, False], [True, True, False, False]]
    assert batch.foreground[:, :, 0].tolist() == [[1, 2, 3, 0], [4, 1, 0, 0]]
    assert batch.clips.tolist() == [[0, 1], [2, 0]]


@pytest.mark.parametrize("scenes", [((1,), (0,), (2,)), ((0, 1), (2, 0))])
def test_without_captions_all_but_their_features_is_the_same(scenes: tuple[tuple[int, ...], ...]) -> None:
    size = len(scenes[0])
    batch = Collate(without_captions(CLIPS), None, size)(examples(*scenes))
    other = Collate(CLIPS, CAPTIONS, size)(examples(*scenes))
    for name in ("frames", "waveforms", "source_mask", "classes", "clips"):
        assert torch.equal(getattr(batch, name), getattr(other, name))
    assert batch.foreground.shape == (*other.foreground.shape[:2], 0)
    assert batch.background.shape == (len(scenes), 0)
    assert not batch.background_mask.any()


def test_clips_without_classes_have_no_sources() -> None:
    """Some public lists name none."""
    collate = Collate([Clip("a", ()), Clip("b", ())], None)
    batch = collate(examples((0,), (1,)))
    assert collate.slots == 0
    assert batch.source_mask.shape == batch.classes.shape == (2, 0)
    assert batch.clips.tolist() == [[0], [1]]


def training(root: Path, captions: CaptionTable | None = None, config: Config = CONFIG) -> TrainingScenes:
    folder = MusicFolder(root)
    pools = [folder.training_pool(subset, captions=captions is not None) for subset in ("solo", "duet")]
    return TrainingScenes(root, pools, captions, config)


def test_training_without_captions(music: Path) -> None:
    (music / "metadata" / "captions.jsonl").unlink()
    scenes = training(music)
    assert (scenes.names, scenes.classes, scenes.collate.slots) == (["a", "b", "c"], ["cello", "flute"], 2)
    (batch,) = scenes.train_dataloader()
    rows = sorted(zip(batch.clips.flatten().tolist(), batch.classes.tolist(), batch.source_mask.tolist(), strict=True))
    known = [(0, [0, -1], [True, False]), (1, [1, -1], [True, False]), (2, [0, 1], [True, True])]
    assert len(rows) == 2
    assert all(row in known for row in rows)
    assert batch.foreground.shape == (2, 2, 0)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 50])
def test_all_clips_one_by_one(music: Path, batch_size: int) -> None:
    """In their order, each once, also the last ones of an incomplete batch."""
    scenes = training(music)
    parts = list(scenes.clips(torch.device("cpu"), batch_size))
    assert [len(part.indices) for part in parts] == [min(batch_size, 3 - i) for i in range(0, 3, batch_size)]
    indices, frames, waveforms = (torch.cat(values) for values in zip(*parts, strict=True))
    assert indices.tolist() == [0, 1, 2]
    for i in range(3):
        assert torch.equal(frames[i], scenes.scenes[i].frame)
        assert torch.equal(waveforms[i], scenes.scenes[i].waveform)


def test_clips_are_on_the_device(music: Path) -> None:
    (part,) = training(music).clips(torch.device("meta"))
    assert {value.device.type for value in part} == {"meta"}


def test_clips_as_features(music: Path, clip: str, clap: str, tmp_path: Path) -> None:
    scenes = training(music)
    scenes.scenes.use_features("frames", ClipVisualEncoder(clip, 5), tmp_path)
    scenes.scenes.use_features("sounds", ClapAudioEncoder(clap, 5), tmp_path)
    (part,) = scenes.clips(torch.device("cpu"))
    assert isinstance(part.frames, Features)
    assert isinstance(part.waveforms, Features)

    def values(kind: str) -> Tensor:
        return torch.stack([getattr(scenes.scenes[i], kind).values for i in range(3)])

    assert torch.equal(part.frames.values, values("frame"))
    assert torch.equal(part.waveforms.values, values("waveform"))
