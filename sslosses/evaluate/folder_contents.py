"""What a folder or an archive of maps holds, in words: which files are maps, and which are something else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

_SUFFIXES = (".npy", ".npz")
#: First bytes of files that are often saved in place of an NPZ.
_MAGIC = {
    b"\x93NUMPY": "a single NPY array",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x89HDF": "an HDF5 file",
    b"MATLAB": "a MATLAB file",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x80": "a pickle, perhaps of torch.save",
}


class Contents(NamedTuple):
    """Names that are maps, and how many of every other kind there are."""

    maps: list[str]
    others: Counter[str]

    @property
    def has_others(self) -> bool:
        """Whether there is something besides maps and hidden files."""
        return any(kind != _HIDDEN for kind in self.others)

    def __str__(self) -> str:
        """The other files in words, such as "7 .png files and 1 folder"."""
        kinds = [f"{count:,} {kind}{'s' if count > 1 else ''}" for kind, count in sorted(self.others.items())]
        return " and ".join([", ".join(kinds[:-1]), kinds[-1]] if len(kinds) > 1 else kinds)


_HIDDEN = "hidden file"


def of_folder(path: Path) -> Contents:
    """Sorts the names in a folder. Hidden files, such as the ``._<name>`` of macOS, are no maps."""
    names = sorted(file.name + ("/" if file.is_dir() else "") for file in path.iterdir())
    return _sorted_out(names, _SUFFIXES)


def of_archive(names: Sequence[str]) -> Contents:
    """Sorts the names of an archive's members; only arrays are maps there."""
    return _sorted_out(names, (".npy",))


def _sorted_out(names: Sequence[str], suffixes: tuple[str, ...]) -> Contents:
    contents = Contents([], Counter())
    for name in names:
        kind = _kind(name)
        if kind in suffixes:
            contents.maps.append(name)
        else:
            contents.others[f"{kind} file" if kind.startswith(".") else kind] += 1
    return contents


def _kind(name: str) -> str:
    """The suffix of a name in lower case, or what it is in words."""
    last = name.rstrip("/").rpartition("/")[2]
    if name.startswith("__MACOSX/") or (last.startswith(".") and last not in (".", "..")):
        return _HIDDEN
    if name.endswith("/"):
        return "folder"
    return PurePosixPath(last).suffix.lower() or "file without a suffix"


def kind_of_file(path: Path) -> str:
    """What a file that is no archive is, by its first bytes."""
    if not path.is_file():  # a pipe or device may never end
        return "no file"
    with path.open("rb") as stream:
        start = stream.read(262)
    if start[257:262] == b"ustar":
        return "a tar archive"
    return next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), "another file")
