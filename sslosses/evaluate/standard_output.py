"""Prints to standard output, whoever reads it."""

from __future__ import annotations

import os
import sys


def write_out(text: str) -> None:
    """Prints text. If standard output is closed, or its reader has gone, the rest is dropped without an error.

    Letters that the output's encoding lacks are printed as escapes.

    Raises:
        OSError: if the text can't be written for another reason, such as a full disk.
    """
    stream = sys.stdout
    if stream is None:
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except BrokenPipeError:
        _drop_the_rest()
    except OSError:
        _drop_the_rest()
        raise


def _drop_the_rest() -> None:
    """Lets Python's own flush at exit succeed."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)
