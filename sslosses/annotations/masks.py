"""Folders of PNG masks, such as AVSBench's: binary masks, and masks of class ids."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sslosses._checks import check_count, check_option
from sslosses._optional import require
from sslosses.annotations._text import check_clip, enumerated
from sslosses.annotations.records import AnnotationError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MOST_PIXELS = 1 << 26  # of one mask
_GRAY, _PALETTE = 0, 3
_COLORS = {2: "RGB", 4: "gray with transparency", 6: "RGB with transparency"}


class ClipMasks(NamedTuple):
    """Masks of the frames of one clip."""

    clip: str  #: id of the clip
    files: tuple[str, ...]  #: names of the mask files, one per frame, in order
    masks: Tensor  #: bool, or class ids as uint8, of shape (F, H, W)


class MaskFolder:
    """Masks by clip id. Iterating reads one clip after the other. See :func:`read_masks`.

    Args:
        folder: the folder.
        files: mask files of each clip, in the order of the frames.
        num_classes: number of classes; None: the masks are binary.
        ignore_index: class id beyond the classes of pixels to leave out; None: there is none.
        other_values: ``"error"`` or ``"foreground"``.
    """

    def __init__(
        self,
        folder: Path,
        files: dict[str, list[Path]],
        num_classes: int | None,
        ignore_index: int | None,
        other_values: str,
    ) -> None:
        self.folder = folder
        self._files = files
        self._classes = num_classes
        self._ignored = ignore_index
        self._all_foreground = other_values == "foreground"

    @property
    def clips(self) -> tuple[str, ...]:
        """Ids of the clips, sorted."""
        return tuple(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, clip: object) -> bool:
        return clip in self._files

    def __iter__(self) -> Iterator[ClipMasks]:
        return (self.read(clip) for clip in self._files)

    def read(self, clip: str) -> ClipMasks:
        """Reads the masks of one clip.

        Raises:
            KeyError: if there is no such clip.
            AnnotationError: if a file is no mask, holds values that have no meaning, or differs in size from the clip's
                first mask; the message names the file and the values.
        """
        paths = self._files[clip]
        masks: list[np.ndarray] = []
        for path in paths:
            mask = self._meaning(path, _pixels(path))
            if masks and mask.shape != masks[0].shape:
                raise AnnotationError(
                    f"{path}: expected a mask of {_size(masks[0])}, as {paths[0].name} has, but got {_size(mask)}"
                )
            masks.append(mask)
        return ClipMasks(clip, tuple(path.name for path in paths), torch.from_numpy(np.stack(masks)))

    def _meaning(self, path: Path, pixels: np.ndarray) -> np.ndarray:
        """The mask that the values of a file mean."""
        values = np.flatnonzero(np.bincount(pixels.ravel(), minlength=256)).tolist()
        if self._classes is None:
            if not self._all_foreground and not (set(values) <= {0, 1} or set(values) <= {0, 255}):
                raise AnnotationError(
                    f"{path}: expected a mask of 0 and 1, or of 0 and 255, but got the values "
                    f"{enumerated(map(str, values))}. If all of them but 0 are foreground, pass "
                    "other_values='foreground'"
                )
            return pixels > 0
        wrong = [value for value in values if value >= self._classes and value != self._ignored]
        if wrong:
            also = "" if self._ignored is None else f", or {self._ignored}"
            raise AnnotationError(
                f"{path}: expected class ids from 0 to {self._classes - 1}{also}, but got {enumerated(map(str, wrong))}"
            )
        return pixels


def read_masks(
    folder: str | PathLike[str],
    *,
    num_classes: int | None = None,
    ignore_index: int | None = None,
    other_values: str = "error",
    subfolder: str | None = None,
) -> MaskFolder:
    """Finds the masks of a folder. They are read one clip at a time.

    A folder of PNG files, at any depth, is a clip of the folder's name. Its files are the frames, in the order of the
    numbers in their names, as in AVSBench. A PNG file directly in ``folder`` is a clip of one frame.

    The masks are gray or have a palette, of which the indices count, not the colors. Binary masks hold 0 and 1, or 0
    and 255. Above 0 is foreground: dividing by 255 instead, as published code does, would make 1 background.

    Args:
        folder: the folder; only files ``*.png`` that are not hidden are read.
        num_classes: number of classes, for masks of class ids 0 to ``num_classes - 1``; None: masks are binary.
        ignore_index: with ``num_classes``: another class id that may occur, such as 255; None: none may.
        other_values: for binary masks: ``"error"`` refuses values other than 0 and 1, or 0 and 255;
            ``"foreground"`` takes all above 0 as foreground, such as numbers of objects.
        subfolder: name of the folder within each clip's folder that holds its masks, such as ``labels_semantic`` of
            AVSBench-Semantic; other folders are skipped. None: the masks lie in the clip's folder itself.

    Returns:
        The clips in the order of their ids. Iterating yields one :class:`ClipMasks` per clip.

    Raises:
        FileNotFoundError: if the folder does not exist or holds no mask.
        AnnotationError: if two folders have the same clip id.
        MissingDependencyError: if Pillow is not installed.
        TypeError: if a number is not an integer.
        ValueError: if an option is none of the allowed ones.

    Example:
        >>> import pathlib, tempfile
        >>> from PIL import Image
        >>> from sslosses.annotations import read_masks
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> (folder / "dog" / "clip").mkdir(parents=True)
        >>> for frame, value in ((1, 0), (2, 255)):
        ...     Image.new("L", (3, 2), value).save(folder / "dog" / "clip" / f"clip_{frame}.png")
        >>> for clip, files, masks in read_masks(folder):
        ...     print(clip, files, masks.shape, masks.sum((1, 2)))
        clip ('clip_1.png', 'clip_2.png') torch.Size([2, 2, 3]) tensor([0, 6])
    """
    folder = Path(folder)
    if num_classes is not None:
        num_classes = check_count("num_classes", num_classes)
    if ignore_index is not None:
        if num_classes is None:
            raise ValueError(f"Expected `ignore_index` to be None without `num_classes`, but got {ignore_index!r}")
        ignore_index = check_count("ignore_index", ignore_index, least=num_classes)
    check_option("other_values", other_values, ("error", "foreground"))
    if subfolder is not None and not isinstance(subfolder, str):
        raise TypeError(f"Expected `subfolder` to be a name or None, but got {subfolder!r}")
    _pillow()
    if not folder.is_dir():
        raise FileNotFoundError(f"Expected a folder of PNG masks, but there is no folder {folder}")
    files = _clips(folder, subfolder)
    if not files:
        inside = "" if subfolder is None else f" in folders {subfolder}"
        raise FileNotFoundError(f"Expected a folder of PNG masks, but {folder} holds none{inside}")
    return MaskFolder(folder, files, num_classes, ignore_index, other_values)


def _clips(folder: Path, subfolder: str | None) -> dict[str, list[Path]]:
    """The mask files of each clip, sorted."""
    found: dict[str, list[Path]] = {}
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        path = Path(place)
        masks = sorted((path / name for name in names if _is_mask(name)), key=_order)
        if subfolder is not None:
            masks = masks if path.name == subfolder and path != folder else []
            path = path.parent
        single = path == folder and subfolder is None
        for clip, of_clip in [(mask.stem, [mask]) for mask in masks] if single else [(path.name, masks)]:
            if not of_clip:
                continue
            check_clip(f"{of_clip[0].parent if not single else of_clip[0]}: expected the name", clip)
            if clip in found:
                raise AnnotationError(
                    f"{of_clip[0].parent}: expected each clip once, but {clip} is also in {found[clip][0].parent}"
                )
            found[clip] = of_clip
    return dict(sorted(found.items()))


def _is_mask(name: str) -> bool:
    return name.lower().endswith(".png") and not name.startswith(".")


def _order(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Sorts ``a_2`` before ``a_10``."""
    parts = re.split("([0-9]+)", path.stem)
    return [(int(part), "") if part.isdigit() and part.isascii() else (0, part) for part in parts], path.name


def _pixels(path: Path) -> np.ndarray:
    """The values of a gray mask, or the indices of one with a palette, (H, W), uint8."""
    if not path.is_file():  # a pipe or device may never end
        raise AnnotationError(f"{path}: expected a PNG mask, but it is not a file")
    with path.open("rb") as stream:
        header = stream.read(26)
    if len(header) < 26 or not header.startswith(_SIGNATURE):
        raise AnnotationError(f"{path}: expected a PNG mask, but it is not a PNG file")
    width, height = (int.from_bytes(header[i : i + 4], "big") for i in (16, 20))
    depth, kind = header[24], header[25]
    if not 0 < width * height <= _MOST_PIXELS:
        raise AnnotationError(f"{path}: expected a mask of 1 to {_MOST_PIXELS:,} pixels, but got {height} × {width}")
    # Pillow would stretch gray values of 2 and 4 bits, and with them class ids.
    if kind != _PALETTE and not (kind == _GRAY and depth in (1, 8)):
        shown = f"gray of {depth} bits" if kind == _GRAY else _COLORS.get(kind, f"color type {kind}")
        raise AnnotationError(f"{path}: expected a gray mask of 1 or 8 bits or one with a palette, but got {shown}")
    try:
        with _pillow().open(path, formats=["PNG"]) as image:
            pixels = np.asarray(image).astype(np.uint8)
    except Exception as error:  # decoders raise anything on broken files
        raise AnnotationError(f"{path}: expected a PNG mask, but it cannot be read ({error})") from error
    if pixels.shape != (height, width):
        raise AnnotationError(f"{path}: expected a PNG mask, but its values have the shape {pixels.shape}")
    return pixels


def _pillow() -> ModuleType:
    return require("PIL.Image", extra="examples", purpose="Reading masks")


def _size(mask: np.ndarray) -> str:
    return f"{mask.shape[0]} × {mask.shape[1]}"
