"""Ties a process to the one that started it, so that none is left when the parent is killed."""

from __future__ import annotations

import os
import signal
import threading
import time

#: The environment variable that names the parent of a started program.
VARIABLE = "AVSL_PARENT"
_INTERVAL = 0.5  # s
_GRACE = 5.0  # s to clean up before the process is ended for good


def end_with(parent: int) -> None:
    """Ends this process as soon as process ``parent`` has ended, however that happened.

    It gets SIGTERM first, so that it can delete temporary files. On Windows, this does nothing.
    """
    if os.name == "posix":
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def end_with_starter() -> None:
    """Ends this program with the one that started it, if that one asked for it, and passes this on to its children."""
    parent = os.environ.get(VARIABLE, "")
    if parent.isdecimal() and int(parent) != os.getpid():
        end_with(int(parent))
    os.environ[VARIABLE] = str(os.getpid())


def _watch(parent: int) -> None:
    # A killed parent may stay in the process table for a while, but its children get another parent at once.
    lives = _is_parent if os.getppid() == parent else _exists
    while lives(parent):
        time.sleep(_INTERVAL)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os._exit(1)


def _is_parent(process: int) -> bool:
    return os.getppid() == process


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it belongs to somebody else
    return True
