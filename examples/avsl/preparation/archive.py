"""Finds the picture and the sound of each listed clip in an unpacked archive of Flickr-SoundNet."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence, Set
from pathlib import Path, PurePath
from typing import NamedTuple

from .videos import EXTENSIONS, files_below

log = logging.getLogger(__name__)
PICTURES = (".jpg", ".jpeg", ".png")
SOUNDS = (".wav", ".flac", ".mp3", ".ogg", ".m4a")
#: The layouts that are known, and what an archive of each holds.
LAYOUTS = {
    "side by side": "<id>.jpg and <id>.wav in one folder, such as Data/0/",
    "frames and audio": "frames/<id>.jpg and audio/<id>.wav",
    "folder per clip": "<id>/ with pictures and a sound",
    "SoundNet": "<id>.mp4/ with pictures, and <id>.mp3 elsewhere",
}


class Pair(NamedTuple):
    """The picture and the sound of a clip."""

    picture: Path
    sound: Path


class Archive(NamedTuple):
    """What an archive holds of the listed clips.

    root: its folder. layout: a key of :data:`LAYOUTS`. pairs: picture and sound by clip. apart: clips of which the
    archive has something, but not both in this layout, and what.
    """

    root: Path
    layout: str
    pairs: dict[str, Pair]
    apart: dict[str, str]


class _Places(NamedTuple):
    """Files of one kind by clip: named as the clip, in a folder named as it, in a folder named as its video."""

    named: dict[str, list[Path]]
    in_folder: dict[str, list[Path]]
    in_video: dict[str, list[Path]]

    @classmethod
    def of(cls, files: Sequence[Path], wanted: Set[str]) -> _Places:
        places = cls({}, {}, {})
        for path in files:
            folder = path.parent.name
            for clip, place in (
                (folder, places.in_folder),
                (_without_video_suffix(folder) if folder != _without_video_suffix(folder) else "", places.in_video),
                (_without_video_suffix(path.stem), places.named),
            ):
                if clip in wanted:
                    place.setdefault(clip, []).append(path)
                    break
        return places

    def count(self) -> int:
        return len(self.named.keys() | self.in_folder.keys() | self.in_video.keys())


def open_archive(root: Path, wanted: Set[str]) -> Archive:
    """Searches a folder at any depth, and takes the layout in which it holds most of the ``wanted`` clips.

    Of several pictures of a clip, the middle one counts.

    Raises:
        FileNotFoundError: if it holds no wanted clip in any of the layouts.
    """
    files: dict[str, list[Path]] = {"pictures": [], "sounds": []}
    for path in files_below(root):
        kind = {**dict.fromkeys(PICTURES, "pictures"), **dict.fromkeys(SOUNDS, "sounds")}.get(path.suffix.lower())
        if kind and not path.name.startswith("."):
            files[kind].append(path)
    pictures, sounds = (_Places.of(found, wanted) for found in files.values())
    layouts = _layouts(root, pictures, sounds)
    layout = max(layouts, key=lambda name: len(layouts[name]))
    if not layouts[layout]:
        known = "; ".join(f"{shape} ({name})" for name, shape in LAYOUTS.items())
        found = ", ".join(f"{len(paths):,} {kind}{_such_as(root, paths)}" for kind, paths in files.items())
        raise FileNotFoundError(
            f"Expected `--archive` to hold some of the {len(wanted):,} listed clips in one of these layouts: {known}. "
            f"But {root.resolve()} holds {found}; {pictures.count():,} listed clips have a picture and "
            f"{sounds.count():,} have a sound"
        )
    return Archive(root, layout, layouts[layout], _apart(pictures, sounds, layouts[layout].keys()))


def _layouts(root: Path, pictures: _Places, sounds: _Places) -> dict[str, dict[str, Pair]]:
    frames = {clip: [p for p in paths if "frames" in _folders(root, p)] for clip, paths in pictures.named.items()}
    audio = {clip: [p for p in paths if "audio" in _folders(root, p)] for clip, paths in sounds.named.items()}
    found = (
        _side_by_side(pictures.named, sounds.named),
        _firsts(frames, audio),
        _middles(pictures.in_folder, sounds.in_folder),
        _middles(pictures.in_video, sounds.named),
    )
    return dict(zip(LAYOUTS, found, strict=True))


def _side_by_side(pictures: Mapping[str, list[Path]], sounds: Mapping[str, list[Path]]) -> dict[str, Pair]:
    pairs = {}
    for clip in pictures.keys() & sounds.keys():
        by_folder = {sound.parent: sound for sound in reversed(sounds[clip])}
        pair = next((Pair(p, by_folder[p.parent]) for p in pictures[clip] if p.parent in by_folder), None)
        if pair:
            pairs[clip] = pair
    return pairs


def _firsts(pictures: Mapping[str, list[Path]], sounds: Mapping[str, list[Path]]) -> dict[str, Pair]:
    return {c: Pair(paths[0], sounds[c][0]) for c, paths in pictures.items() if paths and sounds.get(c)}


def _middles(pictures: Mapping[str, list[Path]], sounds: Mapping[str, list[Path]]) -> dict[str, Pair]:
    pairs = {}
    for clip in pictures.keys() & sounds.keys():
        # Numbers may lack leading zeros. Clips in two folders of one name would mix.
        folder = pictures[clip][0].parent
        frames = sorted((p for p in pictures[clip] if p.parent == folder), key=lambda p: (len(p.stem), p.stem))
        pairs[clip] = Pair(frames[(len(frames) - 1) // 2], sounds[clip][0])
    return pairs


def _apart(pictures: _Places, sounds: _Places, complete: Set[str]) -> dict[str, str]:
    seen, heard = (set().union(*places) for places in (pictures, sounds))
    apart = dict.fromkeys(seen - heard, "no sound")
    apart |= dict.fromkeys(heard - seen, "no frame")
    apart |= dict.fromkeys(seen & heard, "frame and sound in different layouts")
    return {clip: what for clip, what in apart.items() if clip not in complete}


def _folders(root: Path, path: Path) -> set[str]:
    return {part.lower() for part in path.relative_to(root).parent.parts}


def _without_video_suffix(name: str) -> str:
    return PurePath(name).stem if name.lower().endswith(EXTENSIONS) else name


def _such_as(root: Path, paths: Sequence[Path]) -> str:
    return f" such as {paths[0].relative_to(root)}" if paths else ""
