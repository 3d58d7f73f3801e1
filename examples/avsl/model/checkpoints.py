"""Trained models from run folders and checkpoints."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any

import torch

from ..yaml_files import read_yaml
from .localizer import Localizer


def open_model(path: Path, device: torch.device) -> Localizer:
    """The model of a run's folder or of a checkpoint, in eval mode.

    Nothing but tensors and plain values is unpickled.

    Raises:
        FileNotFoundError: if there is no such file, or no checkpoint in the folder.
        ValueError: if the file is no checkpoint of this example.
    """
    file = _checkpoint(path)
    read = _read(file)
    try:
        model = Localizer(**read["hyper_parameters"])
        model.load_state_dict(read["state_dict"])
    except Exception as error:  # of another program's checkpoint, whatever its values lead to
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"Expected {file} to be a checkpoint of this example, but: {reason}") from error
    return model.to(device).eval()


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" is the GPU if there is one.

    Raises:
        ValueError: if there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"Expected `device` to be auto, cpu or a GPU of this machine, but got {name!r}: {reason}"
        ) from error
    return device


def run_folder(path: Path) -> Path | None:
    """The folder of the run that a model is from, if it still lies in one."""
    for folder in (path, path.parent.parent):
        if (folder / "config.yaml").is_file() and (folder / "checkpoints").is_dir():
            return folder
    return None


def run_name(path: Path) -> str:
    """What to call a model: its run, or else its file."""
    folder = run_folder(path.resolve())
    return folder.name if folder else path.stem


def recorded_data(path: Path) -> Path | None:
    """The data folder that the model was trained on, if its run names one."""
    folder = run_folder(path.resolve())
    if folder is None:
        return None
    named = read_yaml(folder / "config.yaml").get("data")
    if named is not None and not isinstance(named, str):
        raise ValueError(f"Expected {folder / 'config.yaml'} to name a folder as `data`, but got {reprlib.repr(named)}")
    return Path(named) if named else None


def _checkpoint(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.exists():
        raise FileNotFoundError(f"Expected the folder of a run or a checkpoint, but there is no {path}")
    file = path / "checkpoints" / "last.ckpt"
    if not file.is_file():
        raise FileNotFoundError(f"Expected {path} to be the folder of a run, but it holds no checkpoints/last.ckpt")
    return file


def _read(file: Path) -> dict[str, Any]:
    try:
        read = torch.load(file, map_location="cpu", weights_only=True)
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except Exception as error:  # of bytes that are no pickle, the reader raises anything
        raise ValueError(
            f"Expected {file} to be a checkpoint of this example, but it can't be read as weights and plain values"
        ) from error
    if not isinstance(read, dict) or not {"state_dict", "hyper_parameters"} <= read.keys():
        raise ValueError(
            f"Expected {file} to be a checkpoint of this example, but it holds no weights with a configuration"
        )
    return read
