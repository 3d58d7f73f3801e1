"""The composed data set: composed scenes as files in the public layouts of MUSIC and VGGSound, from one seed."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from ... import pool
from ...clip_files import is_whole_frame, is_whole_sound, write_frame, write_sound
from ...files import read_json, write_json, write_text
from .arrangement import Scene, sample_scene
from .composer import DrawnSource, ObjectSource, captions, render_audio, render_frame
from .description import Description
from .media import MediaSource

log = logging.getLogger(__name__)

SUBSETS = {"solo": 1, "duet": 2}  # number of sounding objects
Job = tuple[str, str, int]  # split, subset and number of a scene


@cache
def open_source(media: str | None, soundfont: Path | None = None) -> ObjectSource:
    """The photographs and recordings in folder ``media``, or for ``None`` the drawn instruments, with their sounds."""
    return MediaSource(Path(media)) if media else DrawnSource(soundfont)


def ensure_composed(root: Path, description: Description) -> Path:
    """Returns the data set's folder in ``root``, after composing it if necessary. An interrupted call is resumed.

    Frames and sounds that are missing or damaged are made again. If several processes call this, one composes the data
    set and the others wait.

    Raises:
        ValueError: if the folder exists with another description, for example with other ``media``.
        OSError, ValueError: if ``soundfont`` can't be used; before anything is made.
    """
    if description.soundfont:
        open_source(None, description.soundfont.path)
    root.mkdir(parents=True, exist_ok=True)
    target = root / description.folder
    with FileLock(root / f".{description.folder}.lock"):
        if target.exists():
            _check_description(target, description)
            damaged = [job for job in _jobs(description) if not _is_whole(job, target)]
            if damaged:
                log.warning("Making %d missing or damaged scenes of %s again", len(damaged), target)
                _compose_clips(damaged, target, description)
        else:
            _compose_all(root / f".{description.folder}.partial", description).replace(target)
            log.info("Composed %d scenes in %s", 2 * (description.train + description.test), target)
    return target


def _check_description(folder: Path, description: Description) -> None:
    recorded = read_json(folder / "dataset.json")
    if recorded != description.as_json():
        raise ValueError(
            f"Expected {folder} to hold the data set {description.as_json()}, but it holds {recorded}. Move it away."
        )


def _compose_all(folder: Path, description: Description) -> Path:
    if (folder / "dataset.json").exists():
        _check_description(folder, description)
    for part in ("frames", "audio", "metadata"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for temporary in folder.glob("*/.*.partial.*"):  # left by a killed process
        temporary.unlink(missing_ok=True)
    write_json(folder / "dataset.json", description.as_json())
    _write_metadata(folder / "metadata", _compose_clips(list(_jobs(description)), folder, description))
    return folder


def _compose_clips(jobs: Sequence[Job], folder: Path, description: Description) -> list[dict[str, Any]]:
    compose = partial(_compose, folder=folder, description=description)
    return pool.run_all(compose, jobs, pool.cores(), title=f"composing {description.folder}", unit="scene")


def _jobs(description: Description) -> Iterator[Job]:
    for split, count in (("train", description.train), ("test", description.test)):
        for subset in SUBSETS:
            for index in range(count):
                yield split, subset, index


def _clip_name(job: Job) -> str:
    split, subset, index = job
    # The prefix is part of the file format: ids of existing data sets must not change.
    return f"emb{2 * (split == 'test') + SUBSETS[subset] - 1}{index:07d}_000_00000"


def _files(name: str, folder: Path) -> tuple[Path, Path]:
    """The frame and the sound of a clip."""
    return folder / "frames" / f"{name}.jpg", folder / "audio" / f"{name}.wav"


def _is_whole(job: Job, folder: Path) -> bool:
    frame, audio = _files(_clip_name(job), folder)
    return is_whole_frame(frame) and is_whole_sound(audio)


def _compose(job: Job, *, folder: Path, description: Description) -> dict[str, Any]:
    """Writes the missing and damaged files of one scene, frame and audio; returns its entry for the metadata."""
    split, subset, index = job
    held_out, sources, name = split == "test", SUBSETS[subset], _clip_name(job)
    rng = np.random.default_rng([description.seed, held_out, sources, index])
    source = open_source(description.media, description.soundfont.path if description.soundfont else None)
    scene = sample_scene(rng, source.vocabulary, sources)
    frame, audio = _files(name, folder)
    frame_rng, audio_rng = rng.spawn(2)
    if not is_whole_frame(frame):
        write_frame(frame, render_frame(scene, source, frame_rng, description.side, held_out), quality=90)
    if not is_whole_sound(audio):
        write_sound(audio, render_audio(scene, source, audio_rng, held_out))
    return {"id": name, "split": split, "subset": subset, "scene": scene, "captions": captions(scene, source)}


def _write_metadata(folder: Path, entries: list[dict[str, Any]]) -> None:
    """Writes lists, annotations and captions, in the public file formats."""
    _write_music(folder, entries)
    _write_vggsound(folder, entries)
    silent_objects = {
        entry["id"]: [{"class": o.name, "bbox": list(o.box)} for o in entry["scene"].silent]
        for entry in entries
        if entry["split"] == "test"
    }
    write_json(folder / "silent_objects.json", silent_objects)
    _write_lines(folder / "captions.jsonl", (json.dumps({"id": e["id"], **e["captions"]}) for e in entries))


def _write_music(folder: Path, entries: list[dict[str, Any]]) -> None:
    def solo(name: str, scene: Scene) -> dict[str, Any]:
        return {"file": name, "class": scene.sounding[0].name, "bbox": list(scene.sounding[0].box)}

    def duet(name: str, scene: Scene) -> dict[str, Any]:
        entry: dict[str, Any] = {"file": name}
        for number, source in enumerate(scene.sounding, 1):
            entry |= {f"class_src{number}": source.name, f"bbox_src{number}": list(source.box)}
        return entry

    for subset in SUBSETS:
        _write_lines(folder / f"music_{subset}_train.txt", _select(entries, "train", subset, _with_classes))
    _write_lines(folder / "music_solo_test.csv", _select(entries, "test", "solo", _with_classes))
    _write_lines(folder / "music_duet_test.csv", _select(entries, "test", "duet", lambda name, _: name))
    write_json(folder / "music_solo.json", _select(entries, "test", "solo", solo))
    write_json(folder / "music_duet.json", _select(entries, "test", "duet", duet))


def _write_vggsound(folder: Path, entries: list[dict[str, Any]]) -> None:
    """Writes VGGSound's files, which use the solo scenes only: mixtures place several of them side by side."""

    def boxes(name: str, scene: Scene) -> dict[str, Any]:
        x, y, w, h = scene.sounding[0].box
        return {"file": name, "class": scene.sounding[0].name, "bbox": [[x, y, x + w, y + h]]}

    _write_lines(folder / "vggsound_train.csv", _select(entries, "train", "solo", _with_classes))
    _write_lines(folder / "vggsound_single_test.csv", _select(entries, "test", "solo", _with_classes))
    write_json(folder / "vggss.json", _select(entries, "test", "solo", boxes))
    labels = dict(_select(entries, "test", "solo", lambda name, scene: (name, scene.sounding[0].name)))
    for subset, size in (("duet", 2), ("trio", 3)):
        mixtures = (",".join(f"{clip},{labels[clip]}" for clip in mixture) for mixture in _mixtures(labels, size))
        _write_lines(folder / f"vggsound_{subset}_test.csv", mixtures)


def _select(entries: list[dict[str, Any]], split: str, subset: str, convert: Callable[[str, Scene], Any]) -> list[Any]:
    """Converts the id and the scene of each entry of a split and subset."""
    return [convert(e["id"], e["scene"]) for e in entries if (e["split"], e["subset"]) == (split, subset)]


def _with_classes(name: str, scene: Scene) -> str:
    return ",".join([name, *(source.name for source in scene.sounding)])


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    write_text(path, "\n".join(lines) + "\n")


def _mixtures(labels: dict[str, str], size: int) -> Iterator[list[str]]:
    """Yields for every clip a mixture with the next clips of other classes, if there are enough classes."""
    clips = list(labels)
    for first, clip in enumerate(clips):
        mixture = {labels[clip]: clip}
        for other in clips[first + 1 :] + clips[:first]:
            mixture.setdefault(labels[other], other)
            if len(mixture) == size:
                yield list(mixture.values())
                break
