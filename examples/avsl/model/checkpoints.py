"""Opens trained models from run folders, checkpoints, folders of shared models and the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..machine_errors import of_this_machine
from .localizer import Localizer
from .locations import checkpoint_file, is_hub_name, is_shared_folder
from .weight_files import read_values


def open_model(path: Path, device: torch.device) -> Localizer:
    """Opens the model of a run's folder, a checkpoint file or a shared model's folder, in eval mode.

    A ``path`` of the form ``owner/name`` that does not exist is the name of a shared model on the Hugging Face hub.

    Only tensors and plain values are unpickled, and of shared models nothing.

    Raises:
        FileNotFoundError: if the file does not exist, or the folder holds no model.
        ModuleNotFoundError: if the package of a shared model's frozen tower is missing.
        OSError: if a shared model or its frozen tower can't be downloaded.
        ValueError: if the file is not a checkpoint of this example, or the folder not that of a shared model.
    """
    if is_shared_folder(path) or (not path.exists() and is_hub_name(str(path))):
        return Localizer.from_pretrained(path).to(device)
    file = checkpoint_file(path)
    checkpoint = read_checkpoint(file)
    try:
        model = Localizer(**checkpoint["hyper_parameters"])
        model.load_state_dict(checkpoint["state_dict"])
    except Exception as error:  # values of another program's checkpoint can cause any error
        if of_this_machine(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"Expected {file} to be a checkpoint of this example, but: {reason}") from error
    return model.to(device).eval()


def pick_device(name: str) -> torch.device:
    """Returns the device of that name; "auto" is a GPU if available.

    Raises:
        ValueError: if the device is not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # builds of torch without CUDA raise AssertionError
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"Expected `device` to be auto, cpu or a GPU of this machine, but got {name!r}: {reason}"
        ) from error
    return device


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Reads a checkpoint, at least its weights and configuration, as :func:`read_values` does.

    Raises:
        ValueError: if the file is damaged, or not a checkpoint of this example.
    """
    try:
        checkpoint = read_values(file)
    except ValueError as error:
        raise ValueError(f"Expected {file} to be a checkpoint of this example, but {error}") from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "hyper_parameters"} <= checkpoint.keys():
        raise ValueError(
            f"Expected {file} to be a checkpoint of this example, but it holds no weights with a configuration"
        )
    return checkpoint
