"""How the commands end: what they print, and their exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from sslosses._optional import MissingDependencyError
from sslosses.annotations import AnnotationError
from sslosses.evaluate.errors import CommandError
from sslosses.evaluate.standard_output import write_out


def exit_status(run: Callable[[], str], out: Path) -> int:
    """Runs a command that writes its results and returns the text to print.

    Args:
        run: the command.
        out: folder of the results, for the message if the text cannot be printed.

    Returns:
        0; 2 after an error, which is printed to stderr; 130 if interrupted; 1 if the text cannot be printed.
    """
    try:
        text = run()
    except (CommandError, AnnotationError, MissingDependencyError, OSError) as error:
        _complain(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        _complain("Interrupted; nothing is written.")
        return 130
    try:
        write_out(text)
    except OSError as error:
        _complain(f"error: the results are in {out}, but cannot be printed: {error}")
        return 1
    return 0


def _complain(text: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(f"{text}\n")
