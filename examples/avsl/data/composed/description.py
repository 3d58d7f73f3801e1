"""What a composed data set depends on, and the name of its folder. Imports nothing that composes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .soundfont import FontFile

FORMAT = 2  # to be raised when the same description gives different files


@dataclass(frozen=True)
class Description:
    """Everything that the composed data set depends on.

    Args:
        seed: seed of all scenes.
        train: number of training scenes per subset.
        test: number of test scenes per subset.
        side: side of a frame, in pixels.
        media: folder of photographs and recordings; ``None``: drawn instruments.
        soundfont: SoundFont with the sounds of the drawn instruments; ``None``: synthesized sounds.
    """

    seed: int = 0
    train: int = 800
    test: int = 200
    side: int = 224
    media: str | None = None
    soundfont: FontFile | None = None

    @property
    def folder(self) -> str:
        """Name of the data set's folder."""
        kind = "media" if self.media else "soundfont" if self.soundfont else "drawn"
        return f"{kind}-seed{self.seed}-{self.train}-{self.test}"

    def as_json(self) -> dict[str, Any]:
        """The content of the folder's ``dataset.json``."""
        values = {"format": FORMAT, **asdict(self)}
        del values["soundfont"]
        if self.soundfont:  # older data sets have no such key
            values["soundfont"] = self.soundfont.as_json()
        return values
