"""Ids of videos and groups, stored in a table of float64 as digests."""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

#: A string or an integer. An integer is the same id as its digits.
Id = str | int
#: One id per sample.
Ids = Sequence[Id] | Tensor
NO_ID = -1.0
_BITS = 53  # the integers that a float64 holds exactly


def digest_of(name: str, value: Any) -> int:
    """Returns the digest of an id, an integer from 0 to 2⁵³ − 1.

    Raises:
        TypeError: if it is neither a string nor an integer; the message starts with ``name``.
    """
    if isinstance(value, bool) or not isinstance(value, str | Integral):
        raise TypeError(f"Expected `{name}` to be a string or an integer, but got {reprlib.repr(value)}")
    text = value if isinstance(value, str) else str(int(value))
    content = hashlib.sha256(text.encode(errors="surrogatepass")).digest()
    return int.from_bytes(content[:8], "big") >> (64 - _BITS)


def columns_of(count: int, videos: Ids | None, groups: Ids | None) -> tuple[Tensor, Tensor]:
    """Returns the columns VIDEO and GROUP of ``count`` samples, (count, 2), and the ids of the videos, see `names_of`.

    Samples of one group share their video if no videos are given.

    Raises:
        TypeError: if an id is neither a string nor an integer, or there is one string in place of one id per sample.
    """
    columns = torch.full((count, 2), NO_ID, dtype=torch.float64)
    names: dict[str, None] = {}
    video_ids = ("groups", groups) if videos is None else ("videos", videos)
    for column, (name, ids) in enumerate((video_ids, ("groups", groups))):
        if ids is None:
            continue
        plain = _listed(name, ids)
        digests = [digest_of(f"{name}[{i}]", value) for i, value in enumerate(plain)]
        columns[:, column] = torch.tensor(digests, dtype=torch.float64)
        if column == 0:
            names = dict.fromkeys(map(str, plain))
    lines = "".join(f"{json.dumps(name)}\n" for name in names)  # ASCII, one line per name
    return columns, torch.tensor(list(lines.encode()), dtype=torch.uint8)


def names_of(content: Tensor) -> dict[int, str]:
    """Returns ids by their digest, from their bytes, (n,). In this form, ids are a state that processes can gather."""
    names = (json.loads(line) for line in bytes(content.tolist()).splitlines())
    return {digest_of("videos", name): name for name in names}


def _listed(name: str, ids: Ids) -> list[Any]:
    if isinstance(ids, str | bytes):
        raise TypeError(f"Expected `{name}` to hold one id per sample, but got {reprlib.repr(ids)}")
    return ids.tolist() if hasattr(ids, "tolist") else list(ids)
