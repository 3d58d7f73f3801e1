"""Where scenes come from: the user's folder, or scenes that are composed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..config import Config
from ..data.composed.description import Description
from ..data.flickr import FlickrFolder
from ..data.folders import ClipFolder
from ..data.music import MusicFolder
from ..data.vggsound import VggsoundFolder

FOLDERS: dict[str, type[ClipFolder]] = {"music": MusicFolder, "vggsound": VggsoundFolder, "flickr": FlickrFolder}


@dataclass(frozen=True)
class DataLocation:
    """Where scenes and features are.

    Args:
        storage: folder for composed scenes and cached features.
        root: the user's prepared folder; without it, scenes are composed.
        media: folder of photographs and recordings to compose scenes from; without it, objects are drawn.
        soundfont: SoundFont with the sounds of drawn instruments; without it, they are synthesized.
    """

    storage: Path
    root: Path | None = None
    media: Path | None = None
    soundfont: Path | None = None

    @property
    def cache(self) -> Path:
        """Folder of cached caption features and pretrained weights."""
        return self.storage / "cache"


def data_root(location: DataLocation, config: Config) -> Path:
    """Returns the user's folder, or that of the composed scenes, whether or not it exists."""
    return location.root or location.storage / _description(location, config).folder


def open_data(location: DataLocation, config: Config) -> ClipFolder:
    """Opens the user's folder, or the composed scenes, which are made if they do not exist."""
    folder_type = FOLDERS[config.dataset]
    if location.root:
        return folder_type(location.root)
    if not folder_type.has_classes:  # scenes are composed in the forms of the other data sets only
        raise ValueError(f"Expected `data_root`, as there are no composed scenes for {config.dataset}")
    from ..data.composed.dataset import ensure_composed

    return folder_type(ensure_composed(location.storage, _description(location, config)))


def _description(location: DataLocation, config: Config) -> Description:
    media = str(location.media) if location.media else None
    font = None
    if location.soundfont:
        from ..data.composed.soundfont import FontFile

        font = FontFile.of(location.soundfont)
    return Description(config.data_seed, config.train_scenes, config.test_scenes, media=media, soundfont=font)
