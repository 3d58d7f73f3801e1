"""Makes the input classes, ``avsl`` and the benchmarks' table writer importable."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("tests", "benchmarks", "examples")]
