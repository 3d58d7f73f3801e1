"""How the sources of a mixture are told apart: one map per source from a method's features or maps."""

from __future__ import annotations

import torch
from torch import Tensor

from sslosses import cluster_objects, identify_objects

from ..config import Config
from .encoders import Encoded
from .method import Method, SourceMaps, select_maps


def source_maps(
    method: Method,
    config: Config,
    encoded: Encoded,
    num_sources: int | None,
    identification: str,
    classes: Tensor | None = None,
) -> SourceMaps:
    """Computes one map per source by ``identification``.

    "iterative" and "clustering" find objects in the features. "repeat" takes the map of the sound for every source,
    "single" for one source only; the others have none. "own" are the method's own maps, "given" its maps of given
    classes.

    Args:
        method: has the features and maps.
        config: has the thresholds of the iterative identification.
        encoded: the scenes.
        num_sources: the number of sources; None if unknown, which is one for "repeat" and "single".
        identification: one of those of the method.
        classes: (B, K), the classes of the sources, for "given".

    Raises:
        ValueError: if the method does not have this identification, or its classes are not given.
    """
    check_identification(method, config.method, identification)
    if identification == "given" and classes is None:
        raise ValueError(
            "Expected another `identification`, since the classes of the sources are not known, but got 'given'"
        )
    if identification in ("own", "given"):
        scored, sound = method.own_maps(encoded, num_sources), method.sound_map(encoded)
        return _with_peaks(*select_maps(scored, num_sources, classes if identification == "given" else None), sound)
    if identification in ("repeat", "single"):
        sound, count = method.sound_map(encoded), num_sources or 1
        valid = torch.ones(len(sound), count, dtype=torch.bool, device=sound.device)
        if identification == "single":
            valid[:, 1:] = False
        return _with_peaks(sound[:, None] * valid[:, :, None, None], valid, sound)
    visual, audio = method.features(encoded)
    if identification == "clustering":
        objects = cluster_objects(visual, audio, num_sources=num_sources)
    else:
        objects = identify_objects(
            visual,
            audio,
            num_sources=num_sources,
            peak_threshold=config.peak_threshold,
            background_threshold=config.background_threshold,
            merge_threshold=config.merge_threshold,
            alpha_background=config.alpha_background,
            omega=config.omega,
        )
    return SourceMaps(objects.maps, objects.valid, objects.peaks)


def check_identification(method: Method | type[Method], name: str, identification: str) -> None:
    """Checks that ``method``, of this name, has this identification.

    Raises:
        ValueError: if not.
    """
    if identification not in method.identifications:
        raise ValueError(
            f"Expected `identification` of the method {name} to be one of {', '.join(method.identifications)}, but got "
            f"{identification!r}"
        )


def _with_peaks(maps: Tensor, valid: Tensor, sound: Tensor) -> SourceMaps:
    peaks = sound.flatten(1).gather(1, maps.flatten(2).argmax(2))
    return SourceMaps(maps, valid, peaks.where(valid, 0))
