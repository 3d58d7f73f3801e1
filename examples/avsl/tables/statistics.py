"""Means over seeds with their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from scipy.stats import t


class Estimate(NamedTuple):
    """The mean of ``count`` values and half the width of its 95 % confidence interval (Student's t).

    ``half_width`` is NaN for a single value.
    """

    mean: float
    half_width: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate | None:
        """Makes the estimate from one value per seed; None if there are no values."""
        n = len(values)
        if not n:
            return None
        mean = math.fsum(values) / n
        if n == 1:
            return cls(mean, math.nan, 1)
        deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
        return cls(mean, float(t.ppf(0.975, n - 1)) * deviation / math.sqrt(n), n)

    def __str__(self) -> str:
        return f"{self.mean:.1f}" if math.isnan(self.half_width) else f"{self.mean:.1f} ± {self.half_width:.1f}"
