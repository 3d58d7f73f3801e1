"""The folder of a shared model: ``config.json`` and ``model.safetensors``, which hold values only and no pickle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from huggingface_hub import snapshot_download
from torch import Tensor, nn

from ..config import Config
from ..files import read_json, write_bytes, write_json
from ..machine_errors import of_this_machine
from .frozen_towers import load_towers, public_towers
from .locations import CONFIG_FILE, WEIGHTS_FILE, is_hub_name

CARD_FILE = "README.md"
FORMAT = "avsl-localizer-1"
#: Keys of ``config.json`` with their types.
_KEYS: dict[str, type] = {
    "format": str,
    "config": dict,
    "text_features": int,
    "architectures": dict,
    "classes": list,
    "sources": int,
    "data": str,
    "weights_sha256": str,
    "frozen_towers": dict,
    "extra_state": dict,
}
_ARGUMENTS = ("config", "text_features", "architectures", "classes", "sources")
_EXTRA = "_extra_state"  # what torch calls a module's state beside its tensors


def find_folder(source: str | Path, **download: Any) -> Path:
    """Returns the folder ``source``, or downloads the model of this name from the Hugging Face hub.

    Raises:
        FileNotFoundError: if there is no such folder, and ``source`` can't be a name on the hub.
        OSError: if the model can't be downloaded.
    """
    if Path(source).is_dir():
        return Path(source)
    if not is_hub_name(str(source)):
        raise FileNotFoundError(
            f"Expected the folder of a model, or its name on the Hugging Face hub, but there is no folder {source}"
        )
    try:
        return Path(snapshot_download(str(source), allow_patterns=[CONFIG_FILE, WEIGHTS_FILE, CARD_FILE], **download))
    except Exception as error:  # the hub's client passes on errors of any type
        if of_this_machine(error):
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise OSError(
            f"Expected the folder of a model, or its name on the Hugging Face hub, but there is no folder {source}, "
            f"and downloading a model of this name failed: {reason}"
        ) from error


def write_folder(model: Any, folder: Path) -> None:
    """Writes ``config.json`` and ``model.safetensors`` of a localizer.

    Frozen towers of a package or the hub are named in place of their weights. Paths of this machine are left out.
    """
    towers = public_towers(model)
    tensors, extra = _flat_state(model)
    left_out = tuple(f"{part}.tower." for part in towers)
    kept = {name: value for name, value in tensors.items() if not name.startswith(left_out)} if left_out else tensors
    content = safetensors.torch.save({name: _plain(value) for name, value in kept.items()}, {"format": "pt"})
    write_bytes(folder / WEIGHTS_FILE, content)
    values = {
        "format": FORMAT,
        **{name: model.hparams[name] for name in _ARGUMENTS},
        "config": _without_paths(model.config),
        "architectures": _public(model.hparams["architectures"]),
        "data": model.data_name,
        "weights_sha256": hashlib.sha256(content).hexdigest(),
        "frozen_towers": towers,
        "extra_state": extra,
    }
    write_json(folder / CONFIG_FILE, values)


def read_folder(kind: type[nn.Module], folder: Path) -> Any:
    """Opens the localizer in ``folder`` as an instance of ``kind``, in eval mode.

    Raises:
        FileNotFoundError: if a file is missing.
        ModuleNotFoundError: if the package of a frozen tower is missing.
        OSError: if a frozen tower can't be loaded from the hub.
        ValueError: if a file is damaged, or not of a shared model; the message names the file.
    """
    values = _read_config(folder)
    tensors = _read_weights(folder / WEIGHTS_FILE, values["weights_sha256"])
    file = folder / CONFIG_FILE
    try:
        _refuse_code(values["architectures"])
        model: Any = kind(**{name: values[name] for name in _ARGUMENTS})
        _refuse_other_towers(values["frozen_towers"])
    except Exception as error:  # values of another program can cause any error
        if of_this_machine(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"Expected {file} to describe a model of this example, but: {reason}") from error
    tensors |= load_towers(values["frozen_towers"], model.config, values["architectures"])
    _load_state(model, tensors, values["extra_state"], folder)
    model.data_name = values["data"]
    return model.eval()


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG_FILE
    if not file.is_file():
        raise FileNotFoundError(f"Expected {folder} to hold a shared model, but there is no {CONFIG_FILE}")
    values = read_json(file)
    found = values.get("format") if isinstance(values, dict) else None
    if found != FORMAT:
        raise ValueError(f"Expected {file} to be of a model of this example, with the format {FORMAT}, but got {found}")
    for name, kind in _KEYS.items():
        if not isinstance(values.get(name), kind):
            raise ValueError(f"Expected {file} to hold {name!r} as {kind.__name__}, but got {str(values.get(name))!r}")
    return values


def _read_weights(file: Path, sha256: str) -> dict[str, Tensor]:
    if not file.is_file():
        raise FileNotFoundError(f"Expected {file.parent} to hold a shared model, but there is no {WEIGHTS_FILE}")
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"Expected {file} to be the file that {CONFIG_FILE} belongs to, but it is damaged or another")
    try:
        return safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise ValueError(f"Expected {file} to hold tensors in the format safetensors, but: {error}") from error


def _flat_state(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """The tensors of a model, those of its modules' extra states included, and the plain values of these states."""
    tensors, extra = {}, {}
    for name, value in model.state_dict().items():
        if not name.endswith(_EXTRA):
            tensors[name] = value
            continue
        tensors |= {f"{name}.{key}": entry for key, entry in value.items() if isinstance(entry, Tensor)}
        extra[name] = {key: entry for key, entry in value.items() if not isinstance(entry, Tensor)}
        if bad := [key for key, entry in extra[name].items() if not isinstance(entry, bool | int | float | str)]:
            raise ValueError(f"Expected the extra state of {name} to be tensors and plain values, but {bad[0]} is not")
    return tensors, extra


def _load_state(model: nn.Module, tensors: Mapping[str, Tensor], extra: Mapping[str, Any], folder: Path) -> None:
    """Loads all of the state, after a check that it is exactly what the model expects."""
    expected, plain = _flat_state(model)
    file = folder / WEIGHTS_FILE
    for name in [*expected, *tensors]:
        if name not in tensors or name not in expected:
            lack = "lacks" if name in expected else "also has"
            raise ValueError(f"Expected {file} to hold the tensors of this model, but it {lack} {name!r}")
        ours, theirs = expected[name], tensors[name]
        sized = f"{_EXTRA}." not in name  # the size of a method's own state depends on its clips
        if ours.dtype != theirs.dtype or ours.ndim != theirs.ndim or (sized and ours.shape != theirs.shape):
            raise ValueError(
                f"Expected {name!r} in {file} to be {tuple(ours.shape)} {ours.dtype}, but got {tuple(theirs.shape)} "
                f"{theirs.dtype}"
            )
    types = {name: {key: type(value) for key, value in state.items()} for name, state in plain.items()}
    if types != {name: {key: type(value) for key, value in state.items()} for name, state in extra.items()}:
        raise ValueError(f"Expected {folder / CONFIG_FILE} to hold the `extra_state` of this method, but got {extra}")
    state: dict[str, Any] = {name: value for name, value in tensors.items() if f"{_EXTRA}." not in name}
    for name in plain:
        own = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        state[name] = own | extra[name]
    model.load_state_dict(state)


def _plain(value: Tensor) -> Tensor:
    """A copy that shares no memory and is contiguous, as safetensors wants it."""
    return value.detach().cpu().clone(memory_format=torch.contiguous_format)


def _without_paths(config: Config) -> dict[str, Any]:
    """The configuration with the names of local files and folders in place of their paths."""
    values = config.as_dict()
    for name in ("visual_weights", "audio_weights", "text_encoder", "tokenizer"):
        text = values[name]
        if text and (Path(text).exists() or text.startswith(("/", ".", "~"))):
            values[name] = Path(text).name
    return values


def _public(value: Any) -> Any:
    """Leaves out the private keys of a network's configuration, such as the path that it was loaded from."""
    if isinstance(value, dict):
        return {key: _public(entry) for key, entry in value.items() if not key.startswith("_")}
    return value


def _refuse_code(value: Any) -> None:
    """Refuses the keys of a network's configuration by which transformers can load code of other packages."""
    for key, entry in value.items() if isinstance(value, dict) else ():
        if key.startswith("_") or key.endswith("_implementation") or key in ("auto_map", "quantization_config"):
            raise ValueError(f"the key {key!r} of `architectures` is not allowed")
        _refuse_code(entry)


def _refuse_other_towers(towers: Mapping[str, Any]) -> None:
    for part, tower in towers.items():
        if not isinstance(tower, dict) or not all(isinstance(tower.get(key), str) for key in ("weights", "sha256")):
            raise ValueError(f"the frozen tower {part!r} has no weights with a SHA-256")
