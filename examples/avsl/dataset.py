"""MUSIC as a folder: frames, sounds, split lists, annotations and captions, the same for real and composed data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from sslosses.annotations import read_music_duet, read_music_solo, read_music_split

from .clip_ids import Sound, find_sound
from .constants import SAMPLE_RATE, SECONDS

SAMPLES = int(SAMPLE_RATE * SECONDS)


@dataclass(frozen=True)
class Clip:
    """One entry of a split list with its captions; test clips have no captions."""

    name: str
    classes: tuple[str, ...]
    foreground: tuple[str, ...] = ()
    background: str = ""


class Example(NamedTuple):
    """One clip as tensors: frame (3, S, S) uint8, waveform (48000,) float32, and its place in ``clips``."""

    frame: Tensor
    waveform: Tensor
    index: int


class MusicFolder:
    """Paths of a data folder.

    ::

        frames/<id>.jpg   audio/<id>.wav, or audio/<video id>.wav with the sound of the whole video
        metadata/music_{solo,duet}_train.txt, music_{solo,duet}_test.csv, music_{solo,duet}.json, captions.jsonl

    Raises:
        FileNotFoundError: if a folder or list is missing; the text shows the layout.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        missing = [f for f in ("frames", "audio", "metadata") if not (root / f).is_dir()]
        if missing:
            raise FileNotFoundError(
                f"Expected `data_root` to hold the folders frames/ (<id>.jpg), audio/ (<id>.wav) and metadata/ "
                f"(music_solo_train.txt, music_solo_test.csv, music_solo.json, the same for duet, captions.jsonl), "
                f"but {root.resolve()} lacks {', '.join(f + '/' for f in missing)}"
            )

    @property
    def silent_objects(self) -> Path:
        """Boxes of silent objects; only composed data have them."""
        return self.root / "metadata" / "silent_objects.json"

    def listed(self, name: str) -> Path:
        path = self.root / "metadata" / name
        if not path.is_file():
            raise FileNotFoundError(
                f"Expected {path.resolve()}, one of MUSIC's public lists, but there is no such file"
            )
        return path

    def training_clips(self, subset: str) -> list[Clip]:
        """The training list of ``subset`` ("solo" | "duet") with captions.

        Raises:
            ValueError: naming the first clip without captions, or with another number of foreground captions than
                sources.
        """
        captions = _read_captions(self.listed("captions.jsonl"))
        clips = []
        for entry in read_music_split(self.listed(f"music_{subset}_train.txt")):
            caption = captions.get(entry.clip)
            if caption is None:
                raise ValueError(f"Clip {entry.clip!r} of music_{subset}_train.txt has no line in captions.jsonl")
            foreground, background = caption
            if len(foreground) != len(entry.classes):
                raise ValueError(
                    f"Expected {len(entry.classes)} foreground captions for clip {entry.clip!r} "
                    f"({', '.join(entry.classes)}), but captions.jsonl has {len(foreground)}"
                )
            clips.append(Clip(entry.clip, entry.classes, foreground, background))
        return clips

    def test_clips(self, subset: str) -> tuple[list[Clip], list[list[tuple[float, float, float, float]]]]:
        """The test clips of ``subset`` and, for each, one box (fractional corners) per source.

        Raises:
            ValueError: naming the first clip without boxes.
        """
        read = read_music_solo if subset == "solo" else read_music_duet
        annotations = read(self.listed(f"music_{subset}.json"))
        listed = read_music_split(self.listed(f"music_{subset}_test.csv"))
        clips, boxes = [], []
        for entry in listed:
            if entry.clip not in annotations:
                raise ValueError(f"Clip {entry.clip!r} of music_{subset}_test.csv is not in music_{subset}.json")
            record = annotations[entry.clip]
            clips.append(Clip(record.clip, record.classes))
            boxes.append([source[0] for source in record.boxes])
        return clips, boxes


def _read_captions(path: Path) -> dict[str, tuple[tuple[str, ...], str]]:
    """``{"id": …, "foreground": […], "background": "…"}`` a line; a single foreground may be a bare string."""
    captions = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                foreground = entry["foreground"]
                texts = (foreground,) if isinstance(foreground, str) else tuple(foreground)
                if not all(isinstance(t, str) for t in (*texts, entry["background"])):
                    raise TypeError("captions are strings")
                captions[str(entry["id"])] = texts, entry["background"]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f'Expected {{"id", "foreground": [...], "background"}} in line {number} of {path}, but got '
                    f"{line.strip()[:80]!r} ({error})"
                ) from error
    return captions


class MusicScenes(Dataset[Example]):
    """Frames and sounds of ``clips``, decoded once and kept if ``in_memory``.

    Raises:
        FileNotFoundError: at construction, naming the first missing frame or sound and the number of missing ones.
    """

    def __init__(self, folder: MusicFolder, clips: Sequence[Clip], image_size: int, *, in_memory: bool = False) -> None:
        self.clips, self.image_size, self.in_memory = list(clips), image_size, in_memory
        self._frames, self._audio = folder.root / "frames", folder.root / "audio"
        wanted = [p for c in self.clips for p in (self._frame(c), self._sound(c).path)]
        missing = [p for p in wanted if not p.is_file()]
        if missing:
            raise FileNotFoundError(f"{len(missing)} of {len(wanted)} listed files are missing, first {missing[0]}")
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def _frame(self, clip: Clip) -> Path:
        return self._frames / f"{clip.name}.jpg"

    def _sound(self, clip: Clip) -> Sound:
        return find_sound(self._audio, clip.name)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Example:
        if index not in self._kept:
            clip = self.clips[index]
            decoded = _read_frame(self._frame(clip), self.image_size), _read_waveform(self._sound(clip))
            if not self.in_memory:
                return Example(decoded[0], decoded[1].float() / 32768, index)
            self._kept[index] = decoded
        frame, samples = self._kept[index]
        return Example(frame, samples.float() / 32768, index)


def _read_frame(path: Path, size: int) -> Tensor:
    with Image.open(path) as image:
        pixels = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).contiguous()


def _read_waveform(sound: Sound) -> Tensor:
    """The clip's 3 s as (48000,) int16; shorter sounds are repeated."""
    path = sound.path
    with soundfile.SoundFile(path) as file:
        if file.samplerate != SAMPLE_RATE:
            raise ValueError(f"Expected {path} at {SAMPLE_RATE} Hz, but got {file.samplerate} Hz")
        if not file.frames:
            raise ValueError(f"Expected {path} to hold sound, but it is empty")
        file.seek(sound.first_sample(file.frames, SAMPLES, SAMPLE_RATE))
        samples = file.read(SAMPLES, dtype="int16", always_2d=True)[:, 0]
    return torch.from_numpy(np.resize(samples, SAMPLES))
