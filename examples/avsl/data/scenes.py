"""Scenes as tensors: frames of one or more clips side by side, and their sounds mixed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..clip_ids import Sound, find_sound, sound_files
from ..constants import SILENCE
from ..pictures import read_picture
from ..sounds import flaw, level, read_clip

#: Indices of the clips of one scene: their frames are placed side by side and their sounds mixed.
ClipIndices = tuple[int, ...]

_SAMPLE = 32  # sounds that are looked at before any training or scoring

log = logging.getLogger(__name__)


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

    A silent or constant sound is logged with its name, the first time that any process reads it.

    Raises:
        FileNotFoundError: at construction, with the number of missing frames and sounds and the first one.
        ValueError: at construction, if all of some evenly picked sounds are silent or constant.
    """

    def __init__(self, root: Path, names: Sequence[str], image_size: int, *, in_memory: bool = False) -> None:
        self.image_size, self.in_memory = image_size, in_memory
        self._frames, self._audio = root / "frames", root / "audio"
        # One array of bytes is shared by worker processes; a list of strings would be copied into each.
        self._names = np.array([name.encode() for name in names], dtype=bytes)
        self._check()
        # Shared by worker processes, so that together they check and report each sound once.
        self._checked, self._flawed = (torch.zeros(len(names), dtype=torch.bool).share_memory_() for _ in range(2))
        self._listen()
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

    def _listen(self) -> None:
        """Reads some sounds, evenly picked, because a model trains on silence without any other sign."""
        picked = sorted({i * len(self._names) // _SAMPLE for i in range(_SAMPLE)} if len(self._names) else ())
        waveforms = [read_clip(self._sound(i)) for i in picked]
        if picked and max(map(level, waveforms)) < SILENCE:
            raise ValueError(
                f"Expected {self._audio} to hold sounds above {SILENCE:.0f} dBFS, but all of the {len(picked)} that "
                f"were looked at are silent or constant, first {self._sound(picked[0])}"
            )
        for index, waveform in zip(picked, waveforms, strict=True):
            self._report(index, waveform)

    def _sound(self, index: int) -> Sound:
        return find_sound(self._audio, bytes(self._names[index]).decode())

    def _report(self, index: int, waveform: np.ndarray) -> None:
        if self._checked[index]:
            return
        self._checked[index] = True
        if found := flaw(waveform):
            self._flawed[index] = True
            count = int(self._flawed.sum())
            log.warning("%s %s. Sounds with a warning so far: %d of %d", self._sound(index), found, count, len(self))

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, clips: ClipIndices | int) -> Example:
        clips = (clips,) if isinstance(clips, int) else clips
        frames, waveforms = zip(*(self._decoded(index) for index in clips), strict=True)
        return Example(torch.cat(frames, dim=2), torch.stack(waveforms).mean(0), clips)

    def _decoded(self, index: int) -> tuple[Tensor, Tensor]:
        if index in self._cache:
            return self._cache[index]
        waveform = read_clip(self._sound(index))
        self._report(index, waveform)
        name = bytes(self._names[index]).decode()
        decoded = _read_frame(self._frames / f"{name}.jpg", self.image_size), torch.from_numpy(waveform)
        if self.in_memory:
            self._cache[index] = decoded
        return decoded


def _read_frame(path: Path, size: int) -> Tensor:
    pixels = read_picture(path).resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).contiguous()
