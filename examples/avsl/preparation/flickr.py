"""The preparation of Flickr-SoundNet: pairs of a picture and a sound out of archives, test boxes, lists, a report."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from sslosses.annotations import AnnotationError, lists, read_flickr

from ..files import write_bytes
from ..parts import Part
from . import pairs, part_records
from .archive import Archive, open_archive
from .job import already_prepared, locked, of, prepare_part, print_commands, report, run_jobs
from .pairs import PairJob
from .part_records import Result
from .split_lists import Line, SplitList
from .worker import Outcome

log = logging.getLogger(__name__)
TRAINING_LIST, TEST_LIST, BOXES = "flickr_train.txt", "flickr_single_test.csv", "flickr_boxes"


@dataclass(frozen=True)
class FlickrPreparation:
    """What to prepare and how.

    Args:
        archive: folders of unpacked archives, searched at any depth; a clip comes from the first one that has it.
        train_list: file of the training clips; without it, only test clips are prepared.
        test_list: name of a public test list, or a file.
        annotations: folder of the XML files of the test clips; without it, ``Annotations`` in one of the archives.
        out: folder to write.
        workers: number of processes; 0 works in this process.
        frame_side: longest shorter side of a frame, in pixels; larger frames are scaled down.
        silence: level in dBFS below which a clip counts as silent and is left out.
        part: the part to prepare; ``None``: all clips.
        join: prepare nothing, and join the parts that are there.
    """

    archive: Sequence[Path]
    train_list: Path | None
    test_list: str
    annotations: Path | None
    out: Path
    workers: int
    frame_side: int
    silence: float
    part: Part | None = None
    join: bool = False


def prepare_flickr(preparation: FlickrPreparation, console: Console) -> bool:
    """Prepares the listed clips that are not in the folder yet; returns whether any clip can be used.

    Raises:
        BlockingIOError: if another process is preparing the same folder, or the same part.
        FileNotFoundError: if an archive, a list or the folder of boxes does not exist, or an archive has no known
            layout, or parts to join are missing.
        ValueError: if a list is malformed, if its name is unknown, or if parts do not belong together.
    """
    with locked(preparation.out, preparation.part):
        return _prepare_locked(preparation, console)


def _prepare_locked(preparation: FlickrPreparation, console: Console) -> bool:
    out, metadata = preparation.out, preparation.out / "metadata"
    training, test = _training_clips(preparation.train_list), _test_clips(preparation.test_list)
    split_lists = [SplitList(TEST_LIST, _lines(test))]
    if training:  # a run without a training list leaves that of an earlier run
        split_lists.insert(0, SplitList(TRAINING_LIST, _lines(training)))
    settings = part_records.settings_of("Flickr-SoundNet", preparation.frame_side, preparation.silence, split_lists)
    if preparation.part:
        return prepare_part(
            out, preparation.part, settings, lambda: _prepare_clips(training, test, preparation, console), console
        )
    if preparation.join:
        result = part_records.joined(out, settings, list(dict.fromkeys((*training, *test))))
    else:
        result = _prepare_clips(training, test, preparation, console)
    boxless = {outcome.name for outcome in result.without_boxes}
    usable = {TRAINING_LIST: result.prepared, TEST_LIST: result.prepared - boxless}
    counts = {split_list: split_list.write(metadata, usable[split_list.name]) for split_list in split_lists}
    if not report(console, metadata / "report.json", counts, result):
        return False
    for split_list in split_lists:
        public = lists.recognize(line.text for line in split_list.lines)
        console.print(f"{split_list.name} is {public.name if public else 'no public list'}", soft_wrap=True)
    steps = ["python examples/evaluate.py RUN --dataset flickr --protocol ez-vsl,lvs --data-root"]
    print_commands(console, out, [*(["python examples/train_flickr.py --data-root"] if training else []), *steps])
    return True


def _prepare_clips(
    training: Sequence[str], test: Sequence[str], preparation: FlickrPreparation, console: Console
) -> Result:
    """Prepares the clips, or those of them that are in the part, and copies the boxes of test clips."""
    out, part = preparation.out, preparation.part
    listed = {*training, *test}  # all of them decide about the layouts of the archives
    if part:
        training, test = ([clip for clip in clips if part.holds(clip)] for clips in (training, test))
    for root in preparation.archive:  # which takes no time, unlike the search for their clips
        if not root.is_dir():
            raise FileNotFoundError(f"Expected `--archive` to be a folder, but there is none at {root.resolve()}")
    boxes = _boxes_folder(preparation)
    without_boxes = [outcome for outcome in (_boxes_outcome(boxes, clip) for clip in test) if outcome.reason]
    boxless = {outcome.name for outcome in without_boxes}
    names = dict.fromkeys((*training, *(clip for clip in test if clip not in boxless)))
    archives = [open_archive(root, listed) for root in preparation.archive]
    for archive in archives:
        console.print(
            f"{escape(str(archive.root))}: {len(archive.pairs):,} listed clips, layout: {archive.layout}",
            soft_wrap=True,
        )
    prepared = already_prepared(out, names, part)
    jobs, unusable = _jobs(archives, [name for name in names if name not in prepared], preparation)
    console.print(
        f"{len(names):,} clips {of(part)}listed: {len(prepared):,} already prepared, {len(jobs):,} to prepare, "
        f"{len(unusable):,} not in the archives"
    )
    for outcome in run_jobs(pairs.prepare, jobs, preparation.workers):
        if outcome.reason:
            unusable.append(outcome)
        else:
            prepared.add(outcome.name)
    for clip in sorted((prepared - boxless).intersection(test)):
        write_bytes(out / "metadata" / BOXES / f"{clip}.xml", (boxes / f"{clip}.xml").read_bytes())
    return Result(prepared, sorted(unusable), without_boxes=without_boxes)


def _training_clips(path: Path | None) -> tuple[str, ...]:
    if path is None:
        return ()
    if not path.is_file():
        raise FileNotFoundError(f"Expected `--train-list` to be a file, but there is none at {path.resolve()}")
    return lists.read_ids(path)


def _test_clips(name: str) -> tuple[str, ...]:
    if Path(name).is_file():
        return lists.read_ids(name)
    known = [entry for entry in map(lists.get, lists.available("test")) if entry.data == "Flickr-SoundNet"]
    for entry in known:
        if entry.name == name:
            return entry.ids
    raise ValueError(
        f"Expected `--test-list` to be a file or one of {', '.join(entry.name for entry in known)}, but got {name!r}"
    )


def _lines(clips: Iterable[str]) -> tuple[Line, ...]:
    return tuple(Line(clip, (clip,)) for clip in clips)


def _boxes_folder(preparation: FlickrPreparation) -> Path:
    if preparation.annotations is not None:
        if not preparation.annotations.is_dir():
            raise FileNotFoundError(
                f"Expected `--annotations` to be a folder, but there is none at {preparation.annotations.resolve()}"
            )
        return preparation.annotations
    for root in preparation.archive:
        if (root / "Annotations").is_dir():
            return root / "Annotations"
    raise FileNotFoundError(
        "Expected `--annotations` to name the folder of the test clips' XML files, since no `--archive` has a folder "
        "Annotations"
    )


def _boxes_outcome(folder: Path, clip: str) -> Outcome:
    path = folder / f"{clip}.xml"
    if not path.is_file():
        return Outcome(clip, "no boxes", f"{path} does not exist")
    # The library reads a whole folder, and stops at its first malformed file; here the others still count.
    with tempfile.TemporaryDirectory() as alone:
        shutil.copy(path, alone)
        try:
            annotations = read_flickr(alone)
        except AnnotationError as error:
            return Outcome(clip, "boxes cannot be read", str(error).replace(alone, str(folder)))
    if annotations.report.without_box:
        return Outcome(clip, "no boxes", f"{path} has no box with an area in the frame")
    return Outcome(clip)


def _jobs(
    archives: Sequence[Archive], names: Sequence[str], preparation: FlickrPreparation
) -> tuple[list[PairJob], list[Outcome]]:
    """The clips that an archive has, and the others."""
    jobs, missing = [], []
    for name in names:
        pair = next((archive.pairs[name] for archive in archives if name in archive.pairs), None)
        if pair is None:
            parts = [(archive.apart[name], str(archive.root)) for archive in archives if name in archive.apart]
            missing.append(Outcome(name, *(parts[0] if parts else ("not in an archive", ""))))
        else:
            jobs.append(PairJob(name, *pair, preparation.out, preparation.frame_side, preparation.silence))
    return jobs, missing
