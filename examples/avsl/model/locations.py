"""Where trained models are: folders of runs, checkpoint files and folders of shared models. Imports no torch."""

from __future__ import annotations

import re
import reprlib
from pathlib import Path
from typing import Any

from ..yaml_files import read_yaml

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"  # of a shared model
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def check_model(path: Path) -> None:
    """Checks that there is a model at ``path``, as far as this is known without opening it.

    Raises:
        FileNotFoundError: if there is no file or folder, and ``path`` can't be a name on the Hugging Face hub.
    """
    if not is_shared_folder(path) and (path.exists() or not is_hub_name(str(path))):
        checkpoint_file(path)


def is_hub_name(text: str) -> bool:
    """Whether ``text`` has the form ``owner/name`` and its first part is not ``runs`` or the name of a folder here."""
    owner = text.partition("/")[0]
    return _HUB_NAME.fullmatch(text) is not None and owner != "runs" and not Path(owner).is_dir()


def is_shared_folder(path: Path) -> bool:
    """Whether ``path`` looks like the folder of a shared model, and not like that of a run."""
    return any((path / name).is_file() for name in (CONFIG_FILE, WEIGHTS_FILE)) and not (path / "checkpoints").is_dir()


def run_folder(path: Path) -> Path | None:
    """Returns the folder of the run that a model belongs to; None for a separate checkpoint file."""
    for folder in (path,) if path.is_dir() else (path.parent.parent,):
        if (folder / "config.yaml").is_file() and (folder / "checkpoints").is_dir():
            return folder
    return None


def run_name(path: Path) -> str:
    """Returns the name of the model's run, or else of its file or folder."""
    if not path.exists():  # a name on the Hugging Face hub
        return path.name
    folder = run_folder(path.resolve()) or (path.resolve() if path.is_dir() else None)
    return folder.name if folder else path.stem


def recorded_data(path: Path) -> Path | None:
    """Returns the data folder that the model was trained on, if its run records one."""
    folder = run_folder(path.resolve())
    if folder is None:
        return None
    data = recorded(path, "data")
    if data is not None and not isinstance(data, str):
        raise ValueError(f"Expected {folder / 'config.yaml'} to name a folder as `data`, but got {reprlib.repr(data)}")
    return Path(data) if data else None


def recorded(path: Path, key: str) -> Any:
    """Returns what the configuration of the model's run says of ``key``; None without a run, or if it says nothing."""
    folder = run_folder(path.resolve())
    return None if folder is None else read_yaml(folder / "config.yaml").get(key)


def checkpoint_file(path: Path) -> Path:
    """Returns the checkpoint of a run's folder, or the file itself.

    Raises:
        FileNotFoundError: if there is none.
    """
    if path.is_file():
        return path
    if not path.exists():
        raise FileNotFoundError(
            f"Expected the folder of a run or of a shared model, or a checkpoint, but there is no folder or file {path}"
        )
    file = path / "checkpoints" / "last.ckpt"
    if not file.is_file():
        raise FileNotFoundError(
            f"Expected {path} to be the folder of a run or of a shared model, but it holds no checkpoints/last.ckpt "
            "and no config.json"
        )
    return file
