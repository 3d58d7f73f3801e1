"""What encoders compute: the features of their trunks and, from these, their outputs."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn


class Encoding(NamedTuple):
    """What one encoder computes.

    trunk: (B, D, h, w) features of the trunk. output: what the head makes of them, (B, C, h, w) for frames, (B, C) for
    sounds.
    """

    trunk: Tensor
    output: Tensor


class Encoded(NamedTuple):
    """A batch of scenes after both encoders.

    visual: (B, C, h, w), features of the pixels. audio: (B, C), features of the sounds. trunk: (B, D, h, w), the
    trunk's features of the pixels, which ``visual`` is computed from. sound: (B, E, f, t), the trunk's features of the
    sounds before pooling, which ``audio`` is computed from; f = t = 1 where the trunk pools itself.
    """

    visual: Tensor
    audio: Tensor
    trunk: Tensor
    sound: Tensor


class Encoders(NamedTuple):
    """The visual and the audio encoder of a model."""

    visual: nn.Module
    audio: nn.Module

    def encode(self, frames: Any, waveforms: Any) -> Encoded:
        """Encodes a batch; features of a frozen encoder can take the place of frames or waveforms."""
        trunk, visual = self.visual.encode(frames)
        sound, audio = self.audio.encode(waveforms)
        return Encoded(visual, audio, trunk, sound)
