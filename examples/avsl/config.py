"""One flat configuration: every field is a key of the YAML files and an option of the command line."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import reprlib
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .yaml_files import read_yaml

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
SUBSETS = {"music": ("solo", "duet"), "vggsound": ("single", "duet", "trio")}
QUALITIES = ("true", "noisy", "class", "shuffled")
CHOICES: dict[str, Sequence[str]] = {
    "dataset": tuple(SUBSETS),
    "caption_quality": QUALITIES,
    "backbone": ("resnet", "clip-clap"),
    "false_negatives": ("visual-reference", "reference-reference"),
    "schedule": ("constant", "one-cycle"),
    "precision": ("32-true", "16-mixed", "bf16-mixed", "64-true"),
    "accelerator": ("auto", "cpu", "gpu"),
}
LEAST = {
    **dict.fromkeys(("train_scenes", "test_scenes", "image_size", "embedding_dim", "batch_size", "epochs"), 1),
    **dict.fromkeys(("accumulate", "nodes"), 1),
    **dict.fromkeys(("workers", "checkpoint_steps"), 0),
}
LARGEST = 2**31 - 1
MOST = {"image_size": 4096, "embedding_dim": 2**16, "batch_size": 2**16, "workers": 2**10}
#: What the outcome of a run does not depend on: a run may go on with another value.
FREE = ("in_memory", "workers", "accelerator", "checkpoint_steps")


@dataclass(frozen=True)
class Config:
    """What a run depends on. Defaults are the paper's, where it states them."""

    # data
    dataset: str = "music"
    data_seed: int = 0
    train_scenes: int = 800
    test_scenes: int = 200
    subsets: tuple[str, ...] = ("solo", "duet")
    caption_quality: str = "true"
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
    audio_weights: str | None = None
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
    false_negatives: str = "visual-reference"
    alpha_foreground: float = 0.65
    alpha_background: float = 0.4
    omega: float = 0.03
    ori_target: str = "complement"
    ori_margin: float = 0.2
    ori_temperature: float = 0.1
    ori_solver: str = "auto"
    ori_epsilon: float = 0.05
    ori_tol: float = 1e-3
    # identification of the sources of a mixture
    peak_threshold: float = 0.1
    background_threshold: float = 0.7
    merge_threshold: float = 0.6
    # optimization
    seed: int = 0
    epochs: int = 100
    batch_size: int = 128
    mirror: bool = True  # every other batch of frames, at random
    rate: float = 1e-4
    visual_rate: float = 1e-4
    weight_decay: float = 0.0
    schedule: str = "constant"
    # the machine
    precision: str = "32-true"
    accumulate: int = 1
    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    checkpoint_steps: int = 0

    def __post_init__(self) -> None:
        """Check what no library below checks with a clear text."""
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                got = getattr(self, name)
                raise ValueError(f"Expected `{name}` to be one of {', '.join(known)}, but got {got!r}")
        subsets = SUBSETS[self.dataset]
        if not self.subsets or set(self.subsets) - set(subsets) or len(set(self.subsets)) < len(self.subsets):
            out_of = ", ".join(subsets)
            raise ValueError(f"Expected `subsets` of {self.dataset} out of {out_of}, but got {self.subsets}")
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(f"Expected `{name}` to be at least {least}, but got {getattr(self, name)}")
        if self.devices == 0 or self.devices < -1:
            raise ValueError(f"Expected `devices` to be a number of devices, or -1 for all, but got {self.devices}")
        if self.checkpoint_steps % self.accumulate:
            raise ValueError(
                f"Expected `checkpoint_steps` to be a multiple of `accumulate` ({self.accumulate}), since gradients "
                f"under way are not kept, but got {self.checkpoint_steps}"
            )
        if self.backbone == "clip-clap":
            for name, model in (("visual_weights", "CLIP"), ("audio_weights", "CLAP")):
                if getattr(self, name) in (None, "microsoft/resnet-18"):
                    raise ValueError(
                        f"Expected `{name}` to name a {model} model, as in the configuration clip-clap, "
                        f"but got {getattr(self, name)!r}"
                    )
        if self.tower_rate < 0:
            raise ValueError(f"Expected `tower_rate` to be at least 0, but got {self.tower_rate}")

    @classmethod
    def load(cls, names: Sequence[str], changes: dict[str, Any]) -> Config:
        """The YAML files ``names`` (paths, or names in ``configs/``), each over those before, with ``changes`` on top.

        A file's key ``base`` names another one, whose values it changes.

        Raises:
            FileNotFoundError: if there is no such file; the text lists the named ones.
            ValueError: as :meth:`from_dict`; of a key or a value in a file, naming it.
        """
        merged: dict[str, Any] = {}
        for name in names:
            merged |= _read(name)
        return cls.from_dict(merged | changes)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Config:
        """The configuration of plain values; the inverse of :meth:`as_dict`.

        Raises:
            ValueError: if there are unknown keys or values of a wrong type.
        """
        return cls(**_typed(values))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as YAML and checkpoints take them."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}


def _read(name: str, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    path = Path(name) if name.endswith((".yaml", ".yml")) else CONFIGS / f"{name}.yaml"
    if not path.is_file():
        names = (p.relative_to(CONFIGS).with_suffix("").as_posix() for p in CONFIGS.rglob("*.yaml"))
        known = ", ".join(sorted(name for name in names if not name.startswith("tables/")))  # those are no runs
        raise FileNotFoundError(f"Expected `config` to be a YAML file or one of {known}, but got {name!r}")
    if path.resolve() in above:
        raise ValueError(f"Expected {path} to be based on other files, but it is its own base")
    values = read_yaml(path)
    base = values.pop("base", None)
    try:
        values = _typed(values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return (_read(str(base), (*above, path.resolve())) if base else {}) | values


def add_options(parser: argparse.ArgumentParser) -> None:
    """One option a field, absent unless given."""
    group = parser.add_argument_group(
        "configuration",
        "Keys of the YAML files, too; an option comes before a file. In brackets the value where neither gives one.",
    )
    defaults = {f.name: f.default for f in dataclasses.fields(Config)}
    for name, hint in typing.get_type_hints(Config).items():
        many = typing.get_origin(hint) is tuple
        kind = typing.get_args(hint)[0] if many or isinstance(hint, types.UnionType) else hint
        default = defaults[name]
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else str(default).lower()
        group.add_argument(
            f"--{name.replace('_', '-')}",
            type=_boolean if kind is bool else kind,
            nargs="+" if many else None,
            default=argparse.SUPPRESS,
            metavar=f"{{{','.join(CHOICES[name])}}}" if name in CHOICES else kind.__name__,
            help=f"({shown})",
        )


def given_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields that the command line named."""
    names = {f.name for f in dataclasses.fields(Config)}
    return {k: v for k, v in vars(arguments).items() if k in names}


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")
    return text.lower() == "true"


def _typed(values: dict[str, Any]) -> dict[str, Any]:
    """The values as the types of their fields."""
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ValueError(f"Expected a configuration of keys and values, but got {reprlib.repr(values)}")
    hints = typing.get_type_hints(Config)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ValueError(f"Unknown configuration key: {', '.join(unknown)}. Known: {', '.join(hints)}")
    return {k: _coerce(k, v, hints[k]) for k, v in values.items()}


def _coerce(name: str, value: Any, hint: Any) -> Any:
    if typing.get_origin(hint) is tuple:
        kind = typing.get_args(hint)[0]
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ValueError(f"Expected `{name}` to be a list of {kind.__name__}, but got {reprlib.repr(value)}")
        return tuple(_coerce(name, v, kind) for v in value)
    if isinstance(hint, types.UnionType):
        return None if value in (None, "none") else _coerce(name, value, typing.get_args(hint)[0])
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):  # of text that is no number, of an integer too large
            if math.isfinite(number := float(value)):
                return number
    elif isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        if hint is not int or abs(value) <= MOST.get(name, LARGEST):
            return value
        raise ValueError(f"Expected `{name}` to be at most {MOST.get(name, LARGEST)}, but got {reprlib.repr(value)}")
    raise ValueError(f"Expected `{name}` to be {hint.__name__}, but got {reprlib.repr(value)}")
