"""The public lists of test and training clips: their names, counts, sources and hashes, and how files of ids are read.

Test sets and training lists of one name differ between papers. A hash of the ids says which one a list is.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from sslosses._checks import check_option
from sslosses.annotations._text import check_clip, shown
from sslosses.annotations.records import AnnotationError
from sslosses.annotations.text_files import lines_of

__all__ = ["ClipList", "Source", "available", "digest", "get", "read_ids", "recognize"]

_DATA = resources.files("sslosses.annotations").joinpath("clip_lists")
_HEADERS = ("video", "file", "id", "clip", "ytid", "youtube_id")
_MEDIA = re.compile(r"\.(jpe?g|png|mp4|webm|mkv|wav|flac|mp3)$", re.IGNORECASE)
_PARTS = ("train", "test")


class Source(NamedTuple):
    """Where a list was published."""

    repository: str  #: on GitHub
    commit: str  #: the commit that was read; empty if the file was not read
    license: str  #: SPDX expression of the repository; empty if it has none
    file: str


@dataclass(frozen=True)
class ClipList:
    """A public list of clips.

    Args:
        name: its name here, such as ``"vggss-5158"``.
        data: the data set.
        part: ``"test"`` or ``"training"``.
        count: number of clips.
        digest: :func:`digest` of the ids; None if the ids are not known.
        sources: files with exactly these ids.
        shipped: whether the package holds the ids.
        note: what a reader has to know; may be empty.
    """

    name: str
    data: str
    part: str
    count: int
    digest: str | None
    sources: tuple[Source, ...]
    shipped: bool
    note: str = ""

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids in sorted order, as hashes do not depend on the order.

        Raises:
            ValueError: if the package does not hold them. Training lists are long and come with the code of a paper,
                and a list without a license may not be shipped.
        """
        if not self.shipped:
            files = " or ".join(f"{source.file} of github.com/{source.repository}" for source in self.sources)
            raise ValueError(f"Expected a list whose ids are in the package, but {self.name} is not. It is {files}")
        rows = (line.split(" ") for line in _shipped_lines())
        return tuple(clip for clip, *names in rows if self.name in names)


def available(part: str | None = None) -> list[str]:
    """Returns the names of all lists, or of the ``"test"`` or ``"training"`` lists.

    Raises:
        ValueError: if ``part`` is neither.

    Example:
        >>> from sslosses.annotations import lists
        >>> [name for name in lists.available("test") if name.startswith("vggss-heard")]
        ['vggss-heard-2425', 'vggss-heard-2564']
    """
    if part is not None:
        check_option("part", part, ("test", "training"))
    return [name for name, entry in _registry().items() if part in (None, entry.part)]


def get(name: str) -> ClipList:
    """Returns a public list by its name.

    Raises:
        ValueError: if there is no list of this name.

    Example:
        >>> from sslosses.annotations import lists
        >>> flickr = lists.get("flickr-249")
        >>> flickr.count, flickr.digest[:12], flickr.ids[:2]
        (249, '09c34846bd90', ('10000130166', '10007936344'))
        >>> set(lists.get("flickr-250").ids) - set(flickr.ids)
        {'3908875350'}
    """
    registry = _registry()
    check_option("name", name, tuple(registry))
    return registry[name]


def digest(ids: Iterable[str]) -> str:
    """Computes the hash of a set of ids: SHA-256 of the sorted ids, joined by newlines, in UTF-8, as 64 hex digits.

    Raises:
        TypeError: if ``ids`` is one string.
        ValueError: if an id occurs twice.

    Example:
        >>> from sslosses.annotations import lists
        >>> lists.digest(["b", "a"]) == lists.digest(["a", "b"])
        True
    """
    if isinstance(ids, str):
        raise TypeError(f"Expected `ids` to be several ids, but got the string {shown(ids)}")
    ids = list(ids)
    if twice := _repeated(ids):
        raise ValueError(f"Expected `ids` to hold each id once, but got {shown(twice)} more than once")
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def recognize(ids: Iterable[str]) -> ClipList | None:
    """Returns the public list of exactly these ids, in any order; None for any other list.

    Raises:
        TypeError: as for :func:`digest`.
        ValueError: as for :func:`digest`.

    Example:
        >>> from sslosses.annotations import lists
        >>> ids = lists.get("vggss-heard-2564").ids
        >>> lists.recognize(reversed(ids)).name
        'vggss-heard-2564'
        >>> print(lists.recognize(ids[1:]))
        None
    """
    wanted = digest(ids)
    return next((entry for entry in _registry().values() if entry.digest == wanted), None)


def read_ids(path: str | PathLike[str], part: str | None = None) -> tuple[str, ...]:
    """Reads the ids of a list in any of the published forms.

    There is one clip per line: an id, or comma-separated columns with the id first. A folder before the id and the
    suffix of a picture, video or sound after it are left out. A first line that names the columns, such as ``video,…``,
    is skipped. Lines ``video,second,class,train`` or ``…,test``, the form of ``vggsound.csv``, give the id
    ``<video>_<second>`` with six digits.

    Args:
        path: the file.
        part: for the form of ``vggsound.csv``: read only the rows marked ``"train"`` or ``"test"``. Lists of other
            forms are read whole.

    Returns:
        The ids in the order of the file.

    Raises:
        FileNotFoundError: if the file does not exist.
        AnnotationError: if an id can't be a file name or occurs twice, or if the file lists none; the message names the
            file and the line.
        ValueError: if ``part`` is not one of the two.

    Example:
        >>> import pathlib, tempfile
        >>> from sslosses.annotations import lists
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "list.csv"
        >>> _ = path.write_text("video,label\\nzpWuikVorYg_000032.jpg,elk bugling\\n")
        >>> lists.read_ids(path)
        ('zpWuikVorYg_000032',)
    """
    if part is not None:
        check_option("part", part, _PARTS)
    path = Path(path)
    first: dict[str, int] = {}
    for number, line in enumerate(lines_of(path), 1):
        columns = [column.strip() for column in line.split(",")]
        if not line.strip() or (number == 1 and columns[0].lower() in _HEADERS):
            continue
        clip = _MEDIA.sub("", columns[0].rpartition("/")[2])
        if len(columns) >= 4 and columns[-1] in _PARTS and re.fullmatch("[0-9]{1,6}", columns[1]):
            if part not in (None, columns[-1]):
                continue
            clip = f"{clip}_{int(columns[1]):06d}"
        check_clip(f"{path}: line {number}: expected the id", clip)
        if first.setdefault(clip, number) != number:
            raise AnnotationError(
                f"{path}: line {number}: expected each clip once, but {clip!r} is in line {first[clip]} too"
            )
    if not first:
        raise AnnotationError(f"{path}: expected at least one clip, but the file lists none")
    return tuple(first)


def _registry() -> dict[str, ClipList]:
    entries = json.loads(_DATA.joinpath("registry.json").read_text(encoding="utf-8"))
    return {
        name: ClipList(name, **{**entry, "sources": tuple(Source(*source) for source in entry["sources"])})
        for name, entry in entries.items()
    }


def _shipped_lines() -> list[str]:
    """One line per clip: its id and the names of the shipped lists that hold it."""
    return gzip.decompress(_DATA.joinpath("ids.txt.gz").read_bytes()).decode().splitlines()


def _repeated(ids: list[str]) -> str | None:
    return next((clip for clip, count in Counter(ids).items() if count > 1), None) if len(set(ids)) < len(ids) else None
