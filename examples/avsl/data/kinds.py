"""Which data set a prepared folder holds, by the names of its lists, and the commands for it."""

from __future__ import annotations

import shlex
from pathlib import Path

from ..constants import WHERE_LISTS_ARE

#: By the name of the data set, which its lists start with.
_TITLES = {"music": "MUSIC", "vggsound": "VGGSound", "flickr": "Flickr-SoundNet"}
_SOURCES = {"music": "--videos DIR --lists DIR", "vggsound": "--videos DIR --lists DIR", "flickr": "--archive DIR"}


def datasets_in(root: Path) -> list[str]:
    """Returns the data sets whose lists are in the folder."""
    folder = root / "metadata"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return [d for d in _TITLES if any(n.startswith(f"{d}_") and n.endswith((".csv", ".txt")) for n in names)]


def hint_for_missing_list(root: Path, list_name: str) -> str:
    """Says what to do if the folder lacks a list: another script, if it is a folder of another data set."""
    wanted = "vggsound" if list_name == "vggss.json" else list_name.partition("_")[0]
    there = datasets_in(root)
    if wanted in there or not there:
        return f"Create it with: {prepare_command(root, wanted)}. {WHERE_LISTS_ARE}"
    titles = " and ".join(_TITLES[dataset] for dataset in there)
    return f"The folder holds {titles}. Use train_{there[0]}.py, or evaluate.py with --dataset {there[0]}"


def prepare_command(root: Path, dataset: str | None = None) -> str:
    """Returns the command that makes frames, sounds and lists of the folder, for ``dataset`` or the one it holds."""
    name = dataset or next(iter(datasets_in(root)), "music")
    return f"python examples/prepare_{name}.py {_SOURCES[name]} --out {shlex.quote(str(root))}"
