"""Data folders: clips with captions for training, scenes with boxes for testing."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

from ..files import parse_object
from .kinds import hint_for_missing_list

#: left, top, right and bottom in fractions of the frame.
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip of a split list with its captions. Test clips have none. The background may be missing."""

    name: str
    classes: tuple[str, ...]
    foreground: tuple[str, ...] = ()
    background: str | None = None


class Pool(NamedTuple):
    """Clips to draw training scenes from. A scene has ``size`` clips: frames side by side, sounds mixed."""

    clips: list[Clip]
    size: int


class ListedScenes(NamedTuple):
    """The test scenes of a subset.

    ``scenes`` has the indices of each scene's clips, ``boxes`` each scene's boxes per source. In a scene of one clip,
    all sources are in its frame; otherwise source j is in the frame of clip j.
    """

    clips: list[Clip]
    scenes: list[tuple[int, ...]]
    boxes: list[tuple[tuple[Box, ...], ...]]


class ClipFolder(ABC):
    """A prepared data folder: ``frames/<id>.jpg``, ``audio/<id>.wav`` and public lists in ``metadata/``.

    Raises:
        FileNotFoundError: if a folder or list is missing; the message shows the layout.
    """

    #: The lists that the folder must contain, as text for messages.
    lists: str

    def __init__(self, root: Path) -> None:
        self.root = root
        missing = [f for f in ("frames", "audio", "metadata") if not (root / f).is_dir()]
        if missing:
            raise FileNotFoundError(
                f"Expected `data_root` to hold the folders frames/ (<id>.jpg), audio/ (<id>.wav) and metadata/ "
                f"({self.lists}, captions.jsonl), but {root.resolve()} lacks {', '.join(f + '/' for f in missing)}"
            )

    #: Number of clips per scene, by subset; 1 for subsets that are not named.
    clips_per_scene: Mapping[str, int] = {}

    #: Whether the classes of the clips are known.
    has_classes: ClassVar[bool] = True

    #: Whether the boxes of a source are those of several annotators of one object.
    several_annotators: ClassVar[bool] = False

    @abstractmethod
    def files(self, subset: str) -> tuple[str, ...]:
        """Names of the files in ``metadata/`` that training on ``subset`` needs."""

    def check_files(self, subsets: Iterable[str], *, captions: bool) -> None:
        """Checks that all lists exist and, if they are needed, captions. Reads none of them.

        Raises:
            FileNotFoundError: naming the first file that is missing, with the command that makes it.
        """
        for name in dict.fromkeys(name for subset in subsets for name in self.files(subset)):
            self.listed(name)
        if captions:
            _ = self.captions

    @abstractmethod
    def training_list(self, subset: str) -> tuple[str, list[tuple[str, tuple[str, ...]]]]:
        """The name of the training list of ``subset``, and the ids and classes of its clips."""

    def training_pool(self, subset: str, *, captions: bool = True) -> Pool:
        """The clips to train on for ``subset``, with captions unless they are not needed.

        Raises:
            ValueError: naming the first clip without captions, or whose number of foreground captions differs from its
                number of sources.
        """
        name, listed = self.training_list(subset)
        clips = self.with_captions(listed, name) if captions else [Clip(*entry) for entry in listed]
        return Pool(clips, self.clips_per_scene.get(subset, 1))

    @abstractmethod
    def test_scenes(self, subset: str) -> ListedScenes:
        """The test scenes of ``subset``.

        Raises:
            ValueError: naming the first clip without boxes.
        """

    @property
    def silent_objects(self) -> Path:
        """The file with boxes of silent objects, which only composed data have."""
        return self.root / "metadata" / "silent_objects.json"

    def listed(self, name: str) -> Path:
        """The path of a list in ``metadata/``.

        Raises:
            FileNotFoundError: if it does not exist.
        """
        path = self.root / "metadata" / name
        if not path.is_file():
            raise FileNotFoundError(
                f"Expected {path.resolve()}, one of the public lists, but there is no such file. "
                f"{hint_for_missing_list(self.root, name)}"
            )
        return path

    @property
    def captions(self) -> Path:
        """The file of captions.

        Raises:
            FileNotFoundError: if it does not exist; the message has the command that makes it.
        """
        path = self.root / "metadata" / "captions.jsonl"
        if not path.is_file():
            raise FileNotFoundError(
                f"Expected {path.resolve()}, but there is no such file. Create it with: {self._captions_command}"
            )
        return path

    @property
    def _captions_command(self) -> str:
        return f"python examples/generate_captions.py --model NAME --data-root {shlex.quote(str(self.root))}"

    def with_captions(self, listed: Iterable[tuple[str, tuple[str, ...]]], list_name: str) -> list[Clip]:
        """The clips with these ids and classes, and their captions.

        Raises:
            FileNotFoundError: if there is no captions.jsonl.
            ValueError: as :meth:`training_pool`.
        """
        captions = dict(read_captions(self.captions))
        clips = []
        for name, classes in listed:
            if name not in captions:
                raise ValueError(
                    f"Clip {name!r} of {list_name} has no line in captions.jsonl. "
                    f"Create it with: {self._captions_command}"
                )
            foreground, background = captions[name]
            if len(foreground) != len(classes):
                raise ValueError(
                    f"Expected {len(classes)} foreground captions for clip {name!r} ({', '.join(classes)}), "
                    f"but captions.jsonl has {len(foreground)}"
                )
            clips.append(Clip(name, classes, foreground, background))
        return clips


def read_captions(path: Path, *, whole_lines: bool = False) -> Iterator[tuple[str, tuple[tuple[str, ...], str | None]]]:
    """Reads captions, with ``{"id": …, "foreground": […], "background": "…"}`` per line.

    A single foreground caption may be a string instead of a list. ``background`` may be null or missing.

    Args:
        path: the file.
        whole_lines: ignore an incomplete last line, as a killed run leaves it.

    Raises:
        ValueError: naming the first line that is malformed or repeats a clip.
    """
    first: dict[str, int] = {}
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if whole_lines and not line.endswith(b"\n"):
                return
            name, foreground, background = parse_captions(line, f"line {number} of {path}")
            if first.setdefault(name, number) != number:
                raise ValueError(
                    f"Expected each clip once, but {name!r} of line {number} of {path} is also in line {first[name]}"
                )
            yield name, (foreground, background)


def parse_captions(line: bytes, where: str) -> tuple[str, tuple[str, ...], str | None]:
    """Id, foreground captions and background caption, if any, of a line.

    Raises:
        ValueError: if the line is malformed; ``where`` describes its place in the message.
    """
    entry = parse_object(line)
    name, foreground, background = (entry.get(key) for key in ("id", "foreground", "background"))
    foreground = [foreground] if isinstance(foreground, str) else foreground
    texts = [name, *(foreground if isinstance(foreground, list) else [None])]
    texts += [] if background is None else [background]
    if not all(isinstance(text, str) and _is_text(text) for text in texts):
        raise ValueError(
            f'Expected {{"id", "foreground": [...], "background"}} (a background may be null) in {where}, but got '
            f"{line.strip()[:80].decode(errors='replace')!r}"
        )
    return name, tuple(foreground), background


def _is_text(text: str) -> bool:
    """Whether ``text`` can be encoded: JSON may contain half of a surrogate pair, which no encoding allows."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def all_captions(clips: Sequence[Clip]) -> Iterator[str]:
    """Yields every caption of ``clips``."""
    for clip in clips:
        yield from clip.foreground
        if clip.background is not None:
            yield clip.background
