"""One flat configuration: every field is a key of the YAML files and an option of the command line."""

from __future__ import annotations

import argparse
import dataclasses
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


@dataclass(frozen=True)
class Config:
    """What a run depends on. Defaults are the paper's, where it states them."""

    # data
    data_seed: int = 0
    train_scenes: int = 800
    test_scenes: int = 200
    subsets: tuple[str, ...] = ("solo", "duet")
    image_size: int = 224
    in_memory: bool = False
    workers: int = 4
    # encoders
    backbone: str = "resnet"
    tower_rate: float = 0.0  # of CLIP and CLAP below their heads; 0 freezes them
    visual_weights: str | None = "microsoft/resnet-18"
    visual_widths: tuple[int, ...] = (64, 128, 256, 512)
    visual_depths: tuple[int, ...] = (2, 2, 2, 2)
    freeze_statistics: bool = False
    audio_weights: str | None = "microsoft/resnet-18"
    audio_widths: tuple[int, ...] = (64, 128, 256, 512)
    audio_depths: tuple[int, ...] = (2, 2, 2, 2)
    embedding_dim: int = 512
    text_encoder: str = "bert-base-uncased"
    text_shrinkage: float = 1.0
    # image-only pretraining on crops, for composed data
    crops: int = 0
    pretraining_steps: int = 400
    pretraining_rate: float = 3e-3
    # losses
    trimap_weight: float = 0.0
    oca_weight: float = 1.0
    ori_weight: float = 0.1
    temperature: float = 1.0
    tau: float = 0.7
    alpha_foreground: float = 0.65
    alpha_background: float = 0.4
    omega: float = 0.03
    ori_solver: str = "auto"
    ori_epsilon: float = 0.05
    ori_tol: float = 1e-3
    # identification of the sources of a mixture
    peak_threshold: float = 0.1
    background_threshold: float = 0.7
    merge_threshold: float = 0.6
    # optimisation
    seed: int = 0
    epochs: int = 100
    batch_size: int = 128
    rate: float = 1e-4
    visual_rate: float = 1e-4
    weight_decay: float = 0.0
    schedule: str = "constant"
    precision: str = "32-true"

    def __post_init__(self) -> None:
        """Check what no library below checks with a clear text."""
        unknown = set(self.subsets) - {"solo", "duet"}
        if unknown or not self.subsets:
            raise ValueError(f"Expected `subsets` out of 'solo' and 'duet', but got {self.subsets}")
        if self.schedule not in ("constant", "one-cycle"):
            raise ValueError(f"Expected `schedule` to be 'constant' or 'one-cycle', but got {self.schedule!r}")
        if self.backbone not in ("resnet", "clip-clap"):
            raise ValueError(f"Expected `backbone` to be 'resnet' or 'clip-clap', but got {self.backbone!r}")
        if self.backbone == "clip-clap":
            for name, model in (("visual_weights", "CLIP"), ("audio_weights", "CLAP")):
                if getattr(self, name) in (None, "microsoft/resnet-18"):
                    raise ValueError(
                        f"Expected `{name}` to name a {model} model, as in the configuration clip-clap, "
                        f"but got {getattr(self, name)!r}"
                    )
        if self.tower_rate < 0:
            raise ValueError(f"Expected `tower_rate` to be at least 0, but got {self.tower_rate}")
        for name in ("train_scenes", "test_scenes", "image_size", "embedding_dim", "batch_size", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"Expected `{name}` to be at least 1, but got {getattr(self, name)}")

    @classmethod
    def load(cls, name: str, changes: dict[str, Any]) -> Config:
        """The YAML file ``name`` (a path, or a name in ``configs/``) with ``changes`` over it.

        Its key ``base`` names another file, whose values it changes.

        Raises:
            FileNotFoundError: if there is no such file; the text lists the named ones.
            ValueError: as :meth:`from_dict`.
        """
        return cls.from_dict(_read(name) | changes)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Config:
        """The configuration of plain values; the inverse of :meth:`as_dict`.

        Raises:
            ValueError: if there are unknown keys or values of a wrong type.
        """
        hints = typing.get_type_hints(cls)
        unknown = sorted(set(values) - set(hints))
        if unknown:
            raise ValueError(f"Unknown configuration key: {', '.join(unknown)}. Known: {', '.join(hints)}")
        return cls(**{k: _coerce(k, v, hints[k]) for k, v in values.items()})

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as YAML and checkpoints take them."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}


def _read(name: str) -> dict[str, Any]:
    path = Path(name) if name.endswith((".yaml", ".yml")) else CONFIGS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in CONFIGS.glob("*.yaml")))
        raise FileNotFoundError(f"Expected `config` to be a YAML file or one of {known}, but got {name!r}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"Expected {path} to hold lines of `key: value`, but {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"Expected {path} to hold lines of `key: value`, but got {values!r}")
    base = values.pop("base", None)
    return (_read(str(base)) if base else {}) | values


def add_options(parser: argparse.ArgumentParser) -> None:
    """One option a field, absent unless given."""
    for name, hint in typing.get_type_hints(Config).items():
        many = typing.get_origin(hint) is tuple
        kind = typing.get_args(hint)[0] if many or isinstance(hint, types.UnionType) else hint
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=_boolean if kind is bool else kind,
            nargs="+" if many else None,
            default=argparse.SUPPRESS,
            metavar=kind.__name__,
            help=argparse.SUPPRESS,
        )


def given_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields that the command line named."""
    names = {f.name for f in dataclasses.fields(Config)}
    return {k: v for k, v in vars(arguments).items() if k in names}


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")
    return text.lower() == "true"


def _coerce(name: str, value: Any, hint: Any) -> Any:
    if typing.get_origin(hint) is tuple:
        kind = typing.get_args(hint)[0]
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ValueError(f"Expected `{name}` to be a list of {kind.__name__}, but got {value!r}")
        return tuple(_coerce(name, v, kind) for v in value)
    if isinstance(hint, types.UnionType):
        return None if value in (None, "none") else _coerce(name, value, typing.get_args(hint)[0])
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    elif isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise ValueError(f"Expected `{name}` to be {hint.__name__}, but got {value!r}")
