"""Finds the video files that contain the listed clips."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ..clip_ids import ClipId

EXTENSIONS = (".mp4", ".webm", ".mkv", ".m4v", ".mov", ".avi")
_BRACKETS = re.compile(r"\[([\w-]{11})\]$", re.ASCII)  # "Title [<video>]", the default file name of yt-dlp


class VideoFile(NamedTuple):
    """A video file. ``cut``: it contains only the clip, not the whole video."""

    path: Path
    cut: bool


class VideoFolder:
    """All videos in ``root`` and its subfolders, indexed by the ids in their names.

    Raises:
        FileNotFoundError: if there is no such folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise FileNotFoundError(f"Expected `--videos` to be a folder, but there is none at {root.resolve()}")
        self._paths: dict[str, Path] = {}
        for folder, folders, files in os.walk(root, followlinks=True):
            folders.sort()
            for file in sorted(files):
                path = Path(folder, file)
                if path.suffix.lower() in EXTENSIONS and not file.startswith("."):
                    brackets = _BRACKETS.search(path.stem)
                    self._paths.setdefault(brackets[1] if brackets else path.stem, path)

    def __len__(self) -> int:
        return len(self._paths)

    def find(self, name: str) -> VideoFile | None:
        """The file of clip ``name``: for VGGSound ``<video>_<start>``, zero-padded or not; otherwise ``<video>``."""
        clip = ClipId.parse(name)
        if clip.frame is None:
            for stem in (name, f"{clip.video}_{clip.second}"):
                if stem in self._paths:
                    return VideoFile(self._paths[stem], cut=True)
        return VideoFile(self._paths[clip.video], cut=False) if clip.video in self._paths else None

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
