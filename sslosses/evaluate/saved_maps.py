"""Reads saved heatmaps from a folder of arrays or from one NPZ file."""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
import torch
from torch import Tensor

from sslosses.evaluate.errors import CommandError, named
from sslosses.evaluate.folder_contents import Contents, kind_of_file, of_archive, of_folder

_MOST_BYTES = 1 << 28  # maps of one clip: two of 4096² in float64
_HEADER = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class SavedMaps:
    """Heatmaps by clip id: ``<clip>.npy`` and ``<clip>.npz`` (one array each) in a folder, or the arrays of one NPZ.

    Only the maps of one clip are in memory at a time. Nothing is unpickled. An array is not read if its header claims
    more than 256 MiB, or more than its file holds.

    Hidden files are skipped, and suffixes may be in upper case.

    Args:
        path: the folder or NPZ file.

    Raises:
        CommandError: if there is neither, there are other files only, or a clip has more than one array.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._archive: zipfile.ZipFile | None = None
        #: Names in the folder or archive, by clip.
        self._names: dict[str, str] = {}
        self.contents = self._read_contents()
        for name in self.contents.maps:
            clip = name[:-4]
            if clip in self._names:
                self.close()
                raise CommandError(
                    f"{path}: expected one array per clip, but {named(clip)} has {named(self._names[clip])} and "
                    f"{named(name)}"
                )
            self._names[clip] = name
        self.clips = tuple(self._names)
        if not self.clips and self.contents.has_others:
            self.close()
            raise CommandError(
                f"{path}: expected maps, <clip>.npy or <clip>.npz, but it holds none of them, only {self.contents}. "
                "Save maps with numpy.savez"
            )

    def _read_contents(self) -> Contents:
        if self.path.is_dir():
            return of_folder(self.path)
        if not self.path.exists():
            raise CommandError(f"Expected a folder or an NPZ file of maps, but there is no {self.path}")
        try:
            self._archive = zipfile.ZipFile(self.path)
        except Exception as error:  # the reader raises anything on broken files
            raise CommandError(
                f"{self.path}: expected a folder or an NPZ file of maps, but got {kind_of_file(self.path)} ({error})"
            ) from error
        return of_archive(self._archive.namelist())

    def close(self) -> None:
        """Closes the archive."""
        if self._archive is not None:
            self._archive.close()

    def __enter__(self) -> SavedMaps:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def load(self, clip: str) -> Tensor:
        """Reads the maps of a clip.

        Args:
            clip: one of ``clips``.

        Returns:
            (M, h, w), float32 or float64.

        Raises:
            CommandError: if they cannot be read, or are not an (h, w) or (M, h, w) array of finite numbers.
        """
        try:
            with self._opened(clip) as (stream, size):
                array = _read_array(stream, size)
        except Exception as error:  # the readers raise anything on broken files
            raise CommandError(
                f"{named(clip)}: expected an array of numbers, but it cannot be read ({error})"
            ) from error
        if array.dtype.kind not in "fiub":
            raise CommandError(f"{named(clip)}: expected an array of real numbers, but got dtype {array.dtype}")
        if array.ndim not in (2, 3) or 0 in array.shape[-2:]:
            raise CommandError(f"{named(clip)}: expected maps of shape (h, w) or (M, h, w), but got {array.shape}")
        with np.errstate(over="ignore"):  # overflow gives infinity, which is refused below
            maps = torch.from_numpy(array.astype(np.float64 if array.dtype == np.float64 else np.float32))
        if not bool(torch.isfinite(maps).all()):
            raise CommandError(f"{named(clip)}: expected finite maps, but got NaN or infinite values")
        return maps[None] if maps.ndim == 2 else maps

    @contextlib.contextmanager
    def _opened(self, clip: str) -> Iterator[tuple[IO[bytes], int]]:
        """The stream of a clip's NPY data, and its size in bytes."""
        name = self._names[clip]
        if self._archive is not None:
            with self._archive.open(name) as stream:
                yield stream, self._archive.getinfo(name).file_size
            return
        file = self.path / name
        if not file.is_file():  # a pipe or device may never end
            raise ValueError(f"{file.name} is not a file")
        if file.suffix.lower() == ".npy":
            with file.open("rb") as stream:
                yield stream, file.stat().st_size
            return
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if len(members) != 1:
                raise ValueError(f"{file.name} holds {len(members)} arrays, not one")
            with archive.open(members[0]) as stream:
                yield stream, members[0].file_size


def _read_array(stream: IO[bytes], size: int) -> np.ndarray:
    """Reads the array of an NPY of ``size`` bytes after checking its header, before memory is allocated."""
    if size > _MOST_BYTES:
        raise ValueError(f"it has {size:,} bytes, but at most {_MOST_BYTES:,} are read")
    version = np.lib.format.read_magic(stream)
    if version not in _HEADER:
        raise ValueError(f"it has version {version} of the format, not {' or '.join(map(str, _HEADER))}")
    shape, _, dtype = _HEADER[version](stream)
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded: they can hold code")
    if math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"its header claims {shape} of {dtype}, more than its {size:,} bytes hold")
    stream.seek(0)
    array: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
    return array
