"""A progress bar where tqdm is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sslosses._optional import is_installed, require


@contextmanager
def progress(total: int) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of steps done. Without tqdm, or away from a terminal, it shows nothing."""
    if not is_installed("tqdm"):
        yield lambda _: None
        return
    tqdm = require("tqdm", extra="examples", purpose="The progress bar")
    # disable=None: only in a terminal
    with tqdm.tqdm(total=total, unit="frame", desc="scoring", disable=None) as bar:
        yield bar.update
