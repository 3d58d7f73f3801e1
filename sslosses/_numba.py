"""numba's compiler with a cache on disk where one can be written, and without where none can."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache

from sslosses._caches import locked

_REMEDY = (
    "To keep compiled kernels, set the environment variable NUMBA_CACHE_DIR to a writable folder before Python starts."
)


def cached_njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``numba.njit`` with ``cache=True``, except that a cache that fails costs time only and is reported once.

    Without a writable folder (a read-only installation and home), numba itself refuses to define the function. With a
    full disk, it fails after compiling. Processes that start at the same time could overwrite each other's files.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = njit(**options)(function)
        try:
            dispatcher._cache = _Cache(function)
        except (RuntimeError, OSError):
            _warn_once(
                "numba has no writable folder for compiled kernels, neither beside the installed files nor in the "
                f"home, so every process compiles them anew, for some ten seconds. {_REMEDY}"
            )
        return dispatcher

    return decorate


class _Cache(FunctionCache):  # type: ignore[misc]
    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # whatever a damaged file raises
            _warn_once(f"numba can't read its cache in {self.cache_path}, so it compiles anew: {error!r}.")
            # Saving would read a damaged index again. If it can't be emptied, saving says so.
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            with locked(Path(self.cache_path)):
                super().save_overload(sig, data)
        except Exception as error:  # also what a damaged index raises that could not be emptied
            _warn_once(f"numba can't write its cache in {self.cache_path}: {error}. {_REMEDY}")


@functools.cache
def _warn_once(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=2)
