"""Maps of a model on held-out scenes, in memory and as files that other tools can score."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from ..data.scenes import Example, stacked
from ..files import atomic_buffer
from ..model.encoders import Encoded, Features
from ..model.localizer import Localizer
from .held_out import HeldOutScenes

log = logging.getLogger(__name__)


class Prediction(NamedTuple):
    """Maps of a model on :class:`HeldOutScenes`.

    sound: (N, h, w), the maps of the whole sounds. maps: (N, S, h, w), one map per source. valid: (N, S) bool, True
    for sources that were found.
    """

    sound: Tensor
    maps: Tensor
    valid: Tensor


def predict(
    model: Localizer, held_out: HeldOutScenes, batch_size: int = 50, workers: int = 0, *, known: bool = True
) -> Prediction:
    """Computes the maps of all test scenes by the identification of the model's configuration."""
    chosen = model.config.identification
    return predictions(model, held_out, [chosen], batch_size, workers, known=known)[chosen]


@torch.no_grad()
def predictions(
    model: Localizer,
    held_out: HeldOutScenes,
    identifications: Sequence[str],
    batch_size: int = 50,
    workers: int = 0,
    *,
    known: bool = True,
) -> dict[str, Prediction]:
    """Computes the maps of all test scenes once per identification.

    The iterative identification localizes a single source by S_a itself, the others by its one map. If the number of
    sources of a mixture is not ``known``, ``maps`` has as many slots as the largest number found, but at least as many
    as a scene has sources.
    """
    training = model.training
    model.eval()
    parts: dict[str, list[Prediction]] = {name: [] for name in identifications}
    classes = _source_classes(model, held_out) if "given" in identifications else None
    loader = DataLoader(
        held_out.scenes,
        batch_size=batch_size,
        sampler=held_out.test.scenes,
        num_workers=workers,
        collate_fn=_stack,
    )
    for frames, waveforms in loader:
        encoded = model.encode(frames.to(model.device), waveforms.to(model.device))
        first = len(parts[identifications[0]]) * batch_size
        batch_classes = None if classes is None else classes[first : first + len(encoded.audio)].to(model.device)
        sound = model.sound_map(encoded)
        for name in identifications:
            parts[name].append(_localize(model, encoded, sound, held_out, name, batch_classes, known=known))
    model.train(training)
    return {name: _joined(part, held_out.num_sources) for name, part in parts.items()}


def _localize(
    model: Localizer,
    encoded: Encoded,
    sound: Tensor,
    held_out: HeldOutScenes,
    identification: str,
    classes: Tensor | None,
    *,
    known: bool,
) -> Prediction:
    single = held_out.task == "single"
    if single and identification == "iterative":
        maps, valid = sound[:, None], torch.ones(len(sound), 1, dtype=torch.bool)
    else:
        num_sources = held_out.num_sources if known or single else None
        maps, valid, _ = model.source_maps(encoded, num_sources, identification, classes)
    return Prediction((maps[:, 0] if single else sound).cpu(), maps.cpu(), valid.cpu())


def usable_identifications(model: Localizer, tests: Sequence[HeldOutScenes]) -> tuple[str, ...]:
    """Returns the method's identifications; without "given" where a source has a class that no training clip has."""
    names = model.method.identifications
    if "given" not in names or model.config.identification == "given":
        return names
    try:
        for test in tests:
            _source_classes(model, test)
    except ValueError as error:
        log.warning("%s. Scores with given classes are left out.", error)
        return tuple(name for name in names if name != "given")
    return names


def _source_classes(model: Localizer, held_out: HeldOutScenes) -> Tensor:
    """The classes of the sources, (N, S).

    Raises:
        ValueError: if no training clip has the class of a source.
    """
    numbers = {name: i for i, name in enumerate(model.classes)}
    rows = []
    for scene in held_out.test.scenes:
        names = [name for clip in scene for name in held_out.test.clips[clip].classes]
        if unknown := [name for name in names if name not in numbers]:
            raise ValueError(
                f"Expected the sources of {held_out.subset} to have classes of training clips for the identification "
                f"given, but one has {unknown[0]!r}"
            )
        rows.append([numbers[name] for name in names])
    return torch.tensor(rows)


def _joined(parts: Sequence[Prediction], num_sources: int) -> Prediction:
    slots = max(num_sources, *(part.valid.shape[1] for part in parts))
    return Prediction(*(torch.cat(values) for values in zip(*(_pad(part, slots) for part in parts), strict=True)))


def _stack(examples: list[Example]) -> tuple[Tensor | Features, Tensor | Features]:
    return stacked([e.frame for e in examples]), stacked([e.waveform for e in examples])


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
