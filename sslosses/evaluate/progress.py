"""Progress bar, if tqdm is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sslosses._optional import is_installed, require


@contextmanager
def progress(total: int) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the number of steps done; it updates a bar if tqdm is installed, in a terminal."""
    if not is_installed("tqdm"):
        yield lambda _: None
        return
    tqdm = require("tqdm", extra="examples", purpose="The progress bar")
    # disable=None shows the bar in a terminal only.
    with tqdm.tqdm(total=total, unit="step", desc="scoring", disable=None) as bar:
        yield bar.update
