"""The checkpoint of AudioCLIP: one flat dictionary with the weights of all three towers, read strictly."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ....config import AUDIOCLIP_FILE
from ...weight_files import read_values
from .audio import AudioTower
from .image import ImageTower
from .sizes import FULL, Sizes
from .text import text_shapes

SOURCE = "https://github.com/AndreyGuzhov/AudioCLIP/releases"
IMAGE, AUDIO = "visual.", "audio."
SCALES = ("logit_scale", "logit_scale_ai", "logit_scale_at")  # logarithms of the scales in AudioCLIP's loss
#: Only stand-ins have this key. It holds their sizes.
MARKER = "sslosses.stand_in"
_NAMED = 3  # names per message


class Checkpoint(NamedTuple):
    """The weights of the towers, with the names that each tower has for them."""

    sizes: Sizes
    image: dict[str, Tensor]
    audio: dict[str, Tensor]
    text: dict[str, Tensor]


def layout(sizes: Sizes = FULL) -> dict[str, Tensor]:
    """Returns one tensor without memory per weight in a checkpoint, with the shape and type of the weight."""
    with torch.device("meta"):
        values = {IMAGE + name: value for name, value in ImageTower(sizes).state_dict().items()}
        values |= {AUDIO + name: value for name, value in AudioTower(sizes).state_dict().items()}
        shapes = text_shapes(sizes) | dict.fromkeys(SCALES, ())
        return values | {name: torch.empty(shape) for name, shape in shapes.items()}


def read_checkpoint(argument: str, source: str, *, allow_stand_in: bool) -> Checkpoint:
    """Reads a checkpoint, which has to hold all weights with their shapes, and nothing else.

    Args:
        argument: name of the option, for messages.
        source: path of the file.
        allow_stand_in: whether a stand-in, which has random weights, is accepted.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, holds anything else, or is a stand-in without ``allow_stand_in``.
    """
    path = Path(source)
    check_file(argument, source)
    try:
        values = read_values(path)
        _check_dictionary(values)
        sizes = FULL
        if MARKER in values:
            sizes = _stand_in_sizes(values.pop(MARKER))
            if not allow_stand_in:
                raise ValueError("it is a stand-in with random weights. Add --smoke-test true, which marks all results")
        _check_weights(values, layout(sizes))
    except ValueError as error:
        raise ValueError(
            f"Expected `{argument}` to be AudioCLIP's checkpoint, but {source!r} is not: {error}"
        ) from error
    image, audio = (_part(values, prefix) for prefix in (IMAGE, AUDIO))
    text = {name: value for name, value in values.items() if not name.startswith((IMAGE, AUDIO))}
    return Checkpoint(sizes, image, audio, text)


def check_file(argument: str, source: str) -> None:
    """Checks that the checkpoint's file exists.

    Raises:
        FileNotFoundError: if not; the message says where to get it, and with which option to name it.
    """
    if not Path(source).is_file():
        raise FileNotFoundError(
            f"Expected `{argument}` to be AudioCLIP's checkpoint, but there is no file {source!r}. "
            f"{AUDIOCLIP_FILE} is at {SOURCE}. Name it with --{argument.replace('_', '-')}"
        )


def _check_dictionary(values: Any) -> None:
    if not isinstance(values, dict):
        raise ValueError(f"it holds a {type(values).__name__}, not a dictionary of weights")
    if other := [name for name, value in values.items() if not (isinstance(name, str) and isinstance(value, Tensor))]:
        raise ValueError(f"{_counted(len(other), 'entry', 'entries')} of it {_named(map(repr, other))} are no weights")


def _check_weights(values: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Checks names, shapes and types; raises one error that counts the faults of each kind and names a few."""
    faults = []
    if missing := expected.keys() - values.keys():
        faults.append(
            f"{_counted(len(missing), 'weight is', 'weights are')} missing of {len(expected)} {_named(missing)}"
        )
    if unknown := values.keys() - expected.keys():
        faults.append(f"{_counted(len(unknown), 'weight is', 'weights are')} unknown {_named(unknown)}")
    common = expected.keys() & values.keys()
    if odd := [name for name in common if values[name].shape != expected[name].shape]:
        told = (f"{name} {tuple(values[name].shape)} in place of {tuple(expected[name].shape)}" for name in odd)
        faults.append(f"{_counted(len(odd), 'weight has', 'weights have')} another shape {_named(told)}")
    if odd := [name for name in common if values[name].is_floating_point() != expected[name].is_floating_point()]:
        told = (f"{name} {values[name].dtype} in place of {expected[name].dtype}" for name in odd)
        faults.append(f"{_counted(len(odd), 'weight has', 'weights have')} another type {_named(told)}")
    if faults:
        raise ValueError("; ".join(faults))


def _stand_in_sizes(marker: Tensor) -> Sizes:
    numbers = marker.flatten().tolist()
    if len(numbers) != len(pack(FULL)) or marker.is_floating_point() or min(numbers) < 1 or max(numbers) > 2**16:
        raise ValueError("it is a stand-in of another form. Make it again")
    width, *depths, embedding, text_width, text_layers = numbers
    return Sizes(width, tuple(depths), embedding, text_width, text_layers)


def pack(sizes: Sizes) -> list[int]:
    """Returns the numbers that a stand-in's marker holds."""
    return [sizes.width, *sizes.depths, sizes.embedding, sizes.text_width, sizes.text_layers]


def _part(values: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def _counted(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"


def _named(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return f"({', '.join(ordered[:_NAMED])}{', …' if len(ordered) > _NAMED else ''})"
