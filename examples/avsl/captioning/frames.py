"""The training clips of a data folder and their frames, as the captioning model needs them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..data.kinds import prepare_command
from ..data.vggsound_list import read_vggsound_list
from ..parts import Part
from ..pictures import ORIENTATION, read_picture

TRAINING_LISTS = ("music_solo_train.txt", "music_duet_train.txt", "vggsound_train.csv")


@dataclass(frozen=True)
class ClipToCaption:
    """A training clip: its id, the labels of its sounds, and the path of its frame."""

    name: str
    labels: tuple[str, ...]
    frame: Path


def read_clips(root: Path, lists: Sequence[str] = (), part: Part | None = None) -> list[ClipToCaption]:
    """Reads the clips of the training lists in ``root/metadata``: each clip once, in the order of the lists.

    Args:
        root: the data folder, with ``frames/<id>.jpg`` and ``metadata/``.
        lists: file names in ``metadata/``. Default: the existing ones of :data:`TRAINING_LISTS`.
        part: read the clips of this part only; the frames of others may be missing.

    Raises:
        FileNotFoundError: if there is no list or if frames are missing; the message has their number and the first one.
        ValueError: if a list is malformed, or if two lists give a clip different classes.
    """
    metadata = root / "metadata"
    names = list(lists) or [name for name in TRAINING_LISTS if (metadata / name).is_file()]
    if not names:
        known = ", ".join(f"metadata/{name}" for name in TRAINING_LISTS)
        raise FileNotFoundError(
            f"Expected `data_root` to hold frames/<id>.jpg and at least one of {known}, "
            f"but {metadata.resolve()} has none. Create them with: {prepare_command(root)}"
        )
    clips: dict[str, ClipToCaption] = {}
    for name in names:
        if not (metadata / name).is_file():
            raise FileNotFoundError(f"Expected the list {(metadata / name).resolve()}, but there is no such file")
        for clip_id, labels in _entries(metadata / name):
            if part and not part.holds(clip_id):
                continue
            if not labels:
                raise ValueError(f"Expected classes in {name}, but clip {clip_id!r} has none")
            clip = ClipToCaption(clip_id, labels, root / "frames" / f"{clip_id}.jpg")
            if clips.setdefault(clip.name, clip) != clip:
                raise ValueError(
                    f"Expected one set of classes per clip, but {clip.name!r} has {', '.join(clips[clip.name].labels)} "
                    f"in one list and {', '.join(clip.labels)} in {name}"
                )
    missing = [clip.frame for clip in clips.values() if not clip.frame.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(clips)} listed frames are missing, first {missing[0]}. "
            f"Create them with: {prepare_command(root)}"
        )
    return list(clips.values())


def _entries(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Clip id and classes per line of a list."""
    if not path.name.startswith("vggsound"):
        from sslosses.annotations import read_music_split  # imports torch

        yield from ((entry.clip, entry.classes) for entry in read_music_split(path))
        return
    yield from ((name, (label,)) for name, label in read_vggsound_list(path))


def load_frame(path: Path, longest: int) -> Image.Image:
    """Loads a frame as RGB, scaled down so that no side exceeds ``longest`` pixels.

    Raises:
        OSError: if the file is not a readable picture.
    """
    frame = read_picture(path)
    frame.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return frame


def data_url(path: Path, longest: int) -> str:
    """Encodes a frame as a ``data:`` URL. An upright RGB JPEG that is small enough is not encoded again.

    Raises:
        OSError: if the file is not a readable picture.
    """
    frame = load_frame(path, longest)
    with Image.open(path) as image:
        stands = image.getexif().get(ORIENTATION, 1) == 1
        unchanged = image.format == "JPEG" and image.mode == "RGB" and image.size == frame.size and stands
    content = path.read_bytes() if unchanged else _jpeg(frame)
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()
