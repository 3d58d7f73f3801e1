"""Keeps a command running when nobody reads what it prints."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class PatientStream:
    """A stream that drops what is printed once its reader has gone, as in ``train_music.py | head``."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes text, or drops it."""
        try:
            self._stream.write(text)
        except BrokenPipeError:
            self._drop()
        return len(text)

    def flush(self) -> None:
        """Flushes what was written, or drops it."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._drop()

    def _drop(self) -> None:
        """Sends this and all that follows nowhere, also Python's own flush at exit."""
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self._stream.fileno())
        os.close(nothing)


@contextlib.contextmanager
def patient_output() -> Iterator[None]:
    """Lets a command print whether or not standard output is open and read."""
    original: Any = sys.stdout
    with Path(os.devnull).open("w", encoding="utf-8") as nothing:
        sys.stdout = nothing if original is None else PatientStream(original)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stdout = original
