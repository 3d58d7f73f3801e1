"""The commands ``prepare_music.py`` and ``prepare_vggsound.py``."""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tqdm import tqdm

from ..clip_ids import ClipId
from ..files import write_json
from ..preparation import pool, worker
from ..preparation import split_lists as lists
from ..preparation.split_lists import SplitList
from ..preparation.videos import VideoFolder
from ..preparation.worker import Job, Outcome
from .exit_status import exit_status

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataSet:
    """What tells the data sets apart: the reader of their lists, their files of boxes, their training script."""

    name: str
    read: Callable[[Path], list[SplitList]]
    boxes: tuple[str, ...]
    script: str


MUSIC = DataSet("MUSIC", lists.read_music, ("music_solo.json", "music_duet.json"), "train_music.py")
VGGSOUND = DataSet("VGGSound", lists.read_vggsound, ("vggss.json",), "train_vggsound.py")


def parse_arguments(data: DataSet, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=f"Prepare {data.name} for training: from downloaded videos and the public lists to frames, sounds "
        "and the lists of what is there. Stopped at any point, the same command goes on."
    )
    parser.add_argument("--videos", type=Path, required=True, metavar="DIR", help="folder of videos, at any depth")
    parser.add_argument("--lists", type=Path, required=True, metavar="DIR", help="folder of the public lists and boxes")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to make: --data-root later")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)")
    parser.add_argument(
        "--frame-side", type=int, default=256, help="shorter side of a frame, at most (default: %(default)s)"
    )
    parser.add_argument(
        "--silence",
        type=float,
        default=-60.0,
        metavar="DBFS",
        help="leave out clips whose level is below; --silence=-inf keeps all (default: %(default)s)",
    )
    parsed = parser.parse_args(arguments)
    if parsed.workers < 0:
        parser.error(f"Expected `--workers` to be 0 (in this process) or more, but got {parsed.workers}")
    if parsed.frame_side < 1:
        parser.error(f"Expected `--frame-side` to be a number of pixels, but got {parsed.frame_side}")
    return parsed


def main(data: DataSet, arguments: Sequence[str] | None = None) -> int:
    """Run the job; 0 if a clip can be used, 2 if none can, 130 if it was interrupted."""
    options = parse_arguments(data, arguments)

    def job() -> int:
        options.out.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(options.out / ".preparing.lock").acquire(timeout=0)
        except Timeout:
            raise BlockingIOError(f"Another process is preparing {options.out.resolve()}") from None
        with lock:
            return _run(data, options, Console())

    return exit_status(job)


def _run(data: DataSet, options: argparse.Namespace, console: Console) -> int:
    split_lists = data.read(options.lists)
    folder = VideoFolder(options.videos)
    names = dict.fromkeys(itertools.chain.from_iterable(line.clips for each in split_lists for line in each.lines))
    prepared = _already_there(options.out).intersection(names)
    groups, missing = folder.group(name for name in names if name not in prepared)
    console.print(
        f"{len(folder)} videos in {escape(str(options.videos))}; {len(names)} clips listed: {len(prepared)} already "
        f"prepared, {len(names) - len(prepared) - len(missing)} to do, {len(missing)} without a video"
    )
    jobs = [
        Job(source.path, tuple(clips), source.cut, options.out, options.frame_side, options.silence)
        for source, clips in groups.items()
    ]
    unusable = [Outcome(name, "no video", ClipId.parse(name).video) for name in missing]
    for outcome in _outcomes(jobs, options.workers):
        if outcome.reason:
            unusable.append(outcome)
        else:
            prepared.add(outcome.name)
    unusable.sort()  # workers end in any order

    metadata = options.out / "metadata"
    counts = {each: each.write(metadata, prepared) for each in split_lists}
    for name in data.boxes:
        if (options.lists / name).is_file():
            lists.copy(options.lists / name, metadata)
    _write_report(metadata / "report.json", counts, unusable)
    _print_report(console, counts, unusable)
    if not prepared:
        log.error("Nothing could be prepared. %s names each clip with the reason.", metadata / "report.json")
        return 2
    _print_next(console, data, options.out, counts)
    return 0


def _already_there(out: Path) -> set[str]:
    """Clips with frame and sound; what killed processes left half-written is removed."""
    there = []
    for folder, suffix in (("frames", ".jpg"), ("audio", ".wav")):
        (out / folder).mkdir(exist_ok=True)
        names = [path.name for path in (out / folder).iterdir()]
        for name in names:
            if name.startswith(".") and ".partial." in name:
                (out / folder / name).unlink(missing_ok=True)
        there.append({name.removesuffix(suffix) for name in names if name.endswith(suffix) and name[0] != "."})
    return there[0] & there[1]


def _outcomes(jobs: Sequence[Job], workers: int) -> list[Outcome]:
    outcomes: list[Outcome] = []
    with tqdm(total=sum(len(job.names) for job in jobs), desc="preparing", unit="clip", disable=None) as bar:
        for job, result in pool.run(worker.prepare, jobs, workers):
            if isinstance(result, pool.Crash):
                bar.write(f"The decoder crashed on {job.path} ({result}); going on without it")
                result = [Outcome(name, "decoder crashed", str(result)) for name in job.names]
            outcomes.extend(result)
            bar.update(len(job.names))
    return outcomes


def _write_report(path: Path, counts: dict[SplitList, int], unusable: list[Outcome]) -> None:
    write_json(
        path,
        {
            "lists": {each.name: {"listed": len(each.lines), "prepared": count} for each, count in counts.items()},
            "reasons": dict(Counter(outcome.reason for outcome in unusable).most_common()),
            "missing_videos": sorted({outcome.detail for outcome in unusable if outcome.reason == "no video"}),
            "unusable": {o.name: {"reason": o.reason, "detail": o.detail} for o in unusable},
        },
    )


def _print_report(console: Console, counts: dict[SplitList, int], unusable: list[Outcome]) -> None:
    table = Table("list", title="prepared")
    for column in ("listed", "prepared", "%"):
        table.add_column(column, justify="right")
    for each, count in counts.items():
        table.add_row(each.name, str(len(each.lines)), str(count), f"{100 * count / len(each.lines):.1f}")
    console.print(table)
    if unusable:
        reasons = Table("reason", title="left out")
        reasons.add_column("clips", justify="right")
        reasons.add_column("for example")
        examples = {outcome.reason: outcome for outcome in reversed(unusable)}
        for reason, count in Counter(outcome.reason for outcome in unusable).most_common():
            reasons.add_row(reason, str(count), f"{examples[reason].name}: {examples[reason].detail}")
        console.print(reasons)
    incomplete = [each.name for each, count in counts.items() if each.test and count < len(each.lines)]
    if incomplete:
        console.print(
            f"[bold]Incomplete: {', '.join(incomplete)}.[/] Metrics on a part of a test set cannot be compared with "
            "published ones. State the share that you evaluate on."
        )


def _print_next(console: Console, data: DataSet, out: Path, counts: dict[SplitList, int]) -> None:
    report = out / "metadata" / "report.json"
    console.print(f"{report} names every clip that was left out. Next:", soft_wrap=True, markup=False)
    commands = []
    if any(count for each, count in counts.items() if not each.test):
        commands.append("python examples/generate_captions.py --model NAME --data-root")
    commands.append(f"python examples/{data.script} --data-root")
    for command in commands:
        console.print(f"  {command} {shlex.quote(str(out))}", soft_wrap=True, highlight=False, markup=False)
