"""What every data folder holds: clips with captions for training, scenes with boxes for tests."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Clip:
    """One entry of a split list with its captions; test clips have no captions."""

    name: str
    classes: tuple[str, ...]
    foreground: tuple[str, ...] = ()
    background: str = ""


class Pool(NamedTuple):
    """Clips that training draws its scenes from, ``size`` of them side by side in one scene, their sounds mixed."""

    clips: list[Clip]
    size: int


class ListedScenes(NamedTuple):
    """The test scenes of a subset: of each, indices of its clips, and for each source its boxes as fractional corners.

    With one clip in a scene all sources are in its frame; else source j is in the frame of clip j.
    """

    clips: list[Clip]
    scenes: list[tuple[int, ...]]
    boxes: list[tuple[tuple[Box, ...], ...]]


class ClipFolder(ABC):
    """A prepared data folder: ``frames/<id>.jpg``, ``audio/<id>.wav`` and public lists in ``metadata/``.

    Raises:
        FileNotFoundError: if a folder or list is missing; the text shows the layout.
    """

    #: The lists that the folder is expected to hold, in words.
    lists: str

    def __init__(self, root: Path) -> None:
        self.root = root
        missing = [f for f in ("frames", "audio", "metadata") if not (root / f).is_dir()]
        if missing:
            raise FileNotFoundError(
                f"Expected `data_root` to hold the folders frames/ (<id>.jpg), audio/ (<id>.wav) and metadata/ "
                f"({self.lists}, captions.jsonl), but {root.resolve()} lacks {', '.join(f + '/' for f in missing)}"
            )

    @abstractmethod
    def training_pool(self, subset: str) -> Pool:
        """What training on ``subset`` draws from, with captions.

        Raises:
            ValueError: naming the first clip without captions, or with another number of foreground captions than
                sources.
        """

    @abstractmethod
    def test_scenes(self, subset: str) -> ListedScenes:
        """The test scenes of ``subset``.

        Raises:
            ValueError: naming the first clip without boxes.
        """

    @property
    def silent_objects(self) -> Path:
        """Boxes of silent objects; only composed data have them."""
        return self.root / "metadata" / "silent_objects.json"

    def listed(self, name: str) -> Path:
        path = self.root / "metadata" / name
        if not path.is_file():
            raise FileNotFoundError(f"Expected {path.resolve()}, one of the public lists, but there is no such file")
        return path

    def with_captions(self, listed: Iterable[tuple[str, tuple[str, ...]]], list_name: str) -> list[Clip]:
        """Clips of ids and classes, each with its captions."""
        path = self.root / "metadata" / "captions.jsonl"
        make = f"python examples/generate_captions.py --data-root {self.root}"
        if not path.is_file():
            raise FileNotFoundError(f"Expected {path.resolve()}, but there is no such file. Make it: {make}")
        captions = dict(read_captions(path))
        clips = []
        for name, classes in listed:
            if name not in captions:
                raise ValueError(f"Clip {name!r} of {list_name} has no line in captions.jsonl. Make it: {make}")
            foreground, background = captions[name]
            if len(foreground) != len(classes):
                raise ValueError(
                    f"Expected {len(classes)} foreground captions for clip {name!r} ({', '.join(classes)}), "
                    f"but captions.jsonl has {len(foreground)}"
                )
            clips.append(Clip(name, classes, foreground, background))
        return clips


def read_captions(path: Path) -> Iterator[tuple[str, tuple[tuple[str, ...], str]]]:
    """``{"id": …, "foreground": […], "background": "…"}`` a line; a single foreground may be a bare string."""
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                foreground = entry["foreground"]
                texts = (foreground,) if isinstance(foreground, str) else tuple(foreground)
                if not all(isinstance(t, str) for t in (*texts, entry["background"])):
                    raise TypeError("captions are strings")
                yield str(entry["id"]), (texts, entry["background"])
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f'Expected {{"id", "foreground": [...], "background"}} in line {number} of {path}, but got '
                    f"{line.strip()[:80]!r} ({error})"
                ) from error


def all_captions(clips: Sequence[Clip]) -> Iterator[str]:
    """Every caption of ``clips``."""
    for clip in clips:
        yield from clip.foreground
        yield clip.background
