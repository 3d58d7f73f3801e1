"""Imports a solver's package without its printed reports and warnings, and looks after KeOps' cache folder."""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.metadata
import os
import shlex
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from sslosses._caches import find_folder_problem, lock_folder, locked
from sslosses._optional import MissingDependencyError, is_installed, require


def load(module: str, *, solver: str, extra: str | None = None) -> ModuleType:
    """Imports ``module`` for the solver of that name.

    POT and GeomLoss import KeOps if they can, and KeOps prints a report on the GPU unless KEOPS_VERBOSE is 0.

    Raises:
        MissingDependencyError: if the package is not installed, with the command that installs it, or cannot be
            imported, with the reason.
    """
    if module in sys.modules:
        return sys.modules[module]
    before = os.environ.get("KEOPS_VERBOSE")
    os.environ.setdefault("KEOPS_VERBOSE", "0")
    try:
        with warnings.catch_warnings(), _importing_keops(module):
            warnings.simplefilter("ignore")
            return require(module, extra=extra, purpose=f"The solver {solver!r}")
    finally:
        if before is None:
            os.environ.pop("KEOPS_VERBOSE", None)


def keops_folder() -> Path:
    """The folder in which KeOps keeps compiled formulas."""
    named = os.environ.get("KEOPS_CACHE_FOLDER")
    if named is not None:
        return Path(named)
    return Path("~", ".cache", f"keops{_keops_version()}").expanduser()


@functools.cache  # every call of a solver asks, and the answer is in a file
def _keops_version() -> str:
    try:
        return importlib.metadata.version("keopscore")
    except importlib.metadata.PackageNotFoundError:
        return ""


def find_keops_problem() -> str | None:
    """Says why KeOps can't compile in its folder, and what to do; None if it can."""
    folder = keops_folder()
    problem: str | None
    if os.environ.get("KEOPS_CACHE_FOLDER") == "":
        problem = "KEOPS_CACHE_FOLDER is set, but empty"
    # KeOps puts the path into a shell's command line as it is.
    elif shlex.quote(str(folder)) != str(folder):
        problem = f"{str(folder)!r} has spaces or other characters that KeOps' command line can't take"
    else:
        problem = find_folder_problem(folder)
    if problem is None:
        return None
    remedy = "Set the environment variable KEOPS_CACHE_FOLDER to a writable folder, without spaces in its path"
    return f"KeOps can't keep compiled formulas: {problem}. {remedy}, before Python starts"


@contextlib.contextmanager
def compiling_keops(solver: str) -> Iterator[None]:
    """One process at a time compiles formulas. Whatever KeOps raises gets the name of its folder.

    KeOps itself lets all processes write the same files, and a process that was stopped leaves half a file.
    """
    folder = keops_folder()
    try:
        with locked(folder):
            yield
    except (ImportError, OSError) as error:
        raise MissingDependencyError(
            f"The solver {solver!r} could not compile its formulas or load them from {folder}: {error!r}. Delete this "
            "folder if a compilation was stopped, or set the environment variable KEOPS_CACHE_FOLDER to another one"
        ) from error


@contextlib.contextmanager
def _importing_keops(module: str) -> Iterator[None]:
    """Keeps the import of KeOps, directly or by another package, from failing, and from meeting another process."""
    if "pykeops" in sys.modules or not is_installed("pykeops"):
        yield
    elif find_keops_problem() is None:
        folder = keops_folder()
        with locked(folder):
            yield
        if "pykeops" in sys.modules:
            # At the end of a process, KeOps rewrites files that it reads when imported. The lock ends with the process.
            atexit.register(lock_folder, folder)
    elif module.startswith("pykeops"):
        yield
    else:
        # Importing KeOps would raise. Packages that only use it where it is installed do without.
        sys.modules["pykeops"] = None  # type: ignore[assignment]
        try:
            yield
        finally:
            del sys.modules["pykeops"]
