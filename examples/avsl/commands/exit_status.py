"""How the commands end: with an exit status, and with one line for people where something went wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)
NOISY = ("httpx", "httpx2", "lightning.pytorch.utilities.rank_zero")


def exit_status(job: Callable[[], int | None], *, resumes: bool = True) -> int:
    """Do the job; 0 or what it returns, 2 if it can't be done, 130 if it was interrupted.

    Args:
        job: the work of a command.
        resumes: whether the same command goes on where it was stopped.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        return job() or 0
    except KeyboardInterrupt:
        log.info("Stopped. The same command goes on from here." if resumes else "Stopped.")
        return 130
    except (OSError, ImportError, ValueError, MemoryError) as error:
        log.error("%s: %s", type(error).__name__, error)
        return 2
