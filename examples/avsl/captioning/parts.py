"""Captions of parts, one set of output files each, and their union."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import write_json, write_text
from ..parts import Part, check_counts
from .frames import ClipToCaption
from .records import complete_captions, difference, failed_path, locked, provenance_path, read_lines, read_origins

Entries = dict[str, dict[str, Any]]


def part_path(out: Path, part: Part) -> Path:
    """The captions of a part: ``captions.3-of-8.jsonl`` beside ``captions.jsonl``."""
    return out.with_name(f"{out.stem}.{part.file_name}{out.suffix}")


def parts_of(out: Path) -> list[Part]:
    """The parts that have captions, failures or a provenance beside ``out``."""
    names = {path.name[len(out.stem) + 1 :].split(".")[0] for path in out.parent.glob(f"{out.stem}.*-of-*.json*")}
    return sorted(part for name in names if (part := Part.in_file_name(name)))


def check_part(out: Path, part: Part) -> None:
    """Checks that all parts beside ``out`` are of the same number.

    Raises:
        ValueError: if they are not.
    """
    check_counts([*parts_of(out), part], str(out.parent))


def check_joined(out: Path) -> None:
    """Checks that ``out`` has the captions and failures of all parts beside it, so that no clip is captioned twice.

    Raises:
        ValueError: if it lacks any.
    """
    known = {*_captions(out), *_failures(out)}
    for part in parts_of(out):
        path = part_path(out, part)
        if not known.issuperset((*_captions(path), *_failures(path))):
            raise ValueError(
                f"Expected {path} to be joined into {out.name}. Run --join first, or delete the part's files"
            )


def join(out: Path, clips: Sequence[ClipToCaption], provenance: Mapping[str, Any], *, force: bool = False) -> int:
    """Joins the captions of all parts into ``out``, in the order of ``clips``; returns the number of failed clips.

    Captions and failures that are in ``out`` already stay.

    Args:
        out: ``captions.jsonl``.
        clips: all clips of the training lists.
        provenance: how the captions should have been made, as for :class:`~.records.Records`.
        force: allow captions of several origins.

    Raises:
        BlockingIOError: if another process writes captions.
        FileNotFoundError: if there are no parts, or if clips have neither captions nor a failure.
        ValueError: if the parts do not belong together, or if a clip has different captions in two files.
    """
    parts = parts_of(out)
    if not parts:
        raise FileNotFoundError(f"Expected captions of parts beside {out}, but there are none. {_HINT}")
    check_counts(parts, str(out.parent))
    sources: list[tuple[Path, Part | None]] = [(out, None), *((part_path(out, part), part) for part in parts)]
    with contextlib.ExitStack() as locks:
        for path, _ in sources:
            locks.callback(locked(path).release)
        origins = _joined_origins([path for path, _ in sources], provenance, force=force)
        captions, failures = _joined_entries(sources)
        failures = {name: entry for name, entry in failures.items() if name not in captions}
        _check_complete(clips, captions, failures, parts[0].count)
        order = {clip.name: number for number, clip in enumerate(clips)}
        write_json(provenance_path(out), {"origins": origins})
        _write(failed_path(out), failures, order)
        _write(out, captions, order)
    return len(failures.keys() & order.keys())


_HINT = "Run the same command with --part for each of them, or copy their files here"


def _captions(path: Path) -> Entries:
    return {
        name: {"id": name, "foreground": list(foreground), "background": background}
        for name, (foreground, background) in complete_captions(path)
    }


def _failures(path: Path) -> Entries:
    return {entry["id"]: entry for entry in read_lines(failed_path(path))}


def _joined_origins(paths: Iterable[Path], provenance: Mapping[str, Any], *, force: bool) -> list[dict[str, Any]]:
    """The origins of all files, without those that differ in their time only."""
    joined: dict[str, dict[str, Any]] = {}
    for path in paths:
        if not (path.is_file() or failed_path(path).is_file()):
            continue  # nothing of this part was captioned
        origins = read_origins(path)
        if not force and (not origins or difference(origins[-1:], provenance)):
            raise ValueError(
                f"Expected all captions to be of the origin of this run, but those of {path} are of another "
                f"({difference(origins[-1:], provenance)}). Make the part again, or join all with --force"
            )
        for origin in origins:
            key = json.dumps({**origin, "started": None}, sort_keys=True)
            if key not in joined or origin.get("started", "") < joined[key].get("started", ""):
                joined[key] = origin
    return list(joined.values())


def _joined_entries(sources: Iterable[tuple[Path, Part | None]]) -> tuple[Entries, Entries]:
    captions: Entries = {}
    failures: Entries = {}
    origin: dict[str, Path] = {}
    for path, part in sources:
        own, failed = _captions(path), _failures(path)
        for name in (*own, *failed):
            if part and not part.holds(name):
                raise ValueError(f"Expected {path} to hold the clips of part {part} only, but it has {name}")
        for name, entry in own.items():
            if captions.setdefault(name, entry) != entry:
                raise ValueError(
                    f"Expected one set of captions per clip, but those of {name} in {path} differ from those in "
                    f"{origin[name]}. Delete one of them"
                )
            origin.setdefault(name, path)
        failures |= failed
    return captions, failures


def _check_complete(clips: Sequence[ClipToCaption], captions: Entries, failures: Entries, count: int) -> None:
    lacking = [clip.name for clip in clips if clip.name not in captions and clip.name not in failures]
    if lacking:
        parts = [str(part) for n in range(count) if any(map((part := Part(n + 1, count)).holds, lacking))]
        raise FileNotFoundError(
            f"Expected captions of all {len(clips):,} clips, but {len(lacking):,} have none, first {lacking[0]}, in "
            f"parts {', '.join(parts)}. {_HINT}"
        )
    for clip in clips:
        found = len(captions[clip.name]["foreground"]) if clip.name in captions else len(clip.labels)
        if found != len(clip.labels):
            raise ValueError(f"Expected {len(clip.labels)} foreground captions of clip {clip.name}, but got {found}")


def _write(path: Path, entries: Entries, order: Mapping[str, int]) -> None:
    if not entries:
        path.unlink(missing_ok=True)
        return
    names = sorted(entries, key=lambda name: order.get(name, len(order)))  # clips of no list stay, at the end
    write_text(path, "".join(f"{json.dumps(entries[name])}\n" for name in names))
