"""Finds the video files that contain the listed clips."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..clip_ids import CLIP_SECONDS, ClipId

log = logging.getLogger(__name__)
EXTENSIONS = (".mp4", ".webm", ".mkv", ".m4v", ".mov", ".avi")
_BRACKETS = re.compile(r"\[([\w-]{11})\]$", re.ASCII)  # "Title [<video>]", the default file name of yt-dlp


class VideoFile(NamedTuple):
    """A video file. ``cut``: it contains only the clip, not the whole video."""

    path: Path
    cut: bool


def files_below(root: Path) -> Iterator[Path]:
    """Yields the regular files in a folder and, after them, in its subfolders; follows links, but only once."""
    visited: set[tuple[int, int]] = set()
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        status = folder.stat()
        key = (status.st_dev, status.st_ino)
        if key in visited:
            continue
        visited.add(key)
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except PermissionError as error:
            log.warning("Files in %s are not found: %s", folder, error.strerror)
            continue
        folders = []
        for entry in entries:
            with contextlib.suppress(OSError):  # a link to itself
                if entry.is_dir():
                    folders.append(Path(entry.path))
                elif entry.is_file():
                    yield Path(entry.path)
        waiting += reversed(folders)


class VideoFolder:
    """All videos in ``root`` and its subfolders, indexed by the ids in their names.

    Raises:
        FileNotFoundError: if there is no such folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise FileNotFoundError(f"Expected `--videos` to be a folder, but there is none at {root.resolve()}")
        self._paths: dict[str, Path] = {}
        for path in files_below(root):
            if path.suffix.lower() in EXTENSIONS and not path.name.startswith("."):
                brackets = _BRACKETS.search(path.stem)
                self._paths.setdefault(brackets[1] if brackets else path.stem, path)

    def __len__(self) -> int:
        return len(self._paths)

    def find(self, name: str) -> VideoFile | None:
        """The file of clip ``name``: ``<video>``, or that of its 10 s alone.

        The latter are of VGGSound: ``<video>_<start>`` in seconds, zero-padded or not, or ``<video>_<start>_<end>`` in
        milliseconds.
        """
        clip = ClipId.parse(name)
        if clip.frame is None:
            start = 1000 * clip.second
            for stem in (name, f"{clip.video}_{clip.second}", f"{clip.video}_{start}_{start + CLIP_SECONDS * 1000}"):
                if stem in self._paths:
                    return VideoFile(self._paths[stem], cut=True)
        return VideoFile(self._paths[clip.video], cut=False) if clip.video in self._paths else None

    def unlisted(self, names: Iterable[str]) -> list[Path]:
        """The files that hold no clip of ``names``, in the order in which they were found."""
        listed = {video.path for name in names if (video := self.find(name))}
        return [path for path in self._paths.values() if path not in listed]

    def group(self, names: Iterable[str]) -> tuple[dict[VideoFile, list[str]], list[str]]:
        """Clips grouped by file, the file with most clips first, and the clips without a file."""
        groups: dict[VideoFile, list[str]] = {}
        missing = []
        for name in names:
            video = self.find(name)
            if video is None:
                missing.append(name)
            else:
                groups.setdefault(video, []).append(name)
        return dict(sorted(groups.items(), key=lambda item: -len(item[1]))), missing
