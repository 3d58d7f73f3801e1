"""Imports optional packages on first use. If one is missing, the error names the command that installs it."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType


class MissingDependencyError(ImportError):
    """A package that an option needs is not installed. The message contains the command that installs it."""


def is_installed(package: str) -> bool:
    """Whether ``package`` can be imported, without importing it."""
    return importlib.util.find_spec(package) is not None


def require(module: str, *, extra: str | None, purpose: str) -> ModuleType:
    """Import ``module``, or raise an error with the command that installs it.

    Args:
        module: dotted module name, e.g. ``"pykeops.torch"``.
        extra: the extra of this package that contains it; ``None`` if it is a core dependency.
        purpose: what needs it, as the subject of the error message.

    Raises:
        MissingDependencyError: if the top-level package is not installed.
    """
    package = module.partition(".")[0]
    if not is_installed(package):
        target = f"'sslosses[{extra}]'" if extra else "sslosses"
        raise MissingDependencyError(
            f"{purpose} needs the package `{package}`, which is not installed. Run: pip install {target}"
        )
    return importlib.import_module(module)
