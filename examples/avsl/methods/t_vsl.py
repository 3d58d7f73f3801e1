"""T-VSL: the names of the classes pick features out of frames and sounds, and both picks of a source have to agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslosses import TextGuidedHeads, text_guided_loss, text_guided_maps, text_guided_queries

from ..config import ONE_MAP
from ..data.loading import SceneBatch
from ..model.caption_features import TextProjection
from ..model.encoders import Encoded, Encoders
from ..model.method import Method, ScoredMaps, Setting


@dataclass(frozen=True)
class Options:
    """``scale``: scale of the cosines in all terms but the presence, whose scale is trained.

    ``whiten``: whether text features are centered and whitened, as those of captions are. If not, they are taken as
    they are, and their size has to be that of the space that frames and sounds share. ``normalize_audio``: whether the
    cells of the sound are scaled to length 1 before their gate.
    """

    scale: float = 100.0
    whiten: bool = True
    normalize_audio: bool = False

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ValueError(f"Expected `scale` to be above 0, but got {self.scale}")


class TVsl(Method):
    """Needs the classes of the training scenes. The published evaluation gives it those of the test scenes, too."""

    Options: ClassVar[type] = Options
    needs_classes: ClassVar[bool] = True
    needs_class_text: ClassVar[bool] = True
    leaves_parameters_unused: ClassVar[bool] = True
    identifications: ClassVar[tuple[str, ...]] = (*ONE_MAP, "own", "given")

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        size = setting.config.embedding_dim
        self.sound, self.heads = nn.Conv2d(setting.sound, size, 1), TextGuidedHeads(size)
        # A buffer, so that a checkpoint has it: at test time, no text encoder is needed.
        self.register_buffer("names", torch.zeros(len(setting.classes), size))

    def set_class_text(self, features: Tensor) -> None:
        size = self.names.shape[1]
        if self.options.whiten:
            if len(features) < 2:
                raise ValueError(
                    "Expected training clips of at least two classes for the method t-vsl, whose names are whitened, "
                    f"but got {len(features)}"
                )
            projection = TextProjection(features.shape[1], size)
            projection.fit(features, self.config.text_shrinkage)
            features = projection(features)
        elif features.shape[1] != size:
            raise ValueError(
                f"Expected `embedding_dim` to be {features.shape[1]}, the size of the text features, for the method "
                f"t-vsl with whiten=false, but got {size}"
            )
        self.names.copy_(features)

    def loss(self, batch: SceneBatch, encoders: Encoders) -> dict[str, Tensor]:
        encoded = encoders.encode(batch.frames, batch.waveforms)
        scales = dict.fromkeys(("image_scale", "audio_scale", "pair_scale"), self.options.scale)
        terms = text_guided_loss(
            encoded.visual,
            self.sound(encoded.sound),
            self.names,
            batch.classes,
            batch.source_mask,
            heads=self.heads,
            normalize_audio=self.options.normalize_audio,
            gather_distributed=True,
            **scales,
        )
        names = ("image_class", "audio_class", "contrast", "presence")
        return {"total": terms.loss} | {name: getattr(terms, name) for name in names}

    def features(self, encoded: Encoded) -> tuple[Tensor, Tensor]:
        presence, queries, pixels = text_guided_queries(*self._inputs(encoded), **self._shared())
        # The weights are the probabilities of the classes, divided by the largest one, so that not all of them are 0.
        weights = F.logsigmoid(presence)
        weights = (weights - weights.amax(1, keepdim=True)).exp()
        return pixels, (weights[..., None] * queries).sum(1)

    def own_maps(self, encoded: Encoded, _: int | None) -> ScoredMaps:
        inputs, shared = self._inputs(encoded), self._shared()

        def maps(classes: Tensor) -> Tensor:
            return text_guided_maps(*inputs[:2], self.names[classes], **shared)

        return ScoredMaps(maps, text_guided_queries(*inputs, **shared).presence, 0.0)

    def _inputs(self, encoded: Encoded) -> tuple[Tensor, Tensor, Tensor]:
        """The features of pixels and of the sound's cells, and the names of all classes for each sample."""
        return encoded.visual, self.sound(encoded.sound), self.names.expand(len(encoded.visual), -1, -1)

    def _shared(self) -> dict[str, object]:
        return {"heads": self.heads, "normalize_audio": self.options.normalize_audio}


METHOD = TVsl
