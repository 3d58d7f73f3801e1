"""The command's error, and how messages name clips."""

from __future__ import annotations

from collections.abc import Sequence

_NAMED = 5


class CommandError(Exception):
    """An error that the user can correct; the message says how."""


def named(clip: str) -> str:
    """Returns a clip's name for a terminal: names of files and archive members may hold any character."""
    return clip if clip.isprintable() and len(clip) <= 200 else f"{clip[:200]!r}"


def some(clips: Sequence[str]) -> str:
    """Returns the names of the first clips, and the number of the others."""
    rest = len(clips) - _NAMED
    return ", ".join(map(named, clips[:_NAMED])) + (f" and {rest} more" if rest > 0 else "")
