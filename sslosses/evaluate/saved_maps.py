"""Saved heatmaps, from a folder of arrays or from one NPZ."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from numpy.lib.npyio import NpzFile
from torch import Tensor

from sslosses.evaluate.errors import CommandError

_UNREADABLE = (OSError, EOFError, KeyError, ValueError, MemoryError, zipfile.BadZipFile, zlib.error)


class SavedMaps:
    """Heatmaps by clip id: ``<clip>.npy`` and ``<clip>.npz`` (of one array) in a folder, or the arrays of one NPZ.

    Only one clip's maps are in memory at a time. Nothing is unpickled.
    """

    def __init__(self, path: Path) -> None:
        """List the clips."""
        self.path = path
        self._archive: NpzFile | None = None
        self._files: dict[str, Path] = {}
        if path.is_dir():
            for file in sorted(path.iterdir()):
                if file.suffix not in (".npy", ".npz"):
                    continue
                if file.stem in self._files:
                    raise CommandError(f"{path}: expected one file a clip, but {file.stem} has a .npy and a .npz")
                self._files[file.stem] = file
            self.clips = tuple(self._files)
        elif path.exists():
            try:
                self._archive = _open(path)
            except _UNREADABLE as error:
                raise CommandError(
                    f"{path}: expected a folder or an NPZ file of maps, but got neither ({error})"
                ) from error
            self.clips = tuple(self._archive.files)
        else:
            raise CommandError(f"Expected a folder or an NPZ file of maps, but there is no {path}")

    def __enter__(self) -> SavedMaps:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the archive."""
        if self._archive is not None:
            self._archive.close()

    def load(self, clip: str) -> Tensor:
        """Maps of a clip, (M, h, w), float32 or float64.

        Raises:
            CommandError: if they can't be read, or are no (h, w) or (M, h, w) array of finite numbers.
        """
        try:
            array = self._read(clip)
        except _UNREADABLE as error:
            raise CommandError(f"{clip}: expected an array of numbers, but it cannot be read ({error})") from error
        if array.dtype.kind not in "fiub":
            raise CommandError(f"{clip}: expected an array of real numbers, but got dtype {array.dtype}")
        if array.ndim not in (2, 3) or 0 in array.shape[-2:]:
            raise CommandError(f"{clip}: expected maps of shape (h, w) or (M, h, w), but got {array.shape}")
        maps = torch.from_numpy(array.astype(np.float64 if array.dtype == np.float64 else np.float32))
        if not bool(torch.isfinite(maps).all()):
            raise CommandError(f"{clip}: expected finite maps, but got NaN or infinite values")
        return maps[None] if maps.ndim == 2 else maps

    def _read(self, clip: str) -> np.ndarray:
        if self._archive is not None:
            return np.asarray(self._archive[clip])
        file = self._files[clip]
        if file.suffix == ".npz":
            with _open(file) as archive:
                if len(archive.files) != 1:
                    raise ValueError(f"{file.name} holds {len(archive.files)} arrays, not one")
                return np.asarray(archive[archive.files[0]])
        with file.open("rb") as stream:
            array = np.load(stream, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            array.close()
            raise ValueError(f"{file.name} is an archive, not an array")
        return array


def _open(path: Path) -> NpzFile:
    """An NPZ file; anything else that NumPy can load is refused."""
    archive = np.load(path, allow_pickle=False) if zipfile.is_zipfile(path) else None
    if not isinstance(archive, NpzFile):
        raise ValueError(f"{path.name} is no NPZ file")
    return archive
