"""Measures the steps of a run."""

from __future__ import annotations

import time


class Clock:
    """Seconds per step."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        """Ends the step ``name``."""
        now = time.monotonic()
        self.laps[name], self._last = round(now - self._last, 1), now
