"""Records of the parts of a preparation, one file each, and their union."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files import read_json, write_json
from ..parts import Part, check_counts
from .frame_rates import PARTS, join_rates
from .split_lists import SplitList
from .worker import Outcome

#: What decides about the clips of a part, by the name that messages use.
Settings = dict[str, Any]


@dataclass
class Result:
    """What became of the listed clips.

    Args:
        prepared: ids of the clips that can be used.
        unusable: outcomes of the others.
        still: ids of the prepared clips whose picture does not move.
        without_boxes: outcomes of test clips whose boxes can't be used.
    """

    prepared: set[str]
    unusable: list[Outcome]
    still: set[str] = field(default_factory=set)
    without_boxes: list[Outcome] = field(default_factory=list)


def settings_of(data: str, frame_side: int, silence: float, split_lists: Iterable[SplitList]) -> Settings:
    """Returns what must be the same for all parts; a list is represented by a hash."""
    lists = {
        part.name: hashlib.sha256("\n".join(line.text for line in part.lines).encode()).hexdigest()[:16]
        for part in split_lists
    }
    return {"data": data, "--frame-side": frame_side, "--silence": silence, **lists}


def record_path(out: Path, part: Part) -> Path:
    """The record of a part."""
    return out / "metadata" / PARTS / f"{part.file_name}.json"


def claim(out: Path, part: Part, settings: Settings) -> None:
    """Checks that earlier runs had the same settings and number of parts, and records the settings.

    Raises:
        ValueError: if they had others.
    """
    path = record_path(out, part)
    check_counts([*_parts(path.parent), part], str(path.parent))
    if path.is_file():
        _check_settings(path, part, settings)
    else:
        write_json(path, {"part": str(part), "settings": settings, "finished": False})


def write(out: Path, part: Part, settings: Settings, result: Result) -> None:
    """Writes the record of a part that is finished."""
    names = {"prepared": sorted(result.prepared), "still": sorted(result.still)}
    outcomes = {"unusable": sorted(result.unusable), "without_boxes": sorted(result.without_boxes)}
    facts = {"part": str(part), "settings": settings, "finished": True}
    write_json(record_path(out, part), {**facts, **names, **{k: [list(o[:3]) for o in v] for k, v in outcomes.items()}})


def still_clips(out: Path, part: Part) -> set[str]:
    """The clips that an earlier run of a part found to be still."""
    path = record_path(out, part)
    return set(read_json(path).get("still", ())) if path.is_file() else set()


def joined(out: Path, settings: Settings, names: Sequence[str]) -> Result:
    """Returns the union of all parts and joins their frame rates.

    Args:
        out: the folder that the parts wrote, or that their folders were copied to.
        settings: those of the joining run, which all parts must have.
        names: ids of all listed clips.

    Raises:
        FileNotFoundError: if parts or files of their clips are missing, or if parts are not finished.
        ValueError: if the parts do not belong together.
    """
    folder = record_path(out, Part(1, 1)).parent
    parts = _parts(folder)
    if not parts:
        raise FileNotFoundError(f"Expected {folder} to hold the records of all parts, but there are none. {_HINT}")
    check_counts(parts, str(folder))
    for part in parts:
        _check_settings(record_path(out, part), part, settings)
    finished = [part for part in parts if read_json(record_path(out, part), "finished")]
    missing = [str(part) for n in range(parts[0].count) if (part := Part(n + 1, parts[0].count)) not in finished]
    if missing:
        raise FileNotFoundError(
            f"Expected {folder} to hold finished records of all {parts[0].count} parts, but these are missing or not "
            f"finished: {', '.join(missing)}. {_HINT}"
        )
    result = Result(set(), [])
    for part in parts:
        _add(result, part, read_json(record_path(out, part)), record_path(out, part), names)
    _check_files(out, result.prepared)
    join_rates(out, parts)
    return result


_HINT = "Run the same command with --part for each of them, or copy their folders here"


def _parts(folder: Path) -> list[Part]:
    return sorted(part for path in folder.glob("*-of-*.json") if (part := Part.in_file_name(path.stem)))


def _check_settings(path: Path, part: Part, settings: Settings) -> None:
    recorded = read_json(path, "settings")
    for name in dict.fromkeys((*settings, *recorded)):
        if recorded.get(name) != settings.get(name):
            before, now = (json.dumps(values.get(name)) for values in (recorded, settings))
            raise ValueError(
                f"Expected all runs to have the same {name}, but part {part} had {before} and this run has {now} (a "
                f"list is shown as a hash). Use the former, or delete {path.parent} and run all parts again. Clips "
                "that are there are kept"
            )


def _add(result: Result, part: Part, record: dict[str, Any], path: Path, names: Sequence[str]) -> None:
    unusable, without_boxes = ([Outcome(*o) for o in record[key]] for key in ("unusable", "without_boxes"))
    clips = {*record["prepared"], *(outcome.name for outcome in (*unusable, *without_boxes))}
    wrong = clips ^ {name for name in names if part.holds(name)}
    if wrong:
        clip = min(wrong)
        problem = "holds a clip of another part" if clip in clips else "lacks a clip"
        raise ValueError(f"Expected {path} to hold the listed clips of part {part}, but it {problem}, {clip}. {_HINT}")
    result.prepared |= set(record["prepared"])
    result.still |= set(record["still"])
    result.unusable += unusable
    result.without_boxes += without_boxes


def _check_files(out: Path, prepared: Iterable[str]) -> None:
    for folder, suffix in (("frames", ".jpg"), ("audio", ".wav")):
        present = {path.name for path in (out / folder).iterdir()} if (out / folder).is_dir() else set()
        missing = sorted(name for name in prepared if f"{name}{suffix}" not in present)
        if missing:
            raise FileNotFoundError(
                f"Expected {out / folder} to hold all prepared clips of all parts, but {len(missing)} are missing, "
                f"first {missing[0]}{suffix}. {_HINT}"
            )
