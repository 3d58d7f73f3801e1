"""Scenes as tensors: frames of one or more clips side by side, and their sounds mixed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..clip_ids import Sound, find_sound, sound_files
from ..constants import SAMPLE_RATE, SAMPLES
from ..files import read_picture

#: Indices of the clips of one scene: their frames are placed side by side and their sounds mixed.
ClipIndices = tuple[int, ...]


class Example(NamedTuple):
    """A scene of n clips: frames (3, S, n·S) uint8, the mean of the waveforms (48000,) float32, and the clips."""

    frame: Tensor
    waveform: Tensor
    clips: ClipIndices


class Scenes(Dataset[Example]):
    """Scenes of the clips in a folder, indexed by a clip's index or a tuple of several.

    Args:
        root: folder with ``frames/<name>.jpg`` and ``audio/<name>.wav``, or ``audio/<video>.wav`` for the whole video.
        names: ids of the clips.
        image_size: side S of a frame, in pixels.
        in_memory: keep decoded clips in memory.

    Raises:
        FileNotFoundError: at construction, with the number of missing frames and sounds and the first one.
    """

    def __init__(self, root: Path, names: Sequence[str], image_size: int, *, in_memory: bool = False) -> None:
        self.image_size, self.in_memory = image_size, in_memory
        self._frames, self._audio = root / "frames", root / "audio"
        # One array of bytes is shared by worker processes; a list of strings would be copied into each.
        self._names = np.array([name.encode() for name in names], dtype=bytes)
        self._check()
        self._cache: dict[int, tuple[Tensor, Tensor]] = {}

    def _check(self) -> None:
        # One listing per folder: checking 144,000 files separately takes minutes on a shared file system.
        frames, sounds = ({path.name for path in folder.iterdir()} for folder in (self._frames, self._audio))
        missing, first = 0, None
        for name in map(bytes.decode, self._names):
            if f"{name}.jpg" not in frames:
                missing, first = missing + 1, first or self._frames / f"{name}.jpg"
            if not any(file in sounds for file in sound_files(name)):
                missing, first = missing + 1, first or self._audio / f"{name}.wav"
        if missing:
            raise FileNotFoundError(f"{missing} of {2 * len(self._names)} listed files are missing, first {first}")

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, clips: ClipIndices | int) -> Example:
        clips = (clips,) if isinstance(clips, int) else clips
        frames, waveforms = zip(*(self._decoded(index) for index in clips), strict=True)
        mixture = torch.stack(waveforms).float().mean(0) / 32768
        return Example(torch.cat(frames, dim=2), mixture, clips)

    def _decoded(self, index: int) -> tuple[Tensor, Tensor]:
        if index in self._cache:
            return self._cache[index]
        name = bytes(self._names[index]).decode()
        decoded = (
            _read_frame(self._frames / f"{name}.jpg", self.image_size),
            _read_waveform(find_sound(self._audio, name)),
        )
        if self.in_memory:
            self._cache[index] = decoded
        return decoded


def _read_frame(path: Path, size: int) -> Tensor:
    pixels = read_picture(path).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).contiguous()


def _read_waveform(sound: Sound) -> Tensor:
    """Reads the 3 s of a clip as (48000,) int16; shorter sounds are repeated."""
    try:
        return _read_part(sound)
    except soundfile.LibsndfileError as error:
        raise OSError(f"Expected {sound.path} to be a sound, but it can't be read: {error}") from error


def _read_part(sound: Sound) -> Tensor:
    path = sound.path
    with soundfile.SoundFile(path) as file:
        if file.samplerate != SAMPLE_RATE:
            raise ValueError(f"Expected {path} at {SAMPLE_RATE} Hz, but got {file.samplerate} Hz")
        if not file.frames:
            raise ValueError(f"Expected {path} to hold sound, but it is empty")
        file.seek(sound.first_sample(file.frames, SAMPLES, SAMPLE_RATE))
        samples = file.read(SAMPLES, dtype="int16", always_2d=True)[:, 0]
    if not len(samples):
        raise ValueError(f"Expected {path} to hold {file.frames} samples, but it is truncated")
    return torch.from_numpy(np.resize(samples, SAMPLES))
