"""Image-only pretraining of the visual encoder on crops with captions; it replaces ImageNet weights for composed data.

The supervision is stronger than that of ImageNet: crops show the classes of the scenes, both sounding and silent, and
the classifier's weights are the caption features, as in CLIP. No scenes, boxes or sounds are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from .. import pool
from ..data.composed.arrangement import MAX_STRETCH, Placement, Scene, SceneObject
from ..data.composed.composer import render_frame
from ..data.composed.dataset import open_source

TEMPERATURE = 0.07


def crop_labels(media: str | None) -> list[tuple[str, bool]]:
    """Returns every object in every state that it can have: (name, sounding)."""
    vocabulary = open_source(media).vocabulary
    states = [(name, sounding) for name in vocabulary.sounding for sounding in (True, False)]
    return states + [(name, False) for name in vocabulary.silent]


def crop_captions(media: str | None) -> list[str]:
    """Returns one caption per label of :func:`crop_labels`."""
    source = open_source(media)
    return [f"an image of {source.phrase(name, sounding)}" for name, sounding in crop_labels(media)]


def render_crops(count: int, side: int, seed: int, media: str | None) -> tuple[Tensor, Tensor]:
    """Draws pictures of one object each, (count, 3, side, side) uint8, and returns them with their labels (count,).

    Half of the crops show sounding objects, a quarter their silent twins, and a quarter objects that never sound.
    """
    render = partial(_render_chunk, side=side, seed=seed, media=media)
    chunks = [range(i, min(i + 100, count)) for i in range(0, count, 100)]
    parts = pool.run_all(render, chunks, pool.cores(), title="drawing crops", unit="chunk")
    images, labels = zip(*parts, strict=True)
    return torch.from_numpy(np.concatenate(images)).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(
        np.concatenate(labels)
    )


def _render_chunk(indices: range, *, side: int, seed: int, media: str | None) -> tuple[np.ndarray, np.ndarray]:
    source, labels = open_source(media), crop_labels(media)
    sounding, silent = source.vocabulary.sounding, source.vocabulary.silent
    images, chosen = [], []
    for index in indices:
        rng = np.random.default_rng([seed, 11, index])
        group = index % 4
        if group == 3:
            label = 2 * len(sounding) + int(rng.integers(len(silent)))
        else:
            label = 2 * int(rng.integers(len(sounding))) + int(group == 2)
        name, is_sounding = labels[label]
        aspect = sounding.get(name) or silent[name]
        scene = Scene((SceneObject(name, is_sounding, _crop_box(rng, aspect)),))
        images.append(np.asarray(render_frame(scene, source, rng, side, held_out=False)))
        chosen.append(label)
    return np.stack(images), np.array(chosen)


def _crop_box(rng: np.random.Generator, aspect: float) -> Placement:
    """Draws a box that covers most of the crop and may extend beyond its edge."""
    ratio = aspect * MAX_STRETCH ** rng.uniform(-1, 1)
    longer = rng.uniform(0.45, 1.15)
    w, h = (longer, longer / ratio) if ratio > 1 else (longer * ratio, longer)
    x, y = rng.uniform(-0.1, 1.1 - w), rng.uniform(0.0, max(0.05, 1.1 - h))
    return float(x), float(y), float(w), float(h)


def pretrain(
    encoder: nn.Module, images: Tensor, labels: Tensor, features: Tensor, *, steps: int, batch: int, rate: float
) -> Sequence[float]:
    """Trains ``encoder`` to classify the crops; returns the loss of every step.

    The logits are the cosines of the mean feature with the caption features (L, C), divided by a temperature of 0.07.
    """
    device = next(encoder.parameters()).device
    targets = F.normalize(features.to(device), dim=1)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    losses = []
    encoder.train()
    for _ in tqdm(range(steps), desc="pretraining on crops", unit="step"):
        chosen = torch.randint(len(images), (batch,))
        frames = images[chosen].to(device)
        if torch.rand(()) < 0.5:
            frames = frames.flip(3)
        # The mean of unit vectors, not the unit vector of the mean: maps need every pixel to point to the caption.
        pooled = F.normalize(encoder(frames), dim=1).mean((2, 3))
        loss = F.cross_entropy(pooled @ targets.T / TEMPERATURE, labels[chosen].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses
