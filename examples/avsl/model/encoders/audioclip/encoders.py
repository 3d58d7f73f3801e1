"""A visual and an audio encoder on AudioCLIP's towers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # also the base of SyncBatchNorm

from ....constants import SAMPLE_RATE
from ..clip import MEAN, STD
from ..resampling import Upsample
from ..tower import Tower, by_frame
from .audio import AudioTower
from .checkpoint import read_checkpoint
from .image import ImageMap, ImageTower, Map
from .sizes import Sizes
from .spectrogram import RATE


class _AudioClipEncoder(Tower):
    """Base of both encoders. Batch statistics are always those of the checkpoint, also where the tower is trained.

    The last gate for sounds normalizes one place per sound. So a batch of one sound would have no statistics, and those
    of a small batch would be mostly noise.
    """

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        for module in self.tower.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self


class AudioClipVisualEncoder(_AudioClipEncoder):
    """Encodes frames, (B, 3, H, W) uint8 → (B, C, H/32, W/32), with AudioCLIP's image tower and a 1×1 head.

    If C is the dimension of AudioCLIP's joint space, the head starts as the identity.

    Args:
        weights: AudioCLIP's checkpoint; or the ``architecture`` of an encoder, for random weights.
        out: C.
        kind: which map of the tower, see :class:`~avsl.model.encoders.audioclip.image.ImageMap`.
        frozen: whether only the head is trained.
        allow_stand_in: whether a stand-in, which has random weights, is accepted.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        weights: str | dict[str, Any],
        out: int,
        *,
        kind: Map = "values",
        frozen: bool = True,
        allow_stand_in: bool = False,
    ) -> None:
        super().__init__(frozen=frozen)
        if isinstance(weights, dict):
            sizes = _sizes(weights)
            tower = ImageTower(sizes)
        else:
            checkpoint = read_checkpoint("visual_weights", weights, allow_stand_in=allow_stand_in)
            sizes = checkpoint.sizes
            tower = ImageTower(sizes)
            tower.load_state_dict(checkpoint.image)
        self.architecture = {"name": "audioclip", "sizes": _plain(sizes), "map": kind}
        self.tower = ImageMap(tower, kind)
        self.trunk_channels = sizes.embedding
        self.head = _from_joint_space(nn.Conv2d(sizes.embedding, out, 1))
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)
        self.freeze()

    def features(self, inputs: Tensor) -> Tensor:
        return by_frame(self.tower, (inputs.float() / 255 - self.mean) / self.std)


class AudioClipAudioEncoder(_AudioClipEncoder):
    """Encodes 16 kHz waveforms in −1 to 1, (B, T) → (B, C), with AudioCLIP's audio tower and a linear head.

    The trunk's features are the map before pooling, (B, 2048, 11, 8) for 3 s. The head reads AudioCLIP's embedding of
    the sound. If C is the dimension of this embedding, the head starts as the identity.

    Args:
        weights: AudioCLIP's checkpoint; or the ``architecture`` of an encoder, for random weights.
        out: C.
        frozen: whether only the head is trained.
        allow_stand_in: whether a stand-in, which has random weights, is accepted.
    """

    tower: AudioTower

    def __init__(
        self, weights: str | dict[str, Any], out: int, *, frozen: bool = True, allow_stand_in: bool = False
    ) -> None:
        super().__init__(frozen=frozen)
        if isinstance(weights, dict):
            sizes = _sizes(weights)
            self.tower = AudioTower(sizes)
        else:
            checkpoint = read_checkpoint("audio_weights", weights, allow_stand_in=allow_stand_in)
            sizes = checkpoint.sizes
            self.tower = AudioTower(sizes)
            self.tower.load_state_dict(checkpoint.audio)
        self.architecture = {"name": "audioclip", "sizes": _plain(sizes)}
        self.upsample = Upsample(RATE // 100, SAMPLE_RATE // 100)
        self.trunk_channels = self.tower.fc.in_features
        self.head = _from_joint_space(nn.Linear(sizes.embedding, out))
        self.freeze()

    def features(self, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            sounds = self.upsample(inputs)
        return self.tower.features(sounds, "unit")

    def output(self, trunk: Tensor) -> Tensor:
        return self.head(self.tower.embed(trunk))


def _sizes(architecture: dict[str, Any]) -> Sizes:
    values = architecture["sizes"]
    return Sizes(**values | {"depths": tuple(values["depths"])})


def _plain(sizes: Sizes) -> dict[str, Any]:
    return sizes._asdict() | {"depths": list(sizes.depths)}


def _from_joint_space(head: nn.Conv2d | nn.Linear) -> nn.Module:
    """Makes a head of equal dimensions the identity: before training, similarities are then AudioCLIP's."""
    if head.weight.shape[0] == head.weight.shape[1]:
        nn.init.eye_(head.weight.data.flatten(1))
        nn.init.zeros_(head.bias)
    return head
