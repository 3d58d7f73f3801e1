"""Pairs of encoders: frames (B, 3, H, W) uint8 → features (B, C, h, w), 16 kHz waveforms (B, T) → embeddings (B, C)."""

from __future__ import annotations

from typing import Any

from torch import nn

from ...config import Config
from .clap import ClapAudioEncoder
from .clip import ClipVisualEncoder
from .resnet import AudioEncoder, VisualEncoder, build_trunk

__all__ = [
    "AudioEncoder",
    "ClapAudioEncoder",
    "ClipVisualEncoder",
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
    if c.backbone == "clip-clap":
        frozen = c.tower_rate == 0
        return (
            ClipVisualEncoder(weights["visual"], c.embedding_dim, frozen=frozen),
            ClapAudioEncoder(weights["audio"], c.embedding_dim, frozen=frozen),
        )
    return (
        VisualEncoder(build_trunk(weights["visual"], 3, c.visual_widths, c.visual_depths), c.embedding_dim),
        AudioEncoder(build_trunk(weights["audio"], 1, c.audio_widths, c.audio_depths), c.embedding_dim),
    )


def parameter_groups(visual: nn.Module, audio: nn.Module, config: Config) -> list[dict[str, Any]]:
    """Returns the parameters to train with their learning rates.

    ResNets are trained as a whole. For CLIP and CLAP, the heads are trained and, unless frozen, the towers at
    ``tower_rate``.
    """
    c = config
    if c.backbone != "clip-clap":
        return [
            {"params": list(audio.parameters()), "lr": c.rate},
            {"params": list(visual.parameters()), "lr": c.visual_rate},
        ]
    groups = [
        {"params": list(audio.head.parameters()), "lr": c.rate},
        {"params": list(visual.head.parameters()), "lr": c.visual_rate},
    ]
    if c.tower_rate > 0:
        towers = [*visual.tower.parameters(), *audio.tower.parameters()]
        groups.append({"params": towers, "lr": c.tower_rate})
    return groups
