"""Reads saved heatmaps from a folder of arrays or from one NPZ file."""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
import torch
from torch import Tensor

from sslosses.evaluate.errors import CommandError, named, some

_MOST_BYTES = 1 << 28  # maps of one clip: two of 4096² in float64
_HEADER = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class SavedMaps:
    """Heatmaps by clip id: ``<clip>.npy`` and ``<clip>.npz`` (one array each) in a folder, or the arrays of one NPZ.

    Only the maps of one clip are in memory at a time. Nothing is unpickled. An array is not read if its header claims
    more than 256 MiB, or more than its file holds.

    Args:
        path: the folder or NPZ file.

    Raises:
        CommandError: if there is neither, or a clip has more than one array.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._archive: zipfile.ZipFile | None = None
        self._files: dict[str, Path] = {}
        if path.is_dir():
            for file in sorted(path.iterdir()):
                if file.suffix not in (".npy", ".npz"):
                    continue
                if file.stem in self._files:
                    raise CommandError(
                        f"{path}: expected one file per clip, but {named(file.stem)} has a .npy and a .npz"
                    )
                self._files[file.stem] = file
            self.clips = tuple(self._files)
        elif path.exists():
            try:
                self._archive = zipfile.ZipFile(path)
            except Exception as error:  # the reader raises anything on broken files
                raise CommandError(
                    f"{path}: expected a folder or an NPZ file of maps, but got neither ({error})"
                ) from error
            self.clips = tuple(name.removesuffix(".npy") for name in self._archive.namelist())
            twice = [clip for clip, count in Counter(self.clips).items() if count > 1]
            if twice:
                raise CommandError(f"{path}: expected one array per clip, but several are named {some(twice)}")
        else:
            raise CommandError(f"Expected a folder or an NPZ file of maps, but there is no {path}")

    def __enter__(self) -> SavedMaps:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._archive is not None:
            self._archive.close()

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
        if self._archive is not None:
            name = f"{clip}.npy" if f"{clip}.npy" in self._archive.NameToInfo else clip
            with self._archive.open(name) as stream:
                yield stream, self._archive.getinfo(name).file_size
            return
        file = self._files[clip]
        if not file.is_file():  # a pipe or device may never end
            raise ValueError(f"{file.name} is not a file")
        if file.suffix == ".npy":
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
