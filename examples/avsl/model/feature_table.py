"""SQLite files of features: one row per input, with a hash of the input as key."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def open_table(path: Path, content: str, made: str, page_size: int | None = None) -> Iterator[sqlite3.Connection]:
    """Opens the table ``features`` with the columns key and feature, and makes it if it does not exist.

    Args:
        path: the file.
        content: what the file holds, for the message of an error.
        made: how its rows are made, for the message of an error.
        page_size: size of SQLite's pages in a new file, in bytes; large rows need large pages.

    Raises:
        OSError: naming the file, if it is damaged or can't be opened.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with errors_name_table(path, content, made), contextlib.closing(sqlite3.connect(path, timeout=60)) as table:
        if page_size:
            table.execute(f"PRAGMA page_size = {page_size}")
        table.execute("CREATE TABLE IF NOT EXISTS features (key BLOB PRIMARY KEY, feature BLOB)")
        yield table


@contextlib.contextmanager
def errors_name_table(path: Path, content: str, made: str) -> Iterator[None]:
    """Turns errors of SQLite into OSError with the name of the file and the way out."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise OSError(
            f"Expected {path} to hold {content}, but {error}. If it is damaged, delete it to have them {made} again."
        ) from error
