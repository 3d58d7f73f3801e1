"""Training batches: scenes with the features of their captions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..config import Config
from ..model.caption_features import CaptionTable
from ..model.encoders.tower import Features
from .folders import Clip, Pool
from .sampling import IndexedPool, ResumableLoader, SceneBatches
from .scenes import Example, Scenes, stacked


class SceneBatch(NamedTuple):
    """A batch of B scenes of n clips with up to K sources.

    ``frames``: (B, 3, S, n·S) uint8. ``waveforms``: (B, T) float32. ``foreground``: (B, K, D), features of the
    foreground captions; D = 0 without captions. ``background``: (B, D), features of the background captions.
    ``source_mask``: (B, K), True for sources that exist, False for padding. ``background_mask``: (B,), True for scenes
    with a background caption. ``classes``: (B, K), the class of each source, -1 for padding. ``clips``: (B, n), the
    indices of the clips, in the order of their frames. The features of a frozen encoder can take the place of frames or
    waveforms.
    """

    frames: Tensor | Features
    waveforms: Tensor | Features
    foreground: Tensor
    background: Tensor
    source_mask: Tensor
    background_mask: Tensor
    classes: Tensor
    clips: Tensor


class Clips(NamedTuple):
    """N training clips, each as a scene of its own: ``indices`` (N,), ``frames`` and ``waveforms`` as in batches."""

    indices: Tensor
    frames: Tensor | Features
    waveforms: Tensor | Features


class Collate:
    """Stacks examples and looks up the features of their captions, with padding for missing sources.

    A scene of several clips has the foreground captions of all its clips and the mean of the background features of
    those that have a background caption.

    Args:
        clips: the clips that examples refer to.
        captions: features of all captions of ``clips``; without them, the features in batches have no channels.
        largest_scene: maximum number of clips per scene.
    """

    def __init__(self, clips: Sequence[Clip], captions: CaptionTable | None, largest_scene: int = 1) -> None:
        self.features, rows = captions or (torch.zeros(1, 0), defaultdict(int))
        numbers = {name: i for i, name in enumerate(class_names(clips))}
        most = max((len(c.classes) for c in clips), default=1)
        self.slots = most * largest_scene
        # Numbers are kept in tensors, which worker processes share.
        self._foreground, self._classes = (torch.full((len(clips), most), -1, dtype=torch.int32) for _ in range(2))
        for i, clip in enumerate(clips):
            self._classes[i, : len(clip.classes)] = torch.tensor([numbers[name] for name in clip.classes])
            # Without captions, every source has the same feature without channels.
            self._foreground[i, : len(clip.classes)] = torch.tensor([rows[c] for c in clip.foreground or clip.classes])
        self._background = torch.tensor(
            [-1 if c.background is None else rows[c.background] for c in clips], dtype=torch.int32
        )

    def __call__(self, examples: list[Example]) -> SceneBatch:
        foreground = self.features.new_zeros(len(examples), self.slots, self.features.shape[1])
        mask = torch.zeros(len(examples), self.slots, dtype=torch.bool)
        background = self.features.new_zeros(len(examples), self.features.shape[1])
        background_mask = torch.zeros(len(examples), dtype=torch.bool)
        classes = torch.full((len(examples), self.slots), -1)
        for i, example in enumerate(examples):
            clips = list(example.clips)
            rows = self._foreground[clips].flatten()
            present = rows >= 0
            rows = rows[present]
            foreground[i, : len(rows)], mask[i, : len(rows)] = self.features[rows], True
            classes[i, : len(rows)] = self._classes[clips].flatten()[present].long()
            rows = self._background[clips]
            rows = rows[rows >= 0]
            if len(rows):
                background[i], background_mask[i] = self.features[rows].mean(0), True
        return SceneBatch(
            stacked([e.frame for e in examples]),
            stacked([e.waveform for e in examples]),
            foreground,
            background,
            mask,
            background_mask,
            classes,
            torch.tensor([e.clips for e in examples]),
        )


def class_names(clips: Iterable[Clip]) -> list[str]:
    """Returns the names of all classes of ``clips``, sorted."""
    return sorted({name for clip in clips for name in clip.classes})


class TrainingScenes(L.LightningDataModule):
    """The training data of all subsets. The same seed gives the same batches, with or without interruptions.

    Args:
        root: the data folder.
        pools: clips to draw scenes from.
        captions: features of all captions of the pools; None for methods without captions.
        config: sizes, seed and workers.
    """

    def __init__(self, root: Path, pools: Sequence[Pool], captions: CaptionTable | None, config: Config) -> None:
        super().__init__()
        self.config = config
        pools = _merged(pools)
        clips = [clip for pool in pools for clip in pool.clips]
        #: Ids of the training clips.
        self.names = [clip.name for clip in clips]
        #: Names of the classes, by number.
        self.classes = class_names(clips)
        self.scenes = Scenes(root, self.names, config.image_size, in_memory=config.in_memory)
        #: Maximum number of clips per scene.
        self.largest_scene = max(pool.size for pool in pools)
        self.collate = Collate(clips, captions, self.largest_scene)
        numbers: dict[tuple[str, ...], int] = {}
        labels = torch.tensor([numbers.setdefault(clip.classes, len(numbers)) for clip in clips])
        self._pools, first = [], 0
        for pool in pools:
            self._pools.append(IndexedPool(first, labels[first : first + len(pool.clips)], pool.size))
            first += len(pool.clips)

    def _batches(self) -> SceneBatches:
        rank, processes = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return SceneBatches(self._pools, self.config.batch_size, self.config.seed, rank=rank, processes=processes)

    def optimizer_steps(self) -> int:
        """Number of optimizer steps in all epochs.

        Lightning's own estimate would create the loader before the position in the epoch is read from the checkpoint.
        """
        return self.config.epochs * -(-len(self._batches()) // self.config.accumulate)

    def clips(self, device: torch.device, batch_size: int = 50) -> Iterator[Clips]:
        """Yields all clips, each as a scene of its own."""
        for first in range(0, len(self.scenes), batch_size):
            indices = range(first, min(first + batch_size, len(self.scenes)))
            examples = [self.scenes[i] for i in indices]
            frames, waveforms = stacked([e.frame for e in examples]), stacked([e.waveform for e in examples])
            yield Clips(torch.tensor(indices, device=device), frames.to(device), waveforms.to(device))

    def train_dataloader(self) -> DataLoader[SceneBatch]:
        return ResumableLoader(
            self.scenes,
            batch_sampler=self._batches(),
            num_workers=self.config.workers,
            collate_fn=self.collate,
            persistent_workers=self.config.workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


def _merged(pools: Sequence[Pool]) -> list[Pool]:
    """Merges pools of equal scene size, so that their scenes share batches."""
    sizes: dict[int, list[Clip]] = {}
    for pool in pools:
        sizes.setdefault(pool.size, []).extend(pool.clips)
    return [Pool(clips, size) for size, clips in sizes.items()]
