"""Scenes as tensors: the frames of one or more clips side by side, and their sounds mixed."""

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
from ..constants import SAMPLE_RATE, SECONDS
from ..files import read_picture

SAMPLES = int(SAMPLE_RATE * SECONDS)
#: Indices of the clips of one scene: their frames are placed side by side and their sounds mixed.
ClipIndices = tuple[int, ...]


class Example(NamedTuple):
    """One scene of n clips: frames (3, S, n·S) uint8, the mean of the waveforms (48000,) float32, and the clips."""

    frame: Tensor
    waveform: Tensor
    clips: ClipIndices


class Scenes(Dataset[Example]):
    """Scenes of the clips ``names`` below ``root``, taken by the tuple of their clips' indices.

    Args:
        root: folder of ``frames/<name>.jpg`` and ``audio/<name>.wav``, or ``audio/<video>.wav`` of the whole video.
        names: the clips.
        image_size: side S of a frame.
        in_memory: keep what was decoded.

    Raises:
        FileNotFoundError: at construction, naming the first missing frame or sound and the number of missing ones.
    """

    def __init__(self, root: Path, names: Sequence[str], image_size: int, *, in_memory: bool = False) -> None:
        self.image_size, self.in_memory = image_size, in_memory
        self._frames, self._audio = root / "frames", root / "audio"
        # Bytes in one array: worker processes share it, where a list of strings would be copied into each.
        self._names = np.array([name.encode() for name in names], dtype=bytes)
        self._check()
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def _check(self) -> None:
        # One listing a folder: asking for each of 144,000 clips takes minutes on a shared file system.
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
        """Number of clips."""
        return len(self._names)

    def __getitem__(self, clips: ClipIndices | int) -> Example:
        clips = (clips,) if isinstance(clips, int) else clips
        frames, waveforms = zip(*(self._decoded(index) for index in clips), strict=True)
        mixture = torch.stack(waveforms).float().mean(0) / 32768
        return Example(torch.cat(frames, dim=2), mixture, clips)

    def _decoded(self, index: int) -> tuple[Tensor, Tensor]:
        if index in self._kept:
            return self._kept[index]
        name = bytes(self._names[index]).decode()
        decoded = (
            _read_frame(self._frames / f"{name}.jpg", self.image_size),
            _read_waveform(find_sound(self._audio, name)),
        )
        if self.in_memory:
            self._kept[index] = decoded
        return decoded


def _read_frame(path: Path, size: int) -> Tensor:
    pixels = read_picture(path).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).contiguous()


def _read_waveform(sound: Sound) -> Tensor:
    """The clip's 3 s as (48000,) int16; shorter sounds are repeated."""
    path = sound.path
    try:
        return _read_part(sound)
    except soundfile.LibsndfileError as error:
        raise OSError(f"Expected {path} to be a sound, but it can't be read: {error}") from error


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
        raise ValueError(f"Expected {path} to hold {file.frames} samples, but it ends before")
    return torch.from_numpy(np.resize(samples, SAMPLES))
