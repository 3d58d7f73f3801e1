"""What the command refuses, and how it names the clips concerned."""

from __future__ import annotations

from collections.abc import Sequence

_NAMED = 5


class CommandError(Exception):
    """Something that the user can put right; the message says what."""


def named(clip: str) -> str:
    """A clip's name for a terminal: names of files and in archives may hold any character."""
    return clip if clip.isprintable() and len(clip) <= 200 else f"{clip[:200]!r}"


def some(clips: Sequence[str]) -> str:
    """The first clips of a list and how many there are more."""
    rest = len(clips) - _NAMED
    return ", ".join(map(named, clips[:_NAMED])) + (f" and {rest} more" if rest > 0 else "")
