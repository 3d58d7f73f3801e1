"""The configuration of a run. Every field is a key of the YAML files and an option of the command line."""

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
SUBSETS = {"music": ("solo", "duet"), "vggsound": ("single", "duet", "trio"), "flickr": ("single",)}
#: How the sources of a mixture are told apart; see ``model.identification``.
IDENTIFICATIONS = ("iterative", "clustering", "repeat", "single", "own", "given")
TWO_WAYS, ONE_MAP = IDENTIFICATIONS[:2], IDENTIFICATIONS[:4]
#: One file each in ``methods/``.
METHODS = tuple(
    sorted(p.stem.replace("_", "-") for p in (Path(__file__).parent / "methods").glob("*.py") if p.stem[0] != "_")
)
#: Those that need captions.
CAPTIONED_METHODS = ("object-aware",)
QUALITIES = ("true", "noisy", "class", "shuffled")
#: As ``sslosses.transport.SOLVERS``, whose import takes a second.
SOLVERS = ("auto", "dense", "fused", "pot", "pot-batch", "exact", "geomloss", "geomloss-keops")
AUDIOCLIP, AUDIOCLIP_FILE = "audioclip", "AudioCLIP-Full-Training.pt"
#: Visual and audio weights of each backbone; None: an encoder from scratch.
DEFAULT_WEIGHTS: dict[str, tuple[str, str | None]] = {
    "resnet": ("microsoft/resnet-18", None),
    "efficientnet-lite0": ("efficientnet-lite0", None),
    "clip-clap": ("openai/clip-vit-base-patch16", "laion/clap-htsat-unfused"),
    AUDIOCLIP: (AUDIOCLIP_FILE, AUDIOCLIP_FILE),
}
DEFAULT = "default"
CHOICES: dict[str, Sequence[str]] = {
    "dataset": tuple(SUBSETS),
    "caption_quality": QUALITIES,
    "method": METHODS,
    "training_scenes": ("all", "single"),
    "backbone": tuple(DEFAULT_WEIGHTS),
    "audioclip_map": ("values", "tokens"),
    "audio_pooling": ("mean+max", "mean", "max"),
    "false_negatives": ("visual-reference", "reference-reference"),
    "ori_target": ("complement", "separate"),
    "ori_solver": SOLVERS,
    "identification": IDENTIFICATIONS,
    "schedule": ("constant", "one-cycle"),
    "precision": ("32-true", "16-mixed", "bf16-mixed", "64-true"),
    "accelerator": ("auto", "cpu", "gpu"),
}
MINIMUM = {
    **dict.fromkeys(
        ("train_scenes", "test_scenes", "image_size", "embedding_dim", "batch_size", "epochs", "ori_max_iter"), 1
    ),
    **dict.fromkeys(("accumulate", "nodes"), 1),
    **dict.fromkeys(("workers", "checkpoint_steps"), 0),
}
MAXIMUM = {"image_size": 4096, "embedding_dim": 2**16, "batch_size": 2**16, "workers": 2**10}
INT_MAXIMUM = 2**31 - 1
#: Keys that do not affect the outcome of a run, except for rounding: a run may be resumed with other values.
RESUMABLE_CHANGES = ("in_memory", "workers", "accelerator", "checkpoint_steps", "cache_features")


def _option(default: Any, help_text: str) -> Any:
    """A field of the configuration with its default and its text in ``--help``."""
    return dataclasses.field(default=default, metadata={"help": help_text})


@dataclass(frozen=True)
class Config:
    """All settings of a run. The defaults are the paper's, where the paper states them."""

    # data
    dataset: str = _option("music", "which data set's folder layout to read")
    data_seed: int = _option(0, "seed of the composed scenes")
    train_scenes: int = _option(800, "number of composed training scenes")
    test_scenes: int = _option(200, "number of composed test scenes")
    subsets: tuple[str, ...] = _option(("solo", "duet"), "subsets to train and test on")
    training_scenes: str = _option("all", "all: those of the subsets; single: only clips of one source, unmixed")
    caption_quality: str = _option("true", "captions as they are, or deliberately made worse")
    image_size: int = _option(224, "side of a frame in pixels")
    in_memory: bool = _option(False, "keep decoded frames and sounds in memory")
    workers: int = _option(4, "processes that decode; 0 decodes in the main process")
    # method
    method: str = _option("object-aware", "the system to train; object-aware is the paper's")
    method_options: tuple[str, ...] = _option((), "options of the method, as name=value; see its file in methods/")
    # encoders
    backbone: str = _option("resnet", "pair of visual and audio encoders")
    tower_rate: float = _option(0.0, "learning rate of pretrained towers below their heads; 0 freezes them")
    cache_features: bool = _option(
        False, "compute the features of frozen towers once and keep them on disk; frames are then not mirrored"
    )
    visual_weights: str | None = _option(
        DEFAULT, "Hugging Face name, folder or file of the visual encoder, or default; none trains it from scratch"
    )
    visual_widths: tuple[int, ...] = _option((64, 128, 256, 512), "channels per stage of a visual ResNet from scratch")
    visual_depths: tuple[int, ...] = _option((2, 2, 2, 2), "blocks per stage of a visual ResNet from scratch")
    visual_stride: int = _option(32, "pixels per place of a visual ResNet's map: 32, or 16 for twice the resolution")
    freeze_statistics: bool = _option(False, "keep the visual encoder's batch statistics fixed")
    audio_weights: str | None = _option(
        DEFAULT, "Hugging Face name or folder of the audio encoder, or default; none trains it from scratch"
    )
    audio_widths: tuple[int, ...] = _option((64, 128, 256, 512), "channels per stage of an audio ResNet from scratch")
    audio_depths: tuple[int, ...] = _option((2, 2, 2, 2), "blocks per stage of an audio ResNet from scratch")
    audio_pooling: str = _option("mean+max", "how an audio ResNet pools its map")
    audioclip_map: str = _option(
        "values", "features of AudioCLIP's frames: values of the places, or the attention's tokens as in T-VSL"
    )
    embedding_dim: int = _option(512, "dimension of the space that sounds, pixels and captions share")
    text_encoder: str = _option(
        "bert-base-uncased",
        "Hugging Face name or folder of the text encoder; minilm; words for word counts; an AudioCLIP checkpoint; or "
        "audioclip for that of the backbone",
    )
    tokenizer: str = _option(
        "openai/clip-vit-base-patch16", "Hugging Face name or folder of CLIP's tokenizer, for AudioCLIP's text encoder"
    )
    text_shrinkage: float = _option(1.0, "shrinkage when caption features are whitened")
    # image-only pretraining on crops, for composed data
    crops: int = _option(0, "number of crops to pretrain the visual encoder on, composed data only; 0 skips this")
    pretraining_steps: int = _option(400, "steps of pretraining")
    pretraining_rate: float = _option(3e-3, "peak learning rate of pretraining")
    # losses
    trimap_weight: float = _option(0.0, "weight of the tri-map contrastive loss")
    oca_weight: float = _option(1.0, "weight of OCA, the paper's lambda_1")
    ori_weight: float = _option(0.1, "weight of ORI, the paper's lambda_2")
    temperature: float = _option(1.0, "temperature of OCA")
    tau: float = _option(0.7, "similarity above which OCA excludes a negative as false")
    false_negatives: str = _option("visual-reference", "pair of features whose similarity is compared with tau")
    alpha_foreground: float = _option(0.65, "threshold of the foreground mask")
    alpha_background: float = _option(0.4, "threshold of the background mask")
    omega: float = _option(0.03, "width of the soft step of both masks")
    ori_target: str = _option("complement", "complement: the paper's ORI; separate: this library's separation loss")
    ori_margin: float = _option(0.2, "margin of the separation loss")
    ori_temperature: float = _option(0.1, "temperature of the separation loss's distributions")
    ori_solver: str = _option("auto", "solver of optimal transport")
    ori_epsilon: float = _option(0.05, "entropic regularization of optimal transport")
    ori_tol: float = _option(1e-3, "tolerance of optimal transport")
    ori_max_iter: int = _option(100, "largest number of iterations of optimal transport")
    # identification of the sources of a mixture
    identification: str = _option(
        "iterative",
        "iterative: the paper's; clustering: this library's; repeat: the sound's map for every source; single: for one "
        "source only; own: the method's own maps; given: its maps of the sources' classes",
    )
    peak_threshold: float = _option(
        0.1, "iterative: lowest peak of the sound's map that counts as another source; the first counts anyway"
    )
    background_threshold: float = _option(
        0.7, "iterative: similarity to the background above which a peak is not a source"
    )
    merge_threshold: float = _option(0.6, "iterative: similarity above which two peaks are one source")
    # optimization
    smoke_test: bool = _option(False, "mark all results as a smoke test, whose numbers mean nothing")
    seed: int = _option(0, "seed of the run")
    epochs: int = _option(100, "epochs of training")
    batch_size: int = _option(128, "scenes per batch and process")
    mirror: bool = _option(True, "mirror the frames of every other batch, at random")
    rate: float = _option(1e-4, "learning rate of the audio encoder")
    visual_rate: float = _option(1e-4, "learning rate of the visual encoder")
    weight_decay: float = _option(0.0, "weight decay of AdamW")
    schedule: str = _option("constant", "learning-rate schedule")
    # machine
    precision: str = _option("32-true", "floating-point precision of training")
    accumulate: int = _option(1, "batches per optimizer step")
    accelerator: str = _option("auto", "device type to train on")
    devices: int = _option(1, "devices per node; -1 uses all")
    nodes: int = _option(1, "number of nodes")
    checkpoint_steps: int = _option(0, "batches between checkpoints within an epoch; 0: one checkpoint per epoch only")

    def __post_init__(self) -> None:
        # Values that would otherwise fail later, with an unclear message.
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                got = getattr(self, name)
                raise ValueError(f"Expected `{name}` to be one of {', '.join(known)}, but got {got!r}")
        subsets = SUBSETS[self.dataset]
        if not self.subsets or set(self.subsets) - set(subsets) or len(set(self.subsets)) < len(self.subsets):
            out_of = ", ".join(subsets)
            raise ValueError(f"Expected `subsets` of {self.dataset} out of {out_of}, but got {self.subsets}")
        for name, minimum in MINIMUM.items():
            if getattr(self, name) < minimum:
                raise ValueError(f"Expected `{name}` to be at least {minimum}, but got {getattr(self, name)}")
        if self.devices == 0 or self.devices < -1:
            raise ValueError(f"Expected `devices` to be a number of devices, or -1 for all, but got {self.devices}")
        if self.checkpoint_steps % self.accumulate:
            raise ValueError(
                f"Expected `checkpoint_steps` to be a multiple of `accumulate` ({self.accumulate}), since a checkpoint "
                f"holds no accumulated gradients, but got {self.checkpoint_steps}"
            )
        for name, weights in zip(("visual_weights", "audio_weights"), DEFAULT_WEIGHTS[self.backbone], strict=True):
            if getattr(self, name) == DEFAULT:
                one_file = self.backbone == AUDIOCLIP and name == "audio_weights"
                object.__setattr__(self, name, self.visual_weights if one_file else weights)
            elif self.backbone in ("clip-clap", AUDIOCLIP) and getattr(self, name) in (None, "microsoft/resnet-18"):
                raise ValueError(
                    f"Expected `{name}` of the backbone {self.backbone} to name such a model, as {weights}, but got "
                    f"{getattr(self, name)!r}"
                )
        if self.text_encoder == AUDIOCLIP:
            if self.backbone != AUDIOCLIP:
                raise ValueError(
                    f"Expected `text_encoder` of the backbone {self.backbone} to be another, or the path of "
                    f"AudioCLIP's checkpoint, but got {AUDIOCLIP!r}"
                )
            object.__setattr__(self, "text_encoder", self.visual_weights)
        if self.backbone == AUDIOCLIP and self.image_size < 32:
            raise ValueError(f"Expected `image_size` of audioclip to be at least 32, but got {self.image_size}")
        if self.backbone == "efficientnet-lite0" and self.image_size % 32:
            raise ValueError(
                f"Expected `image_size` of efficientnet-lite0 to be a multiple of 32, but got {self.image_size}"
            )
        if self.backbone == "efficientnet-lite0" and self.crops:
            raise ValueError(
                f"Expected `crops` of efficientnet-lite0 to be 0, since only ResNets are pretrained on crops, but got "
                f"{self.crops}"
            )
        if self.cache_features and self.mirror:
            raise ValueError(
                "Expected `mirror` to be false with `cache_features`, because the features are those of frames as they "
                "are, but got true"
            )
        for name in ("ori_margin", "ori_temperature"):
            if getattr(self, name) <= 0:
                raise ValueError(f"Expected `{name}` to be above 0, but got {getattr(self, name)}")
        if self.visual_stride not in (16, 32):
            raise ValueError(f"Expected `visual_stride` to be 16 or 32, but got {self.visual_stride}")
        if self.tower_rate < 0:
            raise ValueError(f"Expected `tower_rate` to be at least 0, but got {self.tower_rate}")

    @classmethod
    def load(cls, names: Sequence[str], changes: dict[str, Any]) -> Config:
        """Reads the YAML files ``names`` (paths, or names in ``configs/``).

        Later files override earlier ones, and ``changes`` override all files. The key ``base`` of a file names another
        file whose values it overrides.

        Raises:
            FileNotFoundError: if a file does not exist; the message lists the names in ``configs/``.
            ValueError: as :meth:`from_dict`; for a key or value in a file, the message names the file.
        """
        merged: dict[str, Any] = {}
        for name in names:
            merged |= _read(name)
        return cls.from_dict(merged | changes)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Config:
        """Makes a configuration of plain values; the inverse of :meth:`as_dict`.

        Raises:
            ValueError: if a key is unknown, or a value has the wrong type or is out of range.
        """
        return cls(**_typed(values))

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values, which YAML files and checkpoints can hold."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}


def _read(name: str, derived: tuple[Path, ...] = ()) -> dict[str, Any]:
    path = Path(name) if name.endswith((".yaml", ".yml")) else CONFIGS / f"{name}.yaml"
    if not path.is_file():
        names = (p.relative_to(CONFIGS).with_suffix("").as_posix() for p in CONFIGS.rglob("*.yaml"))
        # The files in tables/ describe tables, not runs.
        known = ", ".join(sorted(name for name in names if not name.startswith("tables/")))
        raise FileNotFoundError(f"Expected `config` to be a YAML file or one of {known}, but got {name!r}")
    if path.resolve() in derived:
        raise ValueError(f"Expected {path} to be based on other files, but it is its own base")
    values = read_yaml(path)
    base = values.pop("base", None)
    try:
        values = _typed(values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return (_read(str(base), (*derived, path.resolve())) if base else {}) | values


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds one option per field. An option that is not used leaves no attribute in the parsed arguments."""
    group = parser.add_argument_group(
        "configuration",
        "These are also keys of the YAML files. An option overrides the files. The default applies if neither sets it.",
    )
    hints = typing.get_type_hints(Config)
    for field in dataclasses.fields(Config):
        hint, default = hints[field.name], field.default
        several = typing.get_origin(hint) is tuple
        kind = typing.get_args(hint)[0] if several or isinstance(hint, types.UnionType) else hint
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else str(default).lower()
        group.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=_boolean if kind is bool else kind,
            nargs="+" if several else None,
            default=argparse.SUPPRESS,
            metavar=f"{{{','.join(CHOICES[field.name])}}}" if field.name in CHOICES else kind.__name__,
            help=f"{field.metadata['help']} (default: {shown})",
        )


def chosen_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the fields of the configuration that the command line sets."""
    names = {f.name for f in dataclasses.fields(Config)}
    return {k: v for k, v in vars(arguments).items() if k in names}


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")
    return text.lower() == "true"


def _typed(values: dict[str, Any]) -> dict[str, Any]:
    """Checks the keys and converts the values to the types of their fields."""
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
        with contextlib.suppress(ValueError, OverflowError):  # text that is not a number, too large integers
            if math.isfinite(number := float(value)):
                return number
    elif isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        maximum = MAXIMUM.get(name, INT_MAXIMUM)
        if hint is not int or abs(value) <= maximum:
            return value
        raise ValueError(f"Expected `{name}` to be at most {maximum}, but got {reprlib.repr(value)}")
    raise ValueError(f"Expected `{name}` to be {hint.__name__}, but got {reprlib.repr(value)}")
