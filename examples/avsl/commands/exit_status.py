"""How commands end: with an exit status and, if something went wrong, one line that says what."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable

from .standard_output import patient_output

log = logging.getLogger(__name__)
NOISY_LOGGERS = ("httpx", "httpx2", "httpcore", "httpcore2", "lightning.pytorch.utilities.rank_zero")


def exit_status(job: Callable[[], int | None], *, resumes: bool = True) -> int:
    """Runs a command's job to its end, also if the reader of its output leaves before that.

    Args:
        job: the work of the command; may return an exit status.
        resumes: whether the same command resumes after an interruption.

    Returns:
        0 or the status that ``job`` returned; 2 after an error; 130 if it was interrupted.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name that is not UTF-8 must not end the job
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").propagate = False  # it has a handler of its own, and would print all twice
    try:
        with patient_output():
            return job() or 0
    except KeyboardInterrupt:
        log.info("Interrupted. Run the same command again to resume." if resumes else "Interrupted.")
        return 130
    except (OSError, ImportError, ValueError, MemoryError) as error:
        log.error("%s", _reason(error))
        return 2
    except RuntimeError as error:
        from ..machine_errors import of_this_machine  # imports what reads videos

        if not of_this_machine(error):
            raise
        log.error("%s", _reason(error))
        return 2


def _reason(error: Exception) -> str:
    """The kind and text of an error, without the traceback that a worker of torch's data loader adds to the text."""
    kind, text = type(error).__name__, str(error)
    if text.startswith(f"Caught {kind} in ") and "Traceback" in text:
        text = text.rpartition(f"{kind}: ")[2].strip()
    return f"{kind}: {text}"
