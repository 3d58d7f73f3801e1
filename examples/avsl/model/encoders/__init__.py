"""Encoder pairs: frames (B, 3, H, W) uint8 → features (B, C, h, w), 16 kHz waveforms (B, T) → embeddings (B, C)."""

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
    """The visual and the audio encoder of ``config.backbone``.

    With ``architectures``, the encoders' own attribute ``architecture`` by "visual" and "audio", nothing is loaded:
    weights are random, for a checkpoint's to take their place.
    """
    c = config
    given = architectures or {"visual": c.visual_weights, "audio": c.audio_weights}
    if c.backbone == "clip-clap":
        frozen = c.tower_rate == 0
        return (
            ClipVisualEncoder(given["visual"], c.embedding_dim, frozen=frozen),
            ClapAudioEncoder(given["audio"], c.embedding_dim, frozen=frozen),
        )
    return (
        VisualEncoder(build_trunk(given["visual"], 3, c.visual_widths, c.visual_depths), c.embedding_dim),
        AudioEncoder(build_trunk(given["audio"], 1, c.audio_widths, c.audio_depths), c.embedding_dim),
    )


def parameter_groups(visual: nn.Module, audio: nn.Module, config: Config) -> list[dict[str, Any]]:
    """What the optimizer trains, with its rates: whole ResNets; of CLIP and CLAP the heads and, unless frozen, the
    towers at ``tower_rate``."""
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
