"""What a method is: its parts beside the encoders, its loss on a batch, and its maps at test time."""

from __future__ import annotations

import dataclasses
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslosses import similarity_map

from ..config import ONE_MAP, Config
from .encoders import Encoded, Encoders

if typing.TYPE_CHECKING:
    from ..data.loading import Clips, SceneBatch


class Setting(NamedTuple):
    """What a method is built for.

    config: the configuration of the run. trunk, sound: numbers of channels of the trunks' features. classes: names of
    the classes of the training clips, sorted; a class is known by its index here. sources: largest number of sources
    per training scene. text: size of the caption features, 0 without captions. copy_audio: makes another audio encoder
    with equal weights.
    """

    config: Config
    trunk: int
    sound: int
    classes: tuple[str, ...]
    sources: int
    text: int
    copy_audio: Callable[[], nn.Module]


class SourceMaps(NamedTuple):
    """One map per source: maps (B, M, h, w), valid (B, M) bool, True where there is a source.

    peaks: (B, M), the similarity of the sound at the pixel that stands out most in the source; 0 where there is none.
    """

    maps: Tensor
    valid: Tensor
    peaks: Tensor


class ScoredMaps(NamedTuple):
    """A method's own maps (B, M, h, w), one per class or part, and a score (B, M) per map.

    In place of the maps, there can be a function. It takes the numbers (B, K) of those that are needed, and returns
    these maps (B, K, h, w).

    A map is of a source if its score is above ``threshold``, where the number of sources is not known.
    """

    maps: Tensor | Callable[[Tensor], Tensor]
    scores: Tensor
    threshold: float = -torch.inf


@dataclass(frozen=True)
class NoOptions:
    """The options of a method that has none."""


class Method(nn.Module, ABC):
    """One system of the tables. The encoders are the same for all.

    A subclass sets the class attributes that differ, and writes :meth:`loss`. It writes :meth:`features` if its space
    is not that of the encoders' outputs, and :meth:`own_maps` if it has a map per source of its own.

    Attributes:
        Options: a frozen dataclass; its fields are the names and defaults of ``method_options``.
        needs_captions: whether the loss reads captions.
        needs_classes: whether the method needs the class names of the training clips, or their number.
        needs_class_text: whether the method needs text features of the class names, and has :meth:`set_class_text`.
        needs_waveforms: whether the loss reads waveforms, so that their features can't be cached.
        leaves_parameters_unused: whether a loss may use only some of the parameters that are trained, which
            DistributedDataParallel has to know.
        identifications: how it can tell the sources of a mixture apart. "own" and "given" need :meth:`own_maps`, and
            "given" needs one map per class.
    """

    Options: ClassVar[type] = NoOptions
    needs_captions: ClassVar[bool] = False
    needs_classes: ClassVar[bool] = False
    needs_class_text: ClassVar[bool] = False
    needs_waveforms: ClassVar[bool] = False
    leaves_parameters_unused: ClassVar[bool] = False
    identifications: ClassVar[tuple[str, ...]] = ONE_MAP

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.setting = setting
        self.config = setting.config
        self.options: Any = read_options(self.Options, setting.config.method, setting.config.method_options)

    def warm_up(self, device: torch.device) -> None:
        """Runs, on values that do not matter, what compiles code when it first runs. Called once before training."""

    @abstractmethod
    def loss(self, batch: SceneBatch, encoders: Encoders) -> dict[str, Tensor]:
        """Computes the loss of a batch under the name "total", and terms to report under other names."""

    def encode(self, frames: Any, waveforms: Any, encoders: Encoders) -> Encoded:
        """Encodes scenes for this method."""
        return encoders.encode(frames, waveforms)

    def features(self, encoded: Encoded) -> tuple[Tensor, Tensor]:
        """Computes features of pixels (B, C, h, w) and of sounds (B, C), whose cosine is the sound's map."""
        return F.normalize(encoded.visual, dim=1), encoded.audio

    def sound_map(self, encoded: Encoded) -> Tensor:
        """Computes S_a, (B, h, w): where the sound as a whole comes from."""
        return similarity_map(*self.features(encoded))

    def own_maps(self, encoded: Encoded, num_sources: int | None) -> ScoredMaps:
        """Computes the method's own maps, for methods that have any."""
        raise NotImplementedError(f"{type(self).__name__} has no maps of its own")

    def set_class_text(self, features: Tensor) -> None:
        """Takes the text encoder's features (M, D) of the class names. It is called once, before training.

        What it makes of them belongs into a buffer, since no text encoder is loaded at test time.
        """
        raise NotImplementedError(f"{type(self).__name__} reads no class names")

    def start_epoch(self, epoch: int, encoders: Encoders, clips: Iterator[Clips]) -> None:
        """Prepares what the next epoch needs, for methods with stages.

        It is called once per epoch, before its first batch. ``clips`` iterates over all training clips. All that it
        prepares belongs into buffers or :meth:`get_extra_state`, so that a resumed run equals an uninterrupted one.
        """


def read_options(kind: type, method: str, texts: Sequence[str]) -> Any:
    """Reads options of the form ``name=value`` into the dataclass ``kind``.

    Raises:
        ValueError: if an option is unknown, named twice, malformed or not of the type of its field.
    """
    hints = typing.get_type_hints(kind)
    known = [field.name for field in dataclasses.fields(kind)]
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in known or name in values:
            names = f"once each of {', '.join(known)}, as name=value" if known else "empty, since it has no options"
            raise ValueError(f"Expected `method_options` of {method} to be {names}, but got {text!r}")
        values[name] = _converted(hints[name], method, name, value)
    return kind(**values)


def _converted(hint: type, method: str, name: str, text: str) -> Any:
    if hint is bool:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
    else:
        try:
            value = hint(text)
        except ValueError:
            value = None
        if value is not None and (hint is not float or abs(value) < float("inf")):
            return value
    raise ValueError(f"Expected `method_options` of {method} to hold {name} as {hint.__name__}, but got {text!r}")


def select_maps(scored: ScoredMaps, num_sources: int | None, classes: Tensor | None) -> tuple[Tensor, Tensor]:
    """Selects the maps of the given ``classes`` (B, K), or else those with the largest scores.

    If neither the classes nor their number are known, they are those with scores above the threshold, and at least one.
    The result is the maps (B, K, h, w) and whether each is of a source (B, K).
    """
    maps, scores, threshold = scored
    if classes is not None:
        index, valid = classes, torch.ones_like(classes, dtype=torch.bool)
    else:
        best, index = scores.topk(min(num_sources or scores.shape[1], scores.shape[1]), dim=1)
        valid = torch.ones_like(index, dtype=torch.bool)
        if not num_sources:
            valid = best > threshold
            valid[:, :1] = True
            most = int(valid.sum(1).max()) if len(valid) else 1
            index, valid = index[:, :most], valid[:, :most]
    if isinstance(maps, Tensor):
        chosen = maps.gather(1, index[:, :, None, None].expand(-1, -1, *maps.shape[2:]))
    else:
        chosen = maps(index)
    return chosen * valid[:, :, None, None], valid
