"""AVGN: class tokens gather the features of frames and sounds; the group of a source's class finds its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslosses import ClassGrouping, grouping_loss

from ..config import ONE_MAP
from ..data.loading import SceneBatch
from ..model.encoders import Encoded, Encoders
from ..model.method import Method, ScoredMaps, Setting


@dataclass(frozen=True)
class Options:
    """``depth``: transformer blocks per modality. ``normalize_audio``: cosines in place of the published products."""

    temperature: float = 0.03
    depth: int = 3
    heads: int = 8
    normalize_audio: bool = False
    drop_path: float = 0.1


class Avgn(Method):
    """Needs the classes of the training scenes. As published, it is given those of the test scenes, too."""

    Options: ClassVar[type] = Options
    needs_classes: ClassVar[bool] = True
    identifications: ClassVar[tuple[str, ...]] = (*ONE_MAP, "own", "given")

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        size, count, o = setting.config.embedding_dim, len(setting.classes), self.options
        self.tokens = nn.Parameter(torch.zeros(count, size))
        self.visual_grouping, self.audio_grouping = (
            ClassGrouping(count, dim=size, depth=o.depth, heads=o.heads, drop_path=o.drop_path) for _ in range(2)
        )
        self.visual_presence, self.audio_presence = nn.Linear(size, 1), nn.Linear(size, 1)
        self.token_classes = nn.Linear(size, count)

    def sound_groups(self, encoded: Encoded) -> tuple[Tensor, Tensor]:
        """Computes the groups of the sounds (B, M, C) and the logits (B, M) of the presence of each class."""
        groups = self.audio_grouping(F.normalize(encoded.audio, dim=1)[:, None], self.tokens)
        return groups, self.audio_presence(groups)[..., 0]

    def features(self, encoded: Encoded) -> tuple[Tensor, Tensor]:
        groups, logits = self.sound_groups(encoded)
        return F.normalize(encoded.visual, dim=1), (logits.sigmoid()[..., None] * groups).sum(1)

    def loss(self, batch: SceneBatch, encoders: Encoders) -> dict[str, Tensor]:
        encoded = encoders.encode(batch.frames, batch.waveforms)
        groups, audio_logits = self.sound_groups(encoded)
        pixels = F.normalize(encoded.visual, dim=1).flatten(2).mT
        visual_logits = self.visual_presence(self.visual_grouping(pixels, self.tokens))[..., 0]
        sources = batch.classes.clamp(min=0)
        present = F.one_hot(sources, len(self.tokens)).bool() & batch.source_mask[..., None]
        terms = grouping_loss(
            encoded.visual,
            groups,
            sources,
            self.token_classes(self.tokens),
            visual_logits,
            audio_logits,
            present.any(1),
            present.any(1),
            batch.source_mask,
            temperature=self.options.temperature,
            normalize_audio=self.options.normalize_audio,
            gather_distributed=True,
        )
        names = ("localization", "token", "visual_presence", "audio_presence")
        return {"total": terms.loss} | {name: getattr(terms, name) for name in names}

    def own_maps(self, encoded: Encoded, _: int | None) -> ScoredMaps:
        groups, logits = self.sound_groups(encoded)
        maps = torch.einsum("bchw,bmc->bmhw", F.normalize(encoded.visual, dim=1), groups)
        return ScoredMaps(maps, logits, 0.0)


METHOD = Avgn
