"""Pairs of encoders: frames (B, 3, H, W) uint8 → features (B, C, h, w), 16 kHz waveforms (B, T) → embeddings (B, C)."""

from __future__ import annotations

from typing import Any

from torch import nn

from ...config import Config
from .audioclip import AudioClipAudioEncoder, AudioClipVisualEncoder
from .clap import ClapAudioEncoder
from .clip import ClipVisualEncoder
from .efficientnet import EfficientNetVisualEncoder
from .encoded import Encoded, Encoders, Encoding
from .resnet import AudioEncoder, VisualEncoder, build_trunk, use_stride_16
from .tower import Features, Tower

__all__ = [
    "AudioClipAudioEncoder",
    "AudioClipVisualEncoder",
    "AudioEncoder",
    "ClapAudioEncoder",
    "ClipVisualEncoder",
    "EfficientNetVisualEncoder",
    "Encoded",
    "Encoders",
    "Encoding",
    "Features",
    "Tower",
    "VisualEncoder",
    "build_encoders",
    "build_trunk",
    "parameter_groups",
]


def build_encoders(config: Config, architectures: dict[str, Any] | None = None) -> tuple[nn.Module, nn.Module]:
    """Builds the visual and the audio encoder of ``config.backbone``.

    With ``architectures`` (the encoders' attributes ``architecture``, under "visual" and "audio") no weights are
    loaded. The weights are then random, to be replaced by those of a checkpoint.
    """
    c = config
    weights = architectures or {"visual": c.visual_weights, "audio": c.audio_weights}
    frozen = c.tower_rate == 0
    if c.backbone == "clip-clap":
        return (
            ClipVisualEncoder(weights["visual"], c.embedding_dim, frozen=frozen),
            ClapAudioEncoder(weights["audio"], c.embedding_dim, frozen=frozen),
        )
    if c.backbone == "audioclip":
        options: Any = {"frozen": frozen, "allow_stand_in": c.smoke_test}
        return (
            AudioClipVisualEncoder(weights["visual"], c.embedding_dim, kind=c.audioclip_map, **options),
            AudioClipAudioEncoder(weights["audio"], c.embedding_dim, **options),
        )
    if c.backbone == "resnet":  # before the audio encoder, since the order decides the random weights of a seed
        trunk = build_trunk(weights["visual"], 3, c.visual_widths, c.visual_depths)
        visual = VisualEncoder(use_stride_16(trunk) if c.visual_stride == 16 else trunk, c.embedding_dim)
    audio_trunk = build_trunk(weights["audio"], 1, c.audio_widths, c.audio_depths)
    audio = AudioEncoder(audio_trunk, c.embedding_dim, c.audio_pooling)
    if c.backbone == "efficientnet-lite0":
        visual = EfficientNetVisualEncoder(weights["visual"], c.embedding_dim, frozen=frozen)
    return visual, audio


def parameter_groups(visual: nn.Module, audio: nn.Module, method: nn.Module, config: Config) -> list[dict[str, Any]]:
    """Returns the parameters to train with their learning rates.

    ResNets are trained as a whole. Of encoders with a tower, the head is trained and, unless frozen, the tower at
    ``tower_rate``. The parameters of the method are trained at the rate of the audio encoder.
    """
    # Checkpoints hold the optimizer's state by position, so the order of groups and parameters stays as it is.
    groups = []
    for encoder, rate in ((audio, config.rate), (visual, config.visual_rate)):
        trained = encoder.head if isinstance(encoder, Tower) else encoder
        groups.append({"params": list(trained.parameters()), "lr": rate})
    trained_towers = (e.tower for e in (visual, audio) if isinstance(e, Tower) and not e.frozen)
    if towers := [parameter for tower in trained_towers for parameter in tower.parameters()]:
        groups.append({"params": towers, "lr": config.tower_rate})
    if parameters := list(method.parameters()):
        groups.append({"params": parameters, "lr": config.rate})
    return groups
