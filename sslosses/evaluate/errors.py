"""What the command refuses, and how it names the clips concerned."""

from __future__ import annotations

from collections.abc import Sequence

_NAMED = 5


class CommandError(Exception):
    """Something that the user can put right; the message says what."""


def some(clips: Sequence[str]) -> str:
    """The first clips of a list and how many there are more."""
    rest = len(clips) - _NAMED
    return ", ".join(clips[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
