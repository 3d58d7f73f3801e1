"""Stand-ins for AudioCLIP's checkpoint: random weights of the same names and shapes, to try out all steps."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ....files import atomic_write
from .audio import AudioTower
from .checkpoint import AUDIO, IMAGE, MARKER, SCALES, pack
from .image import ImageTower
from .sizes import FULL, Sizes
from .text import text_shapes

SCALE = 0.02  # standard deviation of the text tower's weights


def stand_in_weights(seed: int = 0, sizes: Sizes = FULL) -> dict[str, Tensor]:
    """Returns random weights with the names of the checkpoint, and the marker of a stand-in."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        values = {IMAGE + name: value for name, value in ImageTower(sizes).state_dict().items()}
        values |= {AUDIO + name: value for name, value in AudioTower(sizes).state_dict().items()}
        for name, shape in text_shapes(sizes).items():
            random = SCALE * torch.randn(shape)
            values[name] = random + 1 if ".ln_" in f".{name}" and name.endswith("weight") else random
        values |= {name: torch.tensor(100.0).log() for name in SCALES}
    return values | {MARKER: torch.tensor(pack(sizes))}


def write_stand_in(path: Path, seed: int = 0, sizes: Sizes = FULL) -> None:
    """Writes a stand-in to ``path`` atomically."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        torch.save(stand_in_weights(seed, sizes), file)
