"""Renders a scene: its frame, its sound and its captions, from drawn objects or another supply of objects."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from . import drawing, timbres
from .arrangement import Placement, Scene, Vocabulary
from .recorded import RecordedInstruments

SUPERSAMPLING = 2


class ObjectSource(Protocol):
    """A supply of objects: their classes, and their pictures, sounds and names.

    ``held_out`` selects the variation of test scenes, ``sounding`` the state of an object.
    """

    vocabulary: Vocabulary

    def backdrop(self, rng: np.random.Generator, side: int, held_out: bool) -> Image.Image: ...

    def paint(
        self, canvas: Image.Image, name: str, sounding: bool, box: Placement, rng: np.random.Generator, held_out: bool
    ) -> None: ...

    def sound(self, name: str, rng: np.random.Generator, held_out: bool) -> NDArray[np.float32]: ...

    def phrase(self, name: str, sounding: bool) -> str: ...


class DrawnSource:
    """Drawn instruments of MUSIC.

    Args:
        soundfont: SoundFont 2 file with recordings of the instruments; without it, their sounds are synthesized.

    Raises:
        OSError, ValueError: as :class:`RecordedInstruments`.
    """

    vocabulary = Vocabulary(
        sounding={name: aspect for name, (_, aspect) in drawing.INSTRUMENTS.items()},
        silent={name: aspect for name, (_, aspect) in drawing.SILENT_OBJECTS.items()},
    )

    def __init__(self, soundfont: Path | None = None) -> None:
        self._play = RecordedInstruments(soundfont).play if soundfont else timbres.play

    def backdrop(self, rng: np.random.Generator, side: int, held_out: bool) -> Image.Image:
        """Draws a wall and a floor with small furniture, RGB, ``side`` × ``side`` pixels."""
        palette = drawing.Palette(rng, held_out)
        image = Image.new("RGB", (side, side), palette.wall())
        draw = ImageDraw.Draw(image)
        horizon, floor = rng.uniform(0.45, 0.75) * side, palette.wood()
        draw.rectangle((0, horizon, side, side), fill=floor)
        for x in np.arange(rng.uniform(0, 0.15), 1, rng.uniform(0.1, 0.25)):
            draw.line((x * side, horizon, (1.6 * x - 0.3) * side, side), fill=drawing.shade(floor, 0.85), width=2)
        for name in rng.choice(list(self.vocabulary.silent), size=int(rng.integers(1, 4))):
            size = rng.uniform(0.12, 0.24)
            box = (rng.uniform(0, 1 - size), rng.uniform(0, 1 - size), size * self.vocabulary.silent[name], size)
            self.paint(image, str(name), False, box, rng, held_out)
        return image

    def paint(
        self, canvas: Image.Image, name: str, sounding: bool, box: Placement, rng: np.random.Generator, held_out: bool
    ) -> None:
        """Draws an object into its box, and its player if it sounds."""
        palette = drawing.Palette(rng, held_out)
        side = canvas.width
        corners = (box[0] * side, box[1] * side, (box[0] + box[2]) * side, (box[1] + box[3]) * side)
        pen = drawing.Pen(ImageDraw.Draw(canvas), corners, mirrored=bool(rng.random() < 0.5))
        if sounding:
            drawing.player_behind(pen, palette)
        table = drawing.INSTRUMENTS if name in drawing.INSTRUMENTS else drawing.SILENT_OBJECTS
        table[name][0](pen, palette)
        if sounding:
            drawing.player_before(pen, palette, bowed=name in drawing.BOWED)

    def sound(self, name: str, rng: np.random.Generator, held_out: bool) -> NDArray[np.float32]:
        """Plays 3 s of the instrument at 16 kHz."""
        return self._play(name, rng, held_out)

    def phrase(self, name: str, sounding: bool) -> str:
        """Names the object for a caption."""
        words = name.replace("_", " ")
        if sounding:
            return f"a person playing the {words}"
        return f"a silent {words}" if name in self.vocabulary.sounding else f"a {words}"


def render_frame(
    scene: Scene, source: ObjectSource, rng: np.random.Generator, side: int, held_out: bool
) -> Image.Image:
    """Renders the scene as an RGB image, ``side`` × ``side`` pixels, with the lowest objects in front."""
    canvas = source.backdrop(rng, side * SUPERSAMPLING, held_out)
    for scene_object in sorted(scene.objects, key=lambda o: o.box[1] + o.box[3]):
        source.paint(canvas, scene_object.name, scene_object.sounding, scene_object.box, rng, held_out)
    return canvas.resize((side, side), Image.Resampling.BOX)


def render_audio(scene: Scene, source: ObjectSource, rng: np.random.Generator, held_out: bool) -> NDArray[np.float32]:
    """Mixes the sounds of the sounding objects with a little noise, (48000,) float32 in [−1, 1]."""
    mixture = sum(rng.uniform(0.7, 1.0) * source.sound(o.name, rng, held_out) for o in scene.sounding)
    mixture = mixture + 0.003 * rng.standard_normal(np.shape(mixture))
    return (0.9 * mixture / np.abs(mixture).max()).astype(np.float32)


def captions(scene: Scene, source: ObjectSource) -> dict[str, object]:
    """Describes the scene: ``{"foreground": [one caption per sounding object], "background": "..."}``."""
    silent = [source.phrase(o.name, False) for o in scene.silent]
    listed = silent[0] if len(silent) == 1 else f"{', '.join(silent[:-1])} and {silent[-1]}"
    return {
        "foreground": [f"an image of {source.phrase(o.name, True)}" for o in scene.sounding],
        "background": f"an image of {listed}",
    }
