"""Imports a solver's package without its printed reports and warnings."""

from __future__ import annotations

import os
import warnings
from types import ModuleType

from sslosses._optional import require


def load(module: str, *, solver: str, extra: str | None = None) -> ModuleType:
    """Imports ``module`` for the solver of that name.

    POT and GeomLoss import KeOps if they can, and KeOps prints a report on the GPU unless KEOPS_VERBOSE is 0.

    Raises:
        MissingDependencyError: if the package is not installed. The message has the command that installs it.
    """
    before = os.environ.get("KEOPS_VERBOSE")
    os.environ.setdefault("KEOPS_VERBOSE", "0")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return require(module, extra=extra, purpose=f"The solver {solver!r}")
    finally:
        if before is None:
            os.environ.pop("KEOPS_VERBOSE", None)
