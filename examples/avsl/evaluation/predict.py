"""Maps of a model on held-out scenes, in memory and as files that other tools can score."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from ..data.scenes import Example
from ..files import atomic_buffer
from ..model.localizer import Localizer
from .held_out import HeldOutScenes


class Prediction(NamedTuple):
    """Maps of a model on :class:`HeldOutScenes`.

    sound: (N, h, w), the maps S_a of the whole sounds. maps: (N, S, h, w), one map per source. valid: (N, S) bool, True
    for sources that were found.
    """

    sound: Tensor
    maps: Tensor
    valid: Tensor


@torch.no_grad()
def predict(
    model: Localizer, held_out: HeldOutScenes, batch_size: int = 50, workers: int = 0, *, known: bool = True
) -> Prediction:
    """Computes the maps of all test scenes.

    A single source is localized by S_a itself. The sources of a mixture are separated by iterative object
    identification. If their number is not ``known``, ``maps`` has as many slots as the largest number found, but at
    least as many as a scene has sources.
    """
    training = model.training
    model.eval()
    parts = []
    loader = DataLoader(
        held_out.scenes,
        batch_size=batch_size,
        sampler=held_out.test.scenes,
        num_workers=workers,
        collate_fn=_stack,
    )
    for frames, waveforms in loader:
        visual, audio = model.encode(frames.to(model.device), waveforms.to(model.device))
        sound = model.sound_map(visual, audio)
        if held_out.task == "single":
            maps, valid = sound[:, None], torch.ones(len(sound), 1, dtype=torch.bool)
        else:
            identified = model.source_maps(visual, audio, num_sources=held_out.num_sources if known else None)
            maps, valid = identified.maps, identified.valid
        parts.append(Prediction(sound.cpu(), maps.cpu(), valid.cpu()))
    model.train(training)
    slots = max(held_out.num_sources, *(part.valid.shape[1] for part in parts))
    return Prediction(*(torch.cat(values) for values in zip(*(_pad(part, slots) for part in parts), strict=True)))


def _stack(examples: list[Example]) -> tuple[Tensor, Tensor]:
    return torch.stack([e.frame for e in examples]), torch.stack([e.waveform for e in examples])


def _pad(part: Prediction, slots: int) -> Prediction:
    missing = slots - part.valid.shape[1]
    return Prediction(part.sound, F.pad(part.maps, (0, 0, 0, 0, 0, missing)), F.pad(part.valid, (0, missing)))


def frame_resolution(held_out: HeldOutScenes, prediction: Prediction) -> tuple[int, int]:
    """Returns height and width of the map of one frame."""
    height, width = prediction.sound.shape[1:]
    return height, width // held_out.num_frames


def save_maps(path: Path, held_out: HeldOutScenes, prediction: Prediction) -> None:
    """Writes the maps of the sources that were found as NPZ, for ``python -m sslosses.evaluate --maps``.

    The file holds one array (M, h, w) per scene. Its key is the id of the clip, or the ids of the clips joined by "+",
    whose frames are side by side.
    """
    keys = ["+".join(held_out.test.clips[clip].name for clip in scene) for scene in held_out.test.scenes]
    arrays = {
        key: maps[valid].numpy() for key, maps, valid in zip(keys, prediction.maps, prediction.valid, strict=True)
    }
    with atomic_buffer(path) as buffer:
        np.savez_compressed(buffer, **arrays)
