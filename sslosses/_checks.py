"""Argument checks. Every message reads "Expected `name` to be …, but got …"."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

NEVER_EMPTY = ("C", "H", "W")
#: Corners of boxes are fractions of the frame. Beyond this one they are in pixels: clipped to the frame, such a box
#: would cover nothing or, from the frame's edge, all of it.
FARTHEST_CORNER = 2.0
IN_PIXELS = "which looks like pixels. Divide them by the frame's width and height"


def check_dense(name: str, value: Any) -> None:
    """Raise unless ``value`` is a tensor that is neither sparse nor nested."""
    if not isinstance(value, Tensor):
        raise TypeError(f"Expected `{name}` to be a tensor, but got {type(value).__name__}")
    if value.layout != torch.strided or value.is_nested:
        actual = "a nested tensor" if value.is_nested else f"one of layout {value.layout}"
        raise TypeError(f"Expected `{name}` to be a dense tensor, but got {actual}")


def check_floating(name: str, value: Any) -> None:
    """Raise unless ``value`` is a dense tensor of a real floating dtype."""
    check_dense(name, value)
    if not value.dtype.is_floating_point:
        raise TypeError(f"Expected `{name}` to have a floating dtype, but got {value.dtype}")


def check_mask(name: str, value: Any) -> None:
    """Raise unless ``value`` is a dense boolean tensor."""
    check_dense(name, value)
    if value.dtype != torch.bool:
        raise TypeError(f"Expected `{name}` to have dtype torch.bool, but got {value.dtype}")


def check_dimensions(name: str, value: Tensor, spec: str) -> None:
    """Raise unless ``value`` has at least the dimensions named in ``spec``, for example "... H W"."""
    letters = spec.split()
    if value.ndim < len(letters) - 1:
        raise ValueError(f"Expected `{name}` to have shape ({', '.join(letters)}), but got {tuple(value.shape)}")


def check_shapes(**arguments: tuple[Tensor, str]) -> dict[str, int]:
    """Check shapes and devices, and return the size of each dimension.

    In ``check_shapes(visual=(visual, "B C H W"), audio=(audio, "B C"))`` each letter has one size in all arguments. All
    arguments must be on one device. C, H and W are at least 1: a loss of vectors without entries or of maps without
    pixels would be a number that means nothing.

    Raises:
        ValueError: names the argument, the expected shape and the actual shape.
    """
    sizes: dict[str, int] = {}
    owner: dict[str, str] = {}
    first: tuple[str, Tensor] | None = None
    for name, (value, spec) in arguments.items():
        letters = spec.split()
        shape = tuple(value.shape)
        expected = f"({', '.join(letters)})"
        if value.ndim != len(letters):
            raise ValueError(f"Expected `{name}` to have shape {expected}, but got {shape}")
        for letter, size in zip(letters, shape, strict=True):
            if size == 0 and letter in NEVER_EMPTY:
                raise ValueError(f"Expected `{name}` to have shape {expected} with {letter} >= 1, but got {shape}")
            known = sizes.setdefault(letter, size)
            owner.setdefault(letter, name)
            if known != size:
                raise ValueError(
                    f"Expected `{name}` to have shape {expected} with {letter} = {known} as in `{owner[letter]}`, "
                    f"but got {shape}"
                )
        if first is None:
            first = (name, value)
        elif value.device != first[1].device:
            raise ValueError(
                f"Expected `{name}` to be on the device of `{first[0]}` ({first[1].device}), but got {value.device}"
            )
    return sizes


def check_option(name: str, value: Any, allowed: Sequence[str]) -> None:
    """Raise unless ``value`` is one of the ``allowed`` words."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"Expected `{name}` to be one of {', '.join(map(repr, allowed))}, but got {value!r}")


def check_number(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
) -> float:
    """Return ``value`` as a Python number if it is finite with ``above`` < value and ``least`` <= value <= ``most``.

    NumPy's scalars count, too. So do Python's other numbers, such as fractions. Booleans and tensors do not.
    """
    bounds = [
        text
        for bound, text in ((above, f"> {above}"), (least, f">= {least}"), (most, f"<= {most}"))
        if bound is not None
    ]
    expected = " and ".join(["a finite number", *bounds])
    number = _as_number(value)
    if number is None:
        raise TypeError(f"Expected `{name}` to be {expected}, but got {value!r}")
    # Not math.isfinite, which torch.compile can't trace: with dynamic=True options are symbolic.
    inside = (
        abs(number) <= sys.float_info.max  # also an integer, which may be larger than any float
        and (above is None or number > above)
        and (least is None or number >= least)
        and (most is None or number <= most)
    )
    if not inside:
        raise ValueError(f"Expected `{name}` to be {expected}, but got {value!r}")
    return number


def check_count(name: str, value: Any, *, least: int = 1) -> int:
    """Return ``value`` as a Python integer if it is one of at least ``least``; NumPy's count, booleans do not."""
    number = _as_number(value)
    if not isinstance(number, int):
        raise TypeError(f"Expected `{name}` to be an integer >= {least}, but got {value!r}")
    if number < least:
        raise ValueError(f"Expected `{name}` to be an integer >= {least}, but got {value!r}")
    return number


def check_seed(name: str, value: Any) -> None:
    """Raise unless ``value`` is an integer that torch's generators take."""
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**64:
        raise ValueError(f"Expected `{name}` to be an integer from -2⁶³ to 2⁶⁴ - 1, but got {value!r}")


def check_flag(name: str, value: Any) -> None:
    """Raise unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"Expected `{name}` to be True or False, but got {value!r}")


def find_non_finite(**arguments: Tensor) -> str | None:
    """Says where the first NaN or inf is, as in "`visual` holds nan at [3, 0, 1, 1]"; None if there is none."""
    for name, value in arguments.items():
        where = (~value.detach().isfinite()).nonzero()
        if len(where):
            index = where[0].tolist()
            return f"`{name}` holds {float(value.detach()[tuple(index)])} at {index}"
    return None


def _as_number(value: Any) -> int | float | None:
    """The Python number of a number, None for anything else. Tensors are refused, as they would lose their gradient."""
    if isinstance(value, bool):
        return None
    # A tuple instead of a union, which torch.compile of torch 2.5 can't trace. It can't trace the abstract types below.
    if isinstance(value, (int, float)):
        if torch.compiler.is_compiling():
            return value
        # NumPy's float64 is one, but torch.compile takes it for a tensor.
        return float(value) if isinstance(value, float) else int(value)
    if isinstance(value, Integral):
        return int(value)
    if not isinstance(value, Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf
