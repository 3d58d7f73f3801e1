"""The composed dataset: composed scenes as real files in the layouts of MUSIC and VGGSound, all from one seed."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from filelock import FileLock
from tqdm import tqdm

from ...constants import SAMPLE_RATE
from ...files import atomic_write, read_json, write_json, write_text
from .arrangement import Scene, sample_scene
from .composer import DrawnSource, ObjectSource, captions, render_audio, render_frame
from .media import MediaSource

log = logging.getLogger(__name__)

FORMAT = 2  # raised when the same description no longer gives the same files
SUBSETS = {"solo": 1, "duet": 2}


@dataclass(frozen=True)
class Description:
    """All that the composed dataset depends on."""

    seed: int = 0
    train: int = 800
    test: int = 200
    side: int = 224
    media: str | None = None

    @property
    def folder(self) -> str:
        """The name of the dataset's folder."""
        return f"{'media' if self.media else 'drawn'}-seed{self.seed}-{self.train}-{self.test}"

    def as_json(self) -> dict[str, Any]:
        """What the dataset's folder says of itself."""
        return {"format": FORMAT, **asdict(self)}


@cache
def open_source(media: str | None) -> ObjectSource:
    """Photographs and recordings below ``media``, or the drawn instruments."""
    return MediaSource(Path(media)) if media else DrawnSource()


def ensure_composed(root: Path, description: Description) -> Path:
    """The dataset's folder below ``root``; composed now if it is not there, going on where an earlier call stopped.

    Of several processes that want it, one composes it and the others wait.

    Raises:
        ValueError: if the folder exists with another description, as after a change of ``media``.
    """
    root.mkdir(parents=True, exist_ok=True)
    target = root / description.folder
    with FileLock(root / f".{description.folder}.lock"):
        if target.exists():
            _check_description(target, description)
        else:
            _compose_all(root / f".{description.folder}.partial", description).replace(target)
            log.info("composed %d scenes in %s", 2 * (description.train + description.test), target)
    return target


def _check_description(folder: Path, description: Description) -> None:
    found = read_json(folder / "dataset.json")
    if found != description.as_json():
        raise ValueError(
            f"Expected {folder} to hold the dataset {description.as_json()}, but it holds {found}. Move it away."
        )


def _compose_all(folder: Path, description: Description) -> Path:
    if (folder / "dataset.json").exists():
        _check_description(folder, description)
    for part in ("frames", "audio", "metadata"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for half_written in folder.glob("*/.*.partial.*"):  # left by a killed process
        half_written.unlink()
    write_json(folder / "dataset.json", description.as_json())
    jobs = list(_jobs(description))
    lines: dict[str, dict[str, Any]] = {}
    compose = partial(_compose, folder=folder, description=description)
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        done = pool.map(compose, jobs, chunksize=16)
        for line in tqdm(done, total=len(jobs), desc=f"composing {description.folder}", unit="scene"):
            lines[line["id"]] = line
    _write_metadata(folder / "metadata", lines)
    return folder


def _jobs(description: Description) -> Iterator[tuple[str, str, int]]:
    for split, count in (("train", description.train), ("test", description.test)):
        for subset in SUBSETS:
            for index in range(count):
                yield split, subset, index


def _compose(job: tuple[str, str, int], *, folder: Path, description: Description) -> dict[str, Any]:
    """Write one scene's frame and audio, unless they are there, and return what the metadata says of it."""
    split, subset, index = job
    held_out, sources = split == "test", SUBSETS[subset]
    name = f"emb{2 * held_out + sources - 1}{index:07d}_000_00000"
    rng = np.random.default_rng([description.seed, held_out, sources, index])
    source = open_source(description.media)
    scene = sample_scene(rng, source.vocabulary, sources)
    frame, audio = folder / "frames" / f"{name}.jpg", folder / "audio" / f"{name}.wav"
    for_frame, for_audio = rng.spawn(2)
    if not frame.exists():
        with atomic_write(frame) as temporary:
            render_frame(scene, source, for_frame, description.side, held_out).save(temporary, quality=90)
    if not audio.exists():
        with atomic_write(audio) as temporary:
            soundfile.write(temporary, render_audio(scene, source, for_audio, held_out), SAMPLE_RATE, subtype="PCM_16")
    return {"id": name, "split": split, "subset": subset, "scene": scene, "captions": captions(scene, source)}


def _write_metadata(folder: Path, lines: dict[str, dict[str, Any]]) -> None:
    """The split lists and annotation files, each in the form of the public one, and the captions.

    VGGSound's lists name the scenes with one sound: its mixtures put several of them side by side.
    """

    def select(split: str, subset: str, form: Callable[[str, Scene], Any]) -> list[Any]:
        chosen = [v for v in lines.values() if (v["split"], v["subset"]) == (split, subset)]
        return [form(v["id"], v["scene"]) for v in chosen]

    def with_classes(name: str, scene: Scene) -> str:
        return ",".join([name, *(o.name for o in scene.sounding)])

    def solo(name: str, scene: Scene) -> dict[str, Any]:
        return {"file": name, "class": scene.sounding[0].name, "bbox": list(scene.sounding[0].box)}

    def duet(name: str, scene: Scene) -> dict[str, Any]:
        parts = ((f"class_src{i}", f"bbox_src{i}", o) for i, o in enumerate(scene.sounding, 1))
        return {"file": name} | {k: v for c, b, o in parts for k, v in ((c, o.name), (b, list(o.box)))}

    def boxed(name: str, scene: Scene) -> dict[str, Any]:
        x, y, w, h = scene.sounding[0].box
        return {"file": name, "class": scene.sounding[0].name, "bbox": [[x, y, x + w, y + h]]}

    for subset in SUBSETS:
        write_text(folder / f"music_{subset}_train.txt", "\n".join(select("train", subset, with_classes)) + "\n")
    write_text(folder / "music_solo_test.csv", "\n".join(select("test", "solo", with_classes)) + "\n")
    write_text(folder / "music_duet_test.csv", "\n".join(select("test", "duet", lambda name, _: name)) + "\n")
    write_json(folder / "music_solo.json", select("test", "solo", solo))
    write_json(folder / "music_duet.json", select("test", "duet", duet))
    write_text(folder / "vggsound_train.csv", "\n".join(select("train", "solo", with_classes)) + "\n")
    write_text(folder / "vggsound_single_test.csv", "\n".join(select("test", "solo", with_classes)) + "\n")
    write_json(folder / "vggss.json", select("test", "solo", boxed))
    labels = dict(select("test", "solo", lambda name, scene: (name, scene.sounding[0].name)))
    for subset, size in (("duet", 2), ("trio", 3)):
        mixtures = (",".join(f"{clip},{labels[clip]}" for clip in mixture) for mixture in _mixtures(labels, size))
        write_text(folder / f"vggsound_{subset}_test.csv", "\n".join(mixtures) + "\n")
    write_json(
        folder / "silent_objects.json",
        {
            v["id"]: [{"class": o.name, "bbox": list(o.box)} for o in v["scene"].silent]
            for v in lines.values()
            if v["split"] == "test"
        },
    )
    write_text(
        folder / "captions.jsonl", "".join(json.dumps({"id": v["id"], **v["captions"]}) + "\n" for v in lines.values())
    )


def _mixtures(labels: dict[str, str], size: int) -> Iterator[list[str]]:
    """Every clip with the next ones of other classes, as many as there are."""
    clips = list(labels)
    for first, clip in enumerate(clips):
        mixture = {labels[clip]: clip}
        for other in clips[first + 1 :] + clips[:first]:
            mixture.setdefault(labels[other], other)
            if len(mixture) == size:
                yield list(mixture.values())
                break
