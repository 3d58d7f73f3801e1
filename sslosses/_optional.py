"""Imports optional packages on first use. If one is missing, the error names the command that installs it."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import warnings
from types import ModuleType


class MissingDependencyError(ImportError):
    """A package that an option needs is not installed. The message contains the command that installs it."""


def is_installed(package: str) -> bool:
    """Whether ``package`` can be imported, without importing it."""
    return importlib.util.find_spec(package) is not None


def can_import(package: str) -> bool:
    """Whether an optional package that only makes things faster is there. Warns once if it is, but its import fails."""
    return is_installed(package) and _imports(package)


@functools.cache
def _imports(package: str) -> bool:
    try:
        importlib.import_module(package)
    except Exception as error:  # also what a compiled part raises that was built for another NumPy
        warnings.warn(
            f"The package `{package}` is installed, but can't be imported, so slower code runs in its place: {error}",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


def require(module: str, *, extra: str | None, purpose: str) -> ModuleType:
    """Import ``module``, or raise an error with the command that installs it.

    Args:
        module: dotted module name, e.g. ``"pykeops.torch"``.
        extra: the extra of this package that contains it; ``None`` if it is a core dependency.
        purpose: what needs it, as the subject of the error message.

    Raises:
        MissingDependencyError: if the top-level package is not installed, or if its import fails.
    """
    package = module.partition(".")[0]
    if not is_installed(package):
        target = f"'sslosses[{extra}]'" if extra else "sslosses"
        raise MissingDependencyError(
            f"{purpose} needs the package `{package}`, which is not installed. Run: pip install {target}"
        )
    try:
        return importlib.import_module(module)
    except Exception as error:  # also what a compiled part raises that was built for another NumPy
        raise MissingDependencyError(f"{purpose} can't import the package `{package}`: {error}") from error
