"""Scenes as tensors: frames of one or more clips side by side, and their sounds mixed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..clip_ids import Sound, find_sound, sound_files
from ..constants import SILENCE
from ..model.encoders.tower import Features, Tower
from ..model.feature_file import FeatureFile, compute_features, file_key
from ..pictures import read_picture
from ..sounds import flaw, level, read_clip
from .kinds import prepare_command

#: Indices of the clips of one scene: their frames are placed side by side and their sounds mixed.
ClipIndices = tuple[int, ...]
#: What a frozen encoder reads.
Kind = Literal["frames", "sounds"]

_SAMPLE = 32  # sounds that are looked at before any training or scoring

log = logging.getLogger(__name__)


class Example(NamedTuple):
    """A scene of n clips: frames (3, S, n·S) uint8, the mean of the waveforms (48000,) float32, and the clips.

    The features of a frozen encoder can take the place of frames or waveforms.
    """

    frame: Tensor | Features
    waveform: Tensor | Features
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
        self._cache: dict[int, tuple[Tensor | Features, Tensor | Features]] = {}
        self._features: dict[str, tuple[FeatureFile, Tensor]] = {}  # with the key of each clip, (N, 16) uint8

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
            raise FileNotFoundError(
                f"{missing} of {2 * len(self._names)} listed files are missing, first {first}. "
                f"Create them with: {prepare_command(self._frames.parent)}"
            )

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

    def use_features(self, kind: Kind, encoder: Tower, folder: Path) -> None:
        """Computes the features of all frames or sounds, unless ``folder`` has them; examples then hold them instead.

        Features of sounds serve scenes of one clip only, since the features of a mixture are not those of its parts.
        """
        if kind == "frames":
            load, keys = self._frame, [file_key(self._frame_path(i)) for i in range(len(self))]
        else:
            sounds = map(self._sound, range(len(self)))
            load, keys = self._waveform, [file_key(sound.path, repr(sound.seconds)) for sound in sounds]
        file = compute_features(encoder, keys, load, folder, kind=kind)
        self._features[kind] = file, torch.frombuffer(bytearray(b"".join(keys)), dtype=torch.uint8).view(-1, 16)
        self._cache.clear()

    def __getitem__(self, clips: ClipIndices | int) -> Example:
        clips = (clips,) if isinstance(clips, int) else clips
        frames, waveforms = zip(*(self._decoded(index) for index in clips), strict=True)
        return Example(_side_by_side(frames), _mixed(waveforms), clips)

    def pixels(self, clips: ClipIndices) -> Tensor:
        """Returns the frames of a scene side by side, also where examples hold features, (3, S, n·S) uint8."""
        return torch.cat([self._frame(index) for index in clips], dim=2)

    def _decoded(self, index: int) -> tuple[Tensor | Features, Tensor | Features]:
        if index in self._cache:
            return self._cache[index]
        frame = self._stored("frames", index) or self._frame(index)
        decoded = frame, self._stored("sounds", index) or self._waveform(index)
        if self.in_memory:
            self._cache[index] = decoded
        return decoded

    def _stored(self, kind: Kind, index: int) -> Features | None:
        if kind not in self._features:
            return None
        file, keys = self._features[kind]
        return file.read(bytes(keys[index].tolist()))

    def _frame_path(self, index: int) -> Path:
        return self._frames / f"{bytes(self._names[index]).decode()}.jpg"

    def _frame(self, index: int) -> Tensor:
        return _read_frame(self._frame_path(index), self.image_size)

    def _waveform(self, index: int) -> Tensor:
        waveform = read_clip(self._sound(index))
        self._report(index, waveform)
        return torch.from_numpy(waveform)


def stacked(values: Sequence[Tensor | Features]) -> Tensor | Features:
    """Stacks the frames or waveforms of a batch, or their features."""
    return _joined(torch.stack, values)


def _side_by_side(frames: Sequence[Tensor | Features]) -> Tensor | Features:
    return _joined(partial(torch.cat, dim=2), frames)


def _mixed(waveforms: Sequence[Tensor | Features]) -> Tensor | Features:
    if len(waveforms) > 1 and isinstance(waveforms[0], Features):
        raise ValueError("Expected waveforms for a scene of several clips, but got the features of each clip")
    return _joined(lambda values: torch.stack(values).mean(0) if len(values) > 1 else values[0], waveforms)


def _joined(join: Callable[[list[Tensor]], Tensor], values: Sequence[Tensor | Features]) -> Tensor | Features:
    joined = join([value.values if isinstance(value, Features) else value for value in values])
    return Features(joined) if isinstance(values[0], Features) else joined


def _read_frame(path: Path, size: int) -> Tensor:
    pixels = read_picture(path).resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).contiguous()
