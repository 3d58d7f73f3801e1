"""The output files of captioning: captions, failures, and the provenance of both."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from ..data.folders import read_captions
from ..files import naming, parse_object, read_json, write_json
from .answers import Captions
from .frames import ClipToCaption


class JsonLines:
    """A file of JSON lines to append to. Each line is synced to disk before the next one is written.

    An incomplete last line, as a killed run leaves it, is removed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists():
            _cut_last_line(path)
        self._file = path.open("a", encoding="utf-8")

    def append(self, entry: Mapping[str, Any]) -> None:
        with naming(self.path):
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what could not be written has been reported by `append`
            self._file.close()


def _cut_last_line(path: Path) -> None:
    with path.open("r+b") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Reads a file of JSON lines; empty if it does not exist. An incomplete last line is ignored.

    Raises:
        ValueError: naming the first line that is not a JSON object with an id.
    """
    if not path.is_file():
        return []
    entries = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        entry = parse_object(line)
        if not isinstance(entry.get("id"), str):
            raise ValueError(f'Expected an object with "id" in line {number} of {path}, but got {line[:80]!r}')
        entries.append(entry)
    return entries


def complete_captions(path: Path) -> Iterator[tuple[str, tuple[tuple[str, ...], str]]]:
    """The captions of an output file; none if it does not exist. An incomplete last line is ignored."""
    return read_captions(path, whole_lines=True) if path.is_file() else iter(())


def recorded_ids(path: Path, *, failures: bool) -> set[str]:
    """The clips that the output file ``path`` has captions of and, with ``failures``, those that have failed."""
    ids = {name for name, _ in complete_captions(path)}
    return ids | ({entry["id"] for entry in read_lines(failed_path(path))} if failures else set())


def failed_path(path: Path) -> Path:
    """The file of failures that belongs to the output file ``path``."""
    return path.with_name(f"{path.stem}.failed.jsonl")


def provenance_path(path: Path) -> Path:
    """The file of provenance that belongs to the output file ``path``."""
    return path.with_name(f"{path.stem}.provenance.json")


def read_origins(path: Path) -> list[dict[str, Any]]:
    """The recorded origins of the output file ``path``.

    Raises:
        ValueError: if the file of provenance is malformed.
    """
    if not provenance_path(path).is_file():
        return []
    origins = read_json(provenance_path(path), "origins")
    if not isinstance(origins, list) or not all(isinstance(origin, dict) for origin in origins):
        raise ValueError(f"Expected {provenance_path(path)} to hold a list of origins, but got {origins!r:.80}")
    return origins


def locked(path: Path) -> FileLock:
    """Makes the folder of the output file ``path`` and returns the file's lock, which this process now holds.

    Raises:
        BlockingIOError: if another process writes to the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise BlockingIOError(f"Another process writes {path}") from None
    return lock


class Records:
    """Captions, failures and provenance of one output file, for one process at a time.

    Args:
        path: ``captions.jsonl``. ``captions.failed.jsonl`` and ``captions.provenance.json`` are in the same folder.
        provenance: how the captions are made. ``"model"``, ``"prompt_sha256"`` and ``"generation"`` must equal those of
            existing captions.
        force: allow adding to captions of another origin.
        retry_failed: delete the recorded failures, so that the model is asked about these clips again.
        joined: for the file of a part, the file that parts are joined to: what is in it needs no captions, and its
            captions must be of the same origin.

    Raises:
        BlockingIOError: if another process writes to the file.
        ValueError: if ``path`` is no regular file, if the existing captions are of another origin, or if a file is
            malformed.
    """

    def __init__(
        self,
        path: Path,
        provenance: Mapping[str, Any],
        *,
        force: bool = False,
        retry_failed: bool = False,
        joined: Path | None = None,
    ) -> None:
        self.path, self.failed_path = path, failed_path(path)
        self.provenance_path = provenance_path(path)
        self._joined = joined
        self._provenance, self._force, self._retry_failed = dict(provenance), force, retry_failed

    def __enter__(self) -> Records:
        for path in (self.path, self.failed_path):
            if path.exists() and not path.is_file():  # a device or a pipe would never end
                raise ValueError(
                    f"Expected {path} to be a file that can be resumed, but it is a folder, device or pipe"
                )
        self._lock = locked(self.path)
        try:
            self._elsewhere = self._check_joined()
            if self._retry_failed:
                self.failed_path.unlink(missing_ok=True)
            self._claim()
            self.foreground = {name: captions[0] for name, captions in complete_captions(self.path)}
            self.failed = {
                e["id"]: str(e.get("reason")) for e in read_lines(self.failed_path) if e["id"] not in self.foreground
            }
            self._captions, self._failures = JsonLines(self.path), JsonLines(self.failed_path)
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._captions.close()
        self._failures.close()
        for path in (self.path, self.failed_path):
            if not path.stat().st_size:
                path.unlink()
        if not self._any_record():
            self.provenance_path.unlink()
        self._lock.release()

    def _check_joined(self) -> set[str]:
        """The clips that need no captions because parts were joined before."""
        if self._joined is None or not self._joined.is_file():
            return set()
        if not self._force and (text := difference(read_origins(self._joined)[-1:], self._provenance)):
            raise ValueError(f"{self._joined} holds captions of another origin ({text}). Add to them with --force")
        return recorded_ids(self._joined, failures=not self._retry_failed)

    def _any_record(self) -> bool:
        return any(path.is_file() and path.stat().st_size > 0 for path in (self.path, self.failed_path))

    def _claim(self) -> None:
        """Checks that existing captions have this origin, and records it."""
        origins: list[dict[str, Any]] = []
        existing = self._any_record()
        if existing and self.provenance_path.is_file():
            origins = read_origins(self.path)
        if any(_origin(o) == _origin(self._provenance) for o in origins[-1:]):
            return
        if existing and not self._force:
            text = difference(origins[-1:], self._provenance)
            if not self.path.is_file():
                raise ValueError(f"{self.failed_path} is of another origin ({text}). Ask again with --retry-failed")
            raise ValueError(
                f"{self.path} holds captions of another origin ({text}). Choose "
                "another --out, delete the file and its .provenance.json, or add to it with --force"
            )
        write_json(self.provenance_path, {"origins": [*origins, self._provenance]})

    def pending(self, clips: Sequence[ClipToCaption]) -> list[ClipToCaption]:
        """The clips with neither captions nor a recorded failure.

        Raises:
            ValueError: if the number of foreground captions of a clip differs from its number of classes.
        """
        for clip in clips:
            count = len(self.foreground.get(clip.name, clip.labels))
            if count != len(clip.labels):
                raise ValueError(
                    f"Expected {len(clip.labels)} foreground captions for clip {clip.name!r} "
                    f"({', '.join(clip.labels)}), but {self.path} has {count}"
                )
        done = {*self.foreground, *self.failed, *self._elsewhere}
        return [clip for clip in clips if clip.name not in done]

    def write(self, clip: ClipToCaption, captions: Captions) -> None:
        """Appends the captions of a clip."""
        self._captions.append({"id": clip.name, "foreground": captions.foreground, "background": captions.background})

    def write_failure(self, clip: ClipToCaption, reason: str, answer: str | None) -> None:
        """Appends a failure: its reason and the model's last answer, if there was one."""
        self._failures.append({"id": clip.name, "reason": reason, "answer": answer})
        self.failed[clip.name] = reason


def _origin(provenance: Mapping[str, Any]) -> list[Any]:
    return [provenance.get(key) for key in ("model", "prompt_sha256", "generation")]


def difference(origins: Sequence[Mapping[str, Any]], provenance: Mapping[str, Any]) -> str:
    """What differs between the first of ``origins`` and ``provenance``; empty if nothing does."""
    if not origins:
        return "without a .provenance.json"
    for key in ("model", "generation"):
        if origins[0].get(key) != provenance[key]:
            return f"{key} {origins[0].get(key)!r}, now {provenance[key]!r}"
    return "" if _origin(origins[0]) == _origin(provenance) else "another prompt"
