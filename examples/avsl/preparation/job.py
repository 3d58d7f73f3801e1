"""The preparation job: extracts every listed clip from the videos, then writes the lists and a report."""

from __future__ import annotations

import contextlib
import itertools
import logging
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from filelock import FileLock, Timeout
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tqdm import tqdm

from .. import pool
from ..clip_files import is_whole_frame, is_whole_sound
from ..clip_ids import ClipId
from ..data.overlap import overlap_note
from ..files import read_json, write_json
from ..parts import Part
from . import part_records, worker
from .frame_rates import settle_rates
from .part_records import Result
from .split_lists import SplitList, copy, read_music, read_vggsound
from .videos import VideoFolder
from .worker import Job, Outcome

log = logging.getLogger(__name__)
LOOKING = 2.0  # s until a lock is taken for one that stays: other parts hold it for a moment to look at it


@dataclass(frozen=True)
class PublicDataset:
    """A public data set: its name, the reader of its lists, its files of boxes, its training script."""

    name: str
    read_lists: Callable[[Path], list[SplitList]]
    box_files: tuple[str, ...]
    training_script: str


MUSIC = PublicDataset("MUSIC", read_music, ("music_solo.json", "music_duet.json"), "train_music.py")
VGGSOUND = PublicDataset("VGGSound", read_vggsound, ("vggss.json",), "train_vggsound.py")


@dataclass(frozen=True)
class Preparation:
    """What to prepare and how.

    Args:
        videos: folder of the videos, searched at any depth.
        lists: folder of the public lists and boxes.
        out: folder to write.
        workers: number of processes; 0 works in this process.
        frame_side: longest shorter side of a frame, in pixels; larger frames are scaled down.
        silence: level in dBFS below which a clip counts as silent and is left out.
        part: the part to prepare; ``None``: all clips.
        join: prepare nothing, and join the parts that are there.
    """

    videos: Path
    lists: Path
    out: Path
    workers: int
    frame_side: int
    silence: float
    part: Part | None = None
    join: bool = False


def prepare_dataset(dataset: PublicDataset, preparation: Preparation, console: Console) -> bool:
    """Prepares the listed clips that are not in the folder yet; returns whether any clip can be used.

    Raises:
        BlockingIOError: if another process is preparing the same folder, or the same part.
        FileNotFoundError: if there are no videos or no lists, or parts to join are missing.
        ValueError: if parts do not belong together.
    """
    with locked(preparation.out, preparation.part):
        return _prepare_locked(dataset, preparation, console)


@contextlib.contextmanager
def locked(out: Path, part: Part | None = None) -> Iterator[None]:
    """Makes the folder ``out`` and keeps other processes from preparing it, or ``part`` of it.

    Different parts do not exclude each other. Each takes its own lock, then looks whether the whole folder is locked; a
    run of the whole folder does it the other way round. So they never run at once.

    Raises:
        BlockingIOError: if another process is preparing it.
    """
    out.mkdir(parents=True, exist_ok=True)
    whole = out / ".preparing.lock"
    own = whole if part is None else out / f".preparing-{part.file_name}.lock"
    with _lock(own, 0):
        for other in sorted(out.glob(".preparing-*.lock")) if part is None else [whole]:
            with _lock(other, LOOKING):
                pass
        yield


@contextlib.contextmanager
def _lock(path: Path, timeout: float) -> Iterator[None]:
    lock = FileLock(path, timeout=timeout)
    try:
        lock.acquire()
    except Timeout:
        raise BlockingIOError(f"Another process is preparing {path.parent.resolve()}, by {path.name}") from None
    try:
        yield
    finally:
        lock.release()


def _prepare_locked(dataset: PublicDataset, preparation: Preparation, console: Console) -> bool:
    split_lists = dataset.read_lists(preparation.lists)
    lines = itertools.chain.from_iterable(split_list.lines for split_list in split_lists)
    names = list(dict.fromkeys(itertools.chain.from_iterable(line.clips for line in lines)))
    settings = part_records.settings_of(dataset.name, preparation.frame_side, preparation.silence, split_lists)
    if preparation.part:
        return prepare_part(
            preparation.out, preparation.part, settings, lambda: _prepare_clips(names, preparation, console), console
        )
    if preparation.join:
        result = part_records.joined(preparation.out, settings, names)
    else:
        result = _prepare_clips(names, preparation, console)
    metadata = preparation.out / "metadata"
    for note in overlap_of(split_lists, result.prepared):
        log.warning("%s", note)
    counts = {split_list: split_list.write(metadata, result.prepared) for split_list in split_lists}
    for name in dataset.box_files:
        if (preparation.lists / name).is_file():
            copy(preparation.lists / name, metadata)
    if not report(console, metadata / "report.json", counts, result):
        return False
    print_next_steps(console, dataset, preparation.out, counts)
    return True


def prepare_part(
    out: Path, part: Part, settings: part_records.Settings, prepare: Callable[[], Result], console: Console
) -> bool:
    """Prepares a part and writes its record; returns whether any of its clips can be used, or it has none."""
    part_records.claim(out, part, settings)
    result = prepare()
    part_records.write(out, part, settings, result)
    left_out = len(result.unusable)
    print_line(
        console,
        f"Part {part}: {len(result.prepared):,} clips prepared, {left_out:,} left out. After all {part.count} parts, "
        "run the same command with --join in place of --part",
    )
    return bool(result.prepared) or not left_out


def overlap_of(split_lists: Iterable[SplitList], prepared: Set[str]) -> list[str]:
    """Returns what the prepared clips of each test list share with those of the training lists."""
    clips = {part: [c for line in part.lines for c in line.clips if c in prepared] for part in split_lists}
    trained = {clip for part, names in clips.items() if not part.test for clip in names}
    notes = (overlap_note(trained, names, part.name) for part, names in clips.items() if part.test)
    return [note for note in notes if note]


def _still_clips(out: Path, part: Part | None) -> set[str]:
    """The clips that an earlier run reported as still."""
    path = out / "metadata" / "report.json" if part is None else part_records.record_path(out, part)
    return set(read_json(path).get("still", ())) if path.is_file() else set()


def _prepare_clips(listed: Sequence[str], preparation: Preparation, console: Console) -> Result:
    """Prepares the ``listed`` clips, or those of them that are in the part."""
    videos, part = VideoFolder(preparation.videos), preparation.part
    names = [name for name in listed if part is None or part.holds(name)]
    prepared = already_prepared(preparation.out, names, part)
    groups, _ = videos.group(name for name in names if name not in prepared)
    rates = settle_rates(names, groups, prepared, preparation.out, preparation.workers, part)
    groups, missing = videos.group(name for name in names if name not in prepared)
    console.print(
        f"{len(videos)} videos in {escape(str(preparation.videos))}; {len(names)} clips {of(part)}listed: "
        f"{len(prepared)} already prepared, {len(names) - len(prepared) - len(missing)} to prepare, "
        f"{len(missing)} without a video"
    )
    if others := videos.unlisted(listed):
        first = ", ".join(path.name for path in others[:3])
        print_line(console, f"{len(others)} files have no listed id in their names and are not used, first {first}")
    jobs = [
        Job(
            path=file.path,
            names=tuple(clips),
            rate=rates.get(ClipId.parse(clips[0]).video),
            cut=file.cut,
            out=preparation.out,
            side=preparation.frame_side,
            silence=preparation.silence,
        )
        for file, clips in groups.items()
    ]
    unusable = [Outcome(name, "no video", ClipId.parse(name).video) for name in missing]
    outcomes = run_jobs(worker.prepare, jobs, preparation.workers)
    unusable += [outcome for outcome in outcomes if outcome.reason]
    still = _still_clips(preparation.out, part) & prepared
    still |= {outcome.name for outcome in outcomes if outcome.still}
    prepared |= {outcome.name for outcome in outcomes if not outcome.reason}
    return Result(prepared, sorted(unusable), still)  # workers finish in any order


def of(part: Part | None) -> str:
    """The part in a message about its clips."""
    return f"of part {part} " if part else ""


def already_prepared(out: Path, names: Iterable[str], part: Part | None = None) -> set[str]:
    """The clips whose frame and sound are there and whole; temporary files of killed processes are deleted.

    With a ``part``, those of other parts stay, since other processes may be writing them.
    """
    files: dict[str, set[str]] = {}
    for folder in ("frames", "audio"):
        (out / folder).mkdir(exist_ok=True)
        files[folder] = {path.name for path in (out / folder).iterdir()}
        for file in files[folder]:
            clip = file[1:].rsplit(".", 3)[0]  # of a temporary file, which atomic_write names
            if file.startswith(".") and ".partial." in file and (part is None or part.holds(clip)):
                (out / folder / file).unlink(missing_ok=True)
    there = [name for name in names if f"{name}.jpg" in files["frames"] and f"{name}.wav" in files["audio"]]
    whole = {
        name
        for name in tqdm(there, desc="checking", unit="clip", disable=None if there else True)
        if is_whole_frame(out / "frames" / f"{name}.jpg") and is_whole_sound(out / "audio" / f"{name}.wav")
    }
    if len(whole) < len(there):
        log.warning("%d clips have a damaged frame or sound and are made again.", len(there) - len(whole))
    return whole


class ClipJob(Protocol):
    """A job of some clips, and the file that it decodes."""

    @property
    def names(self) -> tuple[str, ...]:
        """Ids of the clips."""

    @property
    def path(self) -> Path:
        """The file, for messages."""


JobT = TypeVar("JobT", bound=ClipJob)


def run_jobs(prepare: Callable[[JobT], list[Outcome]], jobs: Sequence[JobT], workers: int) -> list[Outcome]:
    """Prepares all clips and returns their outcomes, in any order; a crash of the decoder is one of them."""
    outcomes: list[Outcome] = []
    with tqdm(total=sum(len(job.names) for job in jobs), desc="preparing", unit="clip", disable=None) as bar:
        for job, result in pool.run(prepare, jobs, workers):
            if isinstance(result, pool.Crash):
                bar.write(f"The decoder crashed on {job.path} ({result}); skipping this file")
                result = [Outcome(name, "decoder crashed", str(result)) for name in job.names]
            outcomes.extend(result)
            bar.update(len(job.names))
    return outcomes


def report(
    console: Console,
    path: Path,
    counts: dict[SplitList, int],
    result: Result,
) -> bool:
    """Writes and prints how many clips of each list can be used, and why others can't; returns whether any can."""
    unusable, still = sorted([*result.unusable, *result.without_boxes]), result.still
    _write_report(path, counts, unusable, still)
    _print_report(console, counts, unusable)
    if still:
        console.print(
            f"Still pictures: {len(still)} of the prepared clips, such as {escape(min(still))}. They are kept; "
            '"still" in the report lists them.'
        )
    if not result.prepared:
        log.error("No clip could be prepared. %s lists the reason for each clip.", path)
    return bool(result.prepared)


def _write_report(path: Path, counts: dict[SplitList, int], unusable: list[Outcome], still: Set[str]) -> None:
    write_json(
        path,
        {
            "lists": {s.name: {"listed": len(s.lines), "prepared": count} for s, count in counts.items()},
            "reasons": dict(Counter(outcome.reason for outcome in unusable).most_common()),
            "missing_videos": sorted({outcome.detail for outcome in unusable if outcome.reason == "no video"}),
            "unusable": {o.name: {"reason": o.reason, "detail": o.detail} for o in unusable},
            "still": sorted(still),
        },
    )


def _print_report(console: Console, counts: dict[SplitList, int], unusable: list[Outcome]) -> None:
    table = Table("list", title="Prepared")
    for column in ("listed", "prepared", "%"):
        table.add_column(column, justify="right")
    for split_list, count in counts.items():
        listed = len(split_list.lines)
        table.add_row(split_list.name, str(listed), str(count), f"{100 * count / listed:.1f}")
    console.print(table)
    if unusable:
        reasons = Table("reason", title="Left out")
        reasons.add_column("clips", justify="right")
        reasons.add_column("example")
        examples = {outcome.reason: outcome for outcome in reversed(unusable)}
        for reason, count in Counter(outcome.reason for outcome in unusable).most_common():
            reasons.add_row(reason, str(count), f"{examples[reason].name}: {examples[reason].detail}")
        console.print(reasons)
    incomplete = [s.name for s, count in counts.items() if s.test and count < len(s.lines)]
    if incomplete:
        console.print(
            f"[bold]Incomplete: {', '.join(incomplete)}.[/] Metrics on part of a test set are not comparable with "
            "published ones. State the share that you evaluate on."
        )


def print_next_steps(console: Console, dataset: PublicDataset, out: Path, counts: dict[SplitList, int]) -> None:
    """Prints the commands that caption the prepared folder and train on it."""
    commands = []
    if any(count for split_list, count in counts.items() if not split_list.test):
        commands.append("python examples/generate_captions.py --model NAME --data-root")
    commands.append(f"python examples/{dataset.training_script} --data-root")
    print_commands(console, out, commands)


def print_line(console: Console, text: str) -> None:
    """Prints a line as it is, without wrapping or markup."""
    console.print(text, soft_wrap=True, highlight=False, markup=False)


def print_commands(console: Console, out: Path, commands: Iterable[str]) -> None:
    """Prints commands that end with the option of the prepared folder, which is added to each."""
    path = out / "metadata" / "report.json"
    console.print(f"{path} lists every clip that was left out. Next:", soft_wrap=True, markup=False)
    for command in commands:
        console.print(f"  {command} {shlex.quote(str(out))}", soft_wrap=True, highlight=False, markup=False)
