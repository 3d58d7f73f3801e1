"""Batches for training: clips with their captions' features, in an order that depends on seed and epoch alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from .config import Config
from .dataset import Clip, Example, MusicScenes
from .text import CaptionTable


class SceneBatch(NamedTuple):
    """Frames (B, 3, S, S) uint8, waveforms (B, T), caption features (B, K, D) and (B, D), real sources (B, K)."""

    frames: Tensor
    waveforms: Tensor
    foreground: Tensor
    background: Tensor
    source_mask: Tensor


class Collate:
    """Stacks examples and looks up the features of their captions; sources are padded to the largest number."""

    def __init__(self, clips: Sequence[Clip], captions: CaptionTable) -> None:
        self.clips, self.captions = clips, captions
        self.slots = max(len(c.foreground) for c in clips)

    def __call__(self, examples: list[Example]) -> SceneBatch:
        clips = [self.clips[e.index] for e in examples]
        features, rows = self.captions
        foreground = features.new_zeros(len(clips), self.slots, features.shape[1])
        mask = torch.zeros(len(clips), self.slots, dtype=torch.bool)
        for i, clip in enumerate(clips):
            for k, caption in enumerate(clip.foreground):
                foreground[i, k], mask[i, k] = features[rows[caption]], True
        return SceneBatch(
            torch.stack([e.frame for e in examples]),
            torch.stack([e.waveform for e in examples]),
            foreground,
            torch.stack([features[rows[c.background]] for c in clips]),
            mask,
        )


class TrainingScenes(L.LightningDataModule):
    """The training loader. ``DistributedSampler`` draws an epoch's order from seed and epoch alone, on one process too,
    so a run that was stopped goes on with the batches that it would have seen."""

    def __init__(self, scenes: MusicScenes, captions: CaptionTable, config: Config) -> None:
        super().__init__()
        self.scenes, self.captions, self.config = scenes, captions, config

    def train_dataloader(self) -> DataLoader[SceneBatch]:
        sampler: DistributedSampler[Example] = DistributedSampler(
            self.scenes, num_replicas=1, rank=0, shuffle=True, seed=self.config.seed
        )
        return DataLoader(
            self.scenes,
            batch_size=self.config.batch_size,
            sampler=sampler,
            num_workers=self.config.workers,
            collate_fn=Collate(self.scenes.clips, self.captions),
            drop_last=len(self.scenes) > self.config.batch_size,
            persistent_workers=self.config.workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
