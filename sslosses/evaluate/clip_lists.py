"""Which clips are scored: the public lists by name, and what identifies a set of clips."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sslosses.annotations import lists
from sslosses.annotations.text_files import lines_of
from sslosses.evaluate.errors import CommandError

OWN = "a list of your own"
_DIGITS = 12  # of a hash in a table


class Identity(NamedTuple):
    """What identifies the scored clips."""

    ids: tuple[str, ...]
    recognized: lists.ClipList | None  #: the public list of exactly these clips
    wanted: lists.ClipList | None  #: the list that was asked for by name

    @property
    def name(self) -> str:
        """Name of the public list of exactly these clips, or that it is none."""
        return self.recognized.name if self.recognized else OWN

    @property
    def digest(self) -> str:
        """Hash of the ids."""
        return lists.digest(self.ids)

    def __str__(self) -> str:
        """A sentence, such as "Clips: the list vggss-5158 (5,158 clips, SHA-256 of the ids 8acc0c933678…)"."""
        if self.recognized:
            text = f"the list {self.name}"
        elif self.wanted:
            text = f"{len(self.ids):,} of the {self.wanted.count:,} of the list {self.wanted.name}"
        else:
            text = OWN
        return f"Clips: {text} ({len(self.ids):,} clips, SHA-256 of the ids {self.digest[:_DIGITS]}…)"

    def to_dict(self) -> dict[str, Any]:
        """Returns the name, the number and the full hash of the scored clips."""
        content: dict[str, Any] = {"name": self.name, "clips": len(self.ids), "sha256": self.digest}
        if self.recognized:
            content["sources"] = [source._asdict() for source in self.recognized.sources]
        if self.wanted:
            content["wanted"] = {"name": self.wanted.name, "clips": self.wanted.count, "sha256": self.wanted.digest}
        return content


def identify(ids: Sequence[str], wanted: str | None) -> Identity:
    """Identifies the scored clips, given the name of the list that was asked for."""
    return Identity(tuple(ids), lists.recognize(ids), None if wanted is None else lists.get(wanted))


def named_ids(name: str) -> tuple[str, ...]:
    """Returns the ids of a public test list.

    Raises:
        CommandError: if there is no such list, it lists training clips, or its ids are not in the package.
    """
    try:
        entry = lists.get(name)
        if entry.part != "test":
            raise CommandError(f"Expected --list to be a list of test clips, but {name} lists training clips")
        return entry.ids
    except ValueError as error:
        raise CommandError(f"--list: {error}") from error


def listed_ids(path: Path, known: Collection[str]) -> list[str]:
    """Reads the ids of the clips to score from a file, see :func:`~sslosses.annotations.lists.read_ids`.

    Ids that are all ``known`` are taken as they are, even if they end like the name of a picture.

    Raises:
        AnnotationError: if the file cannot be read, or an id is in it twice.
    """
    ids = [line.partition(",")[0].strip() for line in lines_of(path) if line.strip()]
    whole = ids and len(set(ids)) == len(ids) and all(clip in known for clip in ids)
    return ids if whole else list(lists.read_ids(path))
