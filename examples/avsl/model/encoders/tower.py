"""Pretrained towers of ``transformers``: loaded with clear errors, and kept still where they are frozen."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from torch import nn
from transformers import FeatureExtractionMixin, PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

Model = TypeVar("Model", bound=PreTrainedModel)


def described(argument: str, source: str) -> dict[str, Any]:
    """The ``config.json`` of a local folder or a model on the hub.

    Raises:
        OSError: if there is none; FileNotFoundError if ``source`` can only be a path and there is no such folder.
    """
    path_only = source.startswith(("/", ".", "~")) or source.count("/") > 1 or "\\" in source
    if path_only and not Path(source).is_dir():
        raise FileNotFoundError(
            f"Expected `{argument}` to be a folder written by save_pretrained, or a name on the Hugging Face hub, "
            f"but there is no folder {source!r}"
        )
    with explained(argument, source):
        config, _ = PretrainedConfig.get_config_dict(source)
    return config


@contextlib.contextmanager
def explained(argument: str, source: str) -> Iterator[None]:
    """Errors of ``from_pretrained`` in terms of the option, and none of its reports: a tower leaves the rest of its
    model unused, and what it lacks is an error here."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    except OSError as error:
        raise OSError(f"`{argument}` {source!r} can't be loaded: {_first_line(error)}") from error
    except (ValueError, RuntimeError) as error:  # such as sizes that don't fit
        raise ValueError(f"`{argument}` {source!r} can't be loaded: {_first_line(error)}") from error
    finally:
        transformers_logging.set_verbosity(level)


def load_with_missing(kind: type[Model], types: tuple[str, ...], argument: str, source: str) -> tuple[Model, set[str]]:
    """``kind.from_pretrained(source)`` in float32, and the names of weights that it lacks and are random now.

    Raises:
        OSError: as :func:`described`, or if there are no weights.
        ValueError: if the model's type is none of ``types``, where given, or its sizes don't fit.
    """
    found = described(argument, source).get("model_type")
    if types and found not in types:
        raise ValueError(f"Expected `{argument}` to be a model of type {' or '.join(types)}, but {source!r} is {found}")
    with explained(argument, source):
        model, info = kind.from_pretrained(source, output_loading_info=True)
    return model.float(), {name for name, _ in model.named_parameters()} & set(info["missing_keys"])


def load_pretrained(kind: type[Model], types: tuple[str, ...], argument: str, source: str) -> Model:
    """As :func:`load_with_missing`, with nothing missing.

    Raises:
        OSError: as there.
        ValueError: as there, or if weights are missing.
    """
    model, missing = load_with_missing(kind, types, argument, source)
    refuse_missing(missing, argument, source)
    return model


def refuse_missing(missing: set[str], argument: str, source: str) -> None:
    """Raise ValueError if there are ``missing`` weights."""
    if missing:
        raise ValueError(
            f"Expected `{argument}` to hold all weights, but {source!r} lacks {len(missing)}, {min(missing)} among them"
        )


class Tower(nn.Module):
    """Base of encoders with a pretrained part, ``tower``, which neither learns nor leaves eval mode if ``frozen``."""

    tower: nn.Module

    def __init__(self, *, frozen: bool) -> None:
        super().__init__()
        self.frozen = frozen

    def freeze(self) -> None:
        """Apply ``frozen``, once ``tower`` is there."""
        self.tower.requires_grad_(not self.frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        if self.frozen:
            self.tower.eval()
        return self


def plain(config: PretrainedConfig | FeatureExtractionMixin) -> dict[str, Any]:
    """The configuration as a checkpoint can hold it: values of JSON."""
    values: dict[str, Any] = json.loads(config.to_json_string())
    return values


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
