"""Parts of a data set, one for each of several machines."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import re
from typing import NamedTuple

from .clip_ids import ClipId


class Part(NamedTuple):
    """Part ``number`` of ``count``, counted from 1.

    A hash of a video's id decides in which part its clips are. So a video is decoded on one machine.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Part:
        """Parses a part such as ``3/8``.

        Raises:
            ValueError: if it is anything else, or not one of the parts from 1/8 to 8/8.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
        part = cls(int(match[1]), int(match[2])) if match else cls(0, 0)
        if not 1 <= part.number <= part.count:
            raise ValueError(f"Expected `--part` to be one of 1/N to N/N, such as 3/8, but got {text!r}")
        return part

    @classmethod
    def in_file_name(cls, name: str) -> Part | None:
        """The part whose :attr:`file_name` ``name`` is."""
        match = re.fullmatch(r"(\d{1,6})-of-(\d{1,6})", name, re.ASCII)
        return cls(int(match[1]), int(match[2])) if match else None

    @property
    def file_name(self) -> str:
        """The part in the names of its files: ``3-of-8``."""
        return f"{self.number}-of-{self.count}"

    def holds(self, clip: str) -> bool:
        """Whether a clip belongs to this part. The answer is the same on every machine."""
        with contextlib.suppress(ValueError):  # an id that encodes no video
            clip = ClipId.parse(clip).video
        value = int.from_bytes(hashlib.sha256(clip.encode()).digest()[:8], "big")
        return value % self.count == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def add_part_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options ``--part`` and ``--join``."""
    add = parser.add_mutually_exclusive_group().add_argument
    add("--part", type=_argument, metavar="K/N", help="work on part K of N only, from 1/N to N/N; see --join")
    add("--join", action="store_true", help="join all parts; the other options as for the parts")


def _argument(text: str) -> Part:
    try:
        return Part.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def check_counts(parts: list[Part], where: str) -> None:
    """Checks that all parts are of the same number.

    Raises:
        ValueError: if they are not.
    """
    counts = sorted({part.count for part in parts})
    if len(counts) > 1:
        first = ", ".join(str(next(part for part in sorted(parts) if part.count == count)) for count in counts)
        raise ValueError(
            f"Expected all parts in {where} to be of the same number N, but there are parts of "
            f"{' and of '.join(map(str, counts))}, such as {first}. Delete the files of one of them"
        )
