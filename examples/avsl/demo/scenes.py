"""Composed scenes to try: drawn by the example's generator when they are asked for."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import soundfile

from ..constants import FRAME_SIZE, SAMPLE_RATE
from ..data.composed.arrangement import sample_scene
from ..data.composed.composer import render_audio, render_frame
from ..data.composed.dataset import open_source

#: Number of sounding objects and seed of each scene.
SCENES = ((1, 6), (1, 1), (2, 1), (2, 4))


class ComposedScene(NamedTuple):
    """A scene as files, JPEG and WAV; the names of what sounds and of what is silent; the number of sources."""

    picture: bytes
    sound: bytes
    sounding: str
    silent: str
    sources: int


@lru_cache
def composed_scene(number: int) -> ComposedScene:
    """Draws the scene with this number, as those that models are tested on.

    Raises:
        IndexError: if there is no such scene.
    """
    sources, seed = SCENES[number]
    rng = np.random.default_rng([seed, 1, sources])
    source = open_source(None)
    scene = sample_scene(rng, source.vocabulary, sources)
    frame_rng, audio_rng = rng.spawn(2)
    picture, sound = io.BytesIO(), io.BytesIO()
    render_frame(scene, source, frame_rng, FRAME_SIZE * 2, held_out=True).save(picture, format="JPEG", quality=92)
    samples = render_audio(scene, source, audio_rng, held_out=True)
    soundfile.write(sound, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    names = (" and ".join(o.name.replace("_", " ") for o in group) for group in (scene.sounding, scene.silent))
    return ComposedScene(picture.getvalue(), sound.getvalue(), *names, sources)
