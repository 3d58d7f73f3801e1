"""DMC: one cluster of a frame's pixels has to be near the center of its sound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslosses import cluster_correspondence_loss, soft_kmeans

from ..config import ONE_MAP
from ..data.loading import SceneBatch
from ..model.encoders import Encoded, Encoders
from ..model.method import Method, ScoredMaps, Setting


@dataclass(frozen=True)
class Options:
    """``visual_clusters``: one more than the sources of a frame. ``normalize``: whether points have length 1."""

    visual_clusters: int = 2
    audio_clusters: int = 1
    sharpness: float = 30.0
    margin: float = 5.0
    normalize: bool = False

    def __post_init__(self) -> None:
        if self.visual_clusters < 2:
            raise ValueError(f"Expected `visual_clusters` to be at least 2, but got {self.visual_clusters}")


class Dmc(Method):
    """Soft k-means of both maps. Its own maps are the shares of the pixels in the clusters nearest to the sound."""

    Options: ClassVar[type] = Options
    leaves_parameters_unused: ClassVar[bool] = True
    identifications: ClassVar[tuple[str, ...]] = (*ONE_MAP, "own")

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.sound = nn.Conv2d(setting.sound, setting.config.embedding_dim, 1)

    def features(self, encoded: Encoded) -> tuple[Tensor, Tensor]:
        return encoded.visual, self.sound(encoded.sound).mean((2, 3))

    def loss(self, batch: SceneBatch, encoders: Encoders) -> dict[str, Tensor]:
        encoded = encoders.encode(batch.frames, batch.waveforms)
        sound = self.sound(encoded.sound)
        terms = cluster_correspondence_loss(encoded.visual, sound, gather_distributed=True, **vars(self.options))
        return {"total": terms.loss, "positive": terms.positive, "negative": terms.negative}

    def sound_map(self, encoded: Encoded) -> Tensor:
        """Computes how near each pixel is to the center of the sound; the loss compares distances, not cosines."""
        points, sound = self._points(encoded)
        distances = torch.linalg.vector_norm(points - sound[:, None], dim=2)
        return -distances.unflatten(1, encoded.visual.shape[2:])

    def own_maps(self, encoded: Encoded, num_sources: int | None) -> ScoredMaps:
        points, sound = self._points(encoded)
        count = num_sources or self.options.visual_clusters - 1
        clusters = soft_kmeans(points, count + 1, sharpness=self.options.sharpness)
        distances = torch.linalg.vector_norm(clusters.centers - sound[:, None], dim=2)
        # One cluster is the background: the farthest from the sound.
        near = (-distances).topk(count, dim=1).indices
        maps = clusters.assignment.gather(1, near[..., None].expand(-1, -1, points.shape[1]))
        return ScoredMaps(maps.unflatten(2, encoded.visual.shape[2:]), -distances.gather(1, near))

    def _points(self, encoded: Encoded) -> tuple[Tensor, Tensor]:
        """The pixels (B, N, C) and the center of the sound (B, C), as the loss sees them."""
        points, cells = (x.flatten(2).mT for x in (encoded.visual, self.sound(encoded.sound)))
        if self.options.normalize:
            points, cells = F.normalize(points, dim=2), F.normalize(cells, dim=2)
        return points, cells.mean(1)


METHOD = Dmc
