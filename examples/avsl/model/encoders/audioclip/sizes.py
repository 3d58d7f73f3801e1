"""The sizes of AudioCLIP's networks. Stand-ins for tests and trials can be smaller."""

from __future__ import annotations

from typing import NamedTuple

VOCABULARY = 49_408
POSITIONS = 77  # tokens of a text
HEADS = 8  # of the text tower
GRID = 7  # places of the image tower's last map along each side, for frames of 224 pixels


class Sizes(NamedTuple):
    """Sizes that can be smaller in a stand-in. The defaults are those of the published checkpoint.

    width: channels of both ResNets' first stage. depths: blocks of their stages. embedding: dimension of the space that
    frames, sounds and texts share. text_width, text_layers: width and layers of the text tower.
    """

    width: int = 64
    depths: tuple[int, int, int, int] = (3, 4, 6, 3)
    embedding: int = 1024
    text_width: int = 512
    text_layers: int = 12


FULL = Sizes()
SMALL = Sizes(width=16, depths=(1, 1, 1, 1), embedding=16, text_width=16, text_layers=1)
