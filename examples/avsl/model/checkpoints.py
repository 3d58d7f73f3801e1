"""Opens trained models from run folders and checkpoints."""

from __future__ import annotations

import reprlib
import zipfile
from pathlib import Path
from typing import Any

import torch

from ..machine_errors import of_this_machine
from ..yaml_files import read_yaml
from .localizer import Localizer

_FOLDER = 0x10  # the bit of a part's attributes in an archive that says so


def open_model(path: Path, device: torch.device) -> Localizer:
    """Opens the model of a run's folder or of a checkpoint file, in eval mode.

    Only tensors and plain values are unpickled.

    Raises:
        FileNotFoundError: if the file does not exist, or the folder holds no checkpoint.
        ValueError: if the file is not a checkpoint of this example.
    """
    file = _checkpoint(path)
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


def run_folder(path: Path) -> Path | None:
    """Returns the folder of the run that a model belongs to; None for a separate checkpoint file."""
    for folder in (path, path.parent.parent):
        if (folder / "config.yaml").is_file() and (folder / "checkpoints").is_dir():
            return folder
    return None


def run_name(path: Path) -> str:
    """Returns the name of the model's run, or else of its file."""
    folder = run_folder(path.resolve())
    return folder.name if folder else path.stem


def recorded_data(path: Path) -> Path | None:
    """Returns the data folder that the model was trained on, if its run records one."""
    folder = run_folder(path.resolve())
    if folder is None:
        return None
    data = read_yaml(folder / "config.yaml").get("data")
    if data is not None and not isinstance(data, str):
        raise ValueError(f"Expected {folder / 'config.yaml'} to name a folder as `data`, but got {reprlib.repr(data)}")
    return Path(data) if data else None


def _checkpoint(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.exists():
        raise FileNotFoundError(f"Expected the folder of a run or a checkpoint, but {path} does not exist")
    file = path / "checkpoints" / "last.ckpt"
    if not file.is_file():
        raise FileNotFoundError(f"Expected {path} to be the folder of a run, but it holds no checkpoints/last.ckpt")
    return file


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


def read_values(file: Path) -> Any:
    """Reads a file of ``torch.save`` and compares all of it with its checksums, which torch does not.

    Only tensors and plain values are unpickled.

    Raises:
        ValueError: if the file is damaged or holds anything else; the message does not name the file.
        OSError: if the file can't be opened.
        MemoryError: if memory runs out.
    """
    with file.open("rb"):  # so that torch's errors below are about the content
        pass
    try:
        damaged = _damaged_part(file)
        values = None if damaged else torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # malformed files cause errors of any type
        if of_this_machine(error):
            raise
        raise ValueError("it can't be read as weights and plain values; it may be damaged") from error
    if damaged:
        raise ValueError(f"it is damaged: {damaged} is not as it was written")
    return values


def _damaged_part(file: Path) -> str | None:
    """The name of the first part of an archive that is not as torch wrote it."""
    if not zipfile.is_zipfile(file):  # as torch wrote it before version 1.6, without checksums
        return None
    with zipfile.ZipFile(file) as archive:
        # A part that is marked as a folder has a right checksum, but torch reads none of it, without an error.
        folders = (part.filename for part in archive.infolist() if part.external_attr & _FOLDER or part.is_dir())
        return next(folders, None) or archive.testzip()
