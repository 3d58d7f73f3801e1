"""Pretrained towers of ``transformers``: loading with clear errors, and freezing."""

from __future__ import annotations

import contextlib
import json
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from transformers import FeatureExtractionMixin, PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from ...model_names import advice, is_path
from .encoded import Encoding

Model = TypeVar("Model", bound=PreTrainedModel)


def read_config(argument: str, source: str) -> dict[str, Any]:
    """Reads the ``config.json`` of a local folder or a model on the hub.

    Raises:
        OSError: if it does not exist; FileNotFoundError if ``source`` can only be a path and is not a folder.
    """
    if is_path(source) and not Path(source).is_dir():
        raise FileNotFoundError(
            f"Expected `{argument}` to be a folder written by save_pretrained, or a name on the Hugging Face hub, "
            f"but there is no folder {source!r}"
        )
    with errors_name_option(argument, source):
        config, _ = PretrainedConfig.get_config_dict(source)
    return config


@contextlib.contextmanager
def errors_name_option(argument: str, source: str) -> Iterator[None]:
    """Makes errors of ``from_pretrained`` name the option, and silences its reports.

    The reports are not needed: unused weights are expected for a tower, and missing weights are errors here.
    """
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    except OSError as error:
        raise OSError(
            f"`{argument}` {source!r} can't be loaded: {_first_line(error)}{advice(argument, source)}"
        ) from error
    except (ValueError, RuntimeError) as error:  # for example, sizes that do not fit
        raise ValueError(f"`{argument}` {source!r} can't be loaded: {_first_line(error)}") from error
    finally:
        transformers_logging.set_verbosity(level)


def load_with_missing(kind: type[Model], types: tuple[str, ...], argument: str, source: str) -> tuple[Model, set[str]]:
    """Calls ``kind.from_pretrained(source)``; returns the model in float32 and the names of its missing weights.

    Missing weights are random.

    Raises:
        OSError: as :func:`read_config`, or if there are no weights.
        ValueError: if the model's type is not one of ``types`` (unless these are empty), or its sizes do not fit.
    """
    model_type = read_config(argument, source).get("model_type")
    if types and model_type not in types:
        raise ValueError(
            f"Expected `{argument}` to be a model of type {' or '.join(types)}, but {source!r} is {model_type}"
        )
    with errors_name_option(argument, source):
        model, info = kind.from_pretrained(source, output_loading_info=True)
    return model.float(), {name for name, _ in model.named_parameters()} & set(info["missing_keys"])


def load_pretrained(kind: type[Model], types: tuple[str, ...], argument: str, source: str) -> Model:
    """Loads a model as :func:`load_with_missing` does, and returns it if no weights are missing.

    Raises:
        OSError: as :func:`load_with_missing`.
        ValueError: as :func:`load_with_missing`, or if weights are missing.
    """
    model, missing = load_with_missing(kind, types, argument, source)
    refuse_missing(missing, argument, source)
    return model


def refuse_missing(missing: set[str], argument: str, source: str) -> None:
    """Raises ValueError if ``missing`` is not empty."""
    if missing:
        raise ValueError(
            f"Expected `{argument}` to hold all weights, but {source!r} lacks {len(missing)}, {min(missing)} among them"
        )


class Features(NamedTuple):
    """Features of a frozen tower, which take the place of the frames or waveforms that they were computed from."""

    values: Tensor

    def to(self, device: torch.device) -> Features:
        return Features(self.values.to(device))


class Tower(nn.Module):
    """Base of encoders with a pretrained part, ``tower``, and a trained ``head``.

    ``trunk_channels`` is the number D of channels of the trunk's features.

    If ``frozen``, the tower is not trained and stays in eval mode, so that its :meth:`features` can be computed once.
    """

    tower: nn.Module
    head: nn.Module
    architecture: dict[str, Any]
    trunk_channels: int

    def __init__(self, *, frozen: bool) -> None:
        super().__init__()
        self.frozen = frozen

    def freeze(self) -> None:
        """Applies ``frozen``; called when ``tower`` is set."""
        self.tower.requires_grad_(not self.frozen)
        self.train(self.training)

    @abstractmethod
    def features(self, inputs: Tensor) -> Tensor:
        """Computes what :meth:`trunk` reads, from frames or waveforms."""

    def trunk(self, features: Tensor) -> Tensor:
        """Computes the trunk's features (B, D, h, w) from :meth:`features`."""
        return features

    def output(self, trunk: Tensor) -> Tensor:
        """Applies the head to the trunk's features."""
        return self.head(trunk)

    def encode(self, inputs: Tensor | Features) -> Encoding:
        """Computes the trunk's features and the output."""
        if isinstance(inputs, Features):
            features = inputs.values.to(next(self.head.parameters()).dtype)
        else:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
                features = self.features(inputs)
        trunk = self.trunk(features)
        return Encoding(trunk, self.output(trunk))

    def forward(self, inputs: Tensor | Features) -> Tensor:
        return self.encode(inputs).output

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        if self.frozen:
            self.tower.eval()
        return self


def by_frame(network: Callable[[Tensor], Tensor], frames: Tensor) -> Tensor:
    """Applies ``network`` to each of the square frames that are side by side, (B, 3, S, n·S) → (B, D, h, n·w).

    So a frame has the same features alone and in a mixture. Frames of other shapes are taken as one.
    """
    height, width = frames.shape[2:]
    count = width // height if height and width % height == 0 else 1
    if count <= 1:
        return network(frames)
    return torch.cat(network(torch.cat(frames.chunk(count, 3))).chunk(count), 3)


def json_values(config: PretrainedConfig | FeatureExtractionMixin) -> dict[str, Any]:
    """Converts a configuration to JSON values, which checkpoints can hold."""
    values: dict[str, Any] = json.loads(config.to_json_string())
    return values


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
