"""Mix-and-Localize: a walk from a sound of a mixture to a frame and back has to return to the sound."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslosses import cycle_walk_loss, similarity_map

from ..config import ONE_MAP
from ..data.loading import SceneBatch
from ..model.encoders import Encoded, Encoders
from ..model.method import Method, ScoredMaps, Setting


@dataclass(frozen=True)
class Options:
    """``temperature``: of both steps of the walk."""

    temperature: float = 0.07


class MixAndLocalize(Method):
    """Heads split the sound of a mixture into nodes, as many as a scene can have sources, and at least two.

    Scenes of one clip are mixed in the batch: clips with one source, as they follow each other. The two sounds of a
    walk are the first and the second half of the mixture.
    """

    Options: ClassVar[type] = Options
    leaves_parameters_unused: ClassVar[bool] = True
    needs_waveforms: ClassVar[bool] = True
    identifications: ClassVar[tuple[str, ...]] = (*ONE_MAP, "own")

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        size, self.count = setting.config.embedding_dim, max(setting.sources, 2)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(setting.sound, size), nn.ReLU(), nn.Linear(size, size)) for _ in range(self.count)
        )

    def nodes(self, sound: Tensor) -> Tensor:
        """Computes the nodes (B, K, C) of sounds, from the trunk's features (B, E, t, f)."""
        pooled = sound.amax((2, 3))
        return F.normalize(torch.stack([head(pooled) for head in self.heads], dim=1), dim=2)

    def features(self, encoded: Encoded) -> tuple[Tensor, Tensor]:
        return F.normalize(encoded.visual, dim=1), self.nodes(encoded.sound).mean(1)

    def loss(self, batch: SceneBatch, encoders: Encoders) -> dict[str, Tensor]:
        visual, waveforms = encoders.visual.encode(batch.frames).output, batch.waveforms
        clips = batch.clips.shape[1]
        if clips == 1:
            alone = batch.source_mask.sum(1) == 1
            visual, waveforms = visual[alone], waveforms[alone]
            groups = len(visual) // self.count
            if not groups:
                warnings.warn(
                    f"A batch has {len(visual)} scenes of one source. Mix-and-Localize mixes {self.count} of them, so "
                    "it learns nothing from such batches",
                    stacklevel=2,
                )
            frames = visual[: groups * self.count].unflatten(0, (groups, self.count))
            waveforms = waveforms[: groups * self.count].unflatten(0, (groups, self.count)).mean(1)
        elif visual.shape[3] % clips:
            raise ValueError(
                f"Expected `image_size` to be a multiple of the stride of the visual encoder, so that the map of a "
                f"mixture of {clips} frames can be cut, but got {self.config.image_size}, a map of {visual.shape[3]}"
            )
        else:
            frames = torch.stack(visual.chunk(clips, dim=3), dim=1)
        # Sounds are encoded even if there is nothing to mix: other processes may wait for their batch statistics.
        heard = waveforms if len(waveforms) else batch.waveforms[:1]
        groups, count = frames.shape[:2]
        nodes, start_nodes = (
            self.nodes(encoders.audio.encode(half).trunk)[:groups, :count] for half in heard.chunk(2, dim=1)
        )
        terms = cycle_walk_loss(
            frames, nodes, start_nodes, temperature=self.options.temperature, gather_distributed=True
        )
        return {"total": terms.loss, "accuracy": terms.accuracy}

    def own_maps(self, encoded: Encoded, _: int | None) -> ScoredMaps:
        maps = similarity_map(encoded.visual, self.nodes(encoded.sound))
        return ScoredMaps(maps, maps.amax((2, 3)))


METHOD = MixAndLocalize
