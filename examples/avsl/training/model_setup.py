"""The model before training, and the scenes that it is trained on."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from filelock import FileLock

from ..config import AUDIOCLIP, Config
from ..data.folders import ClipFolder, Pool, all_captions
from ..data.loading import TrainingScenes
from ..data.quality import with_quality
from ..data.scenes import Scenes
from ..files import atomic_buffer
from ..methods import method_class
from ..model.caption_features import CaptionTable, encode_captions
from ..model.encoders import EfficientNetVisualEncoder, Features, Tower
from ..model.encoders.audioclip.checkpoint import check_file
from ..model.identification import check_identification
from ..model.localizer import Localizer
from ..model.method import Method
from ..model.weight_files import read_values
from .data_location import DataLocation
from .pretraining import crop_captions, pretrain, render_crops

STANDARDIZED = 200  # training frames whose features give the head's standardization

log = logging.getLogger(__name__)


def set_up_training(location: DataLocation, config: Config, folder: ClipFolder) -> tuple[Localizer, TrainingScenes]:
    """Builds the model, with its caption features and its pretrained visual encoder, and the training scenes.

    Raises:
        FileNotFoundError: if the file of AudioCLIP is missing.
        ValueError: if there is no clip to train on, or the method lacks the identification of the configuration, or
            needs the classes of clips that have none.
    """
    method = method_class(config.method)
    check_identification(method, config.method, config.identification)
    if config.backbone == AUDIOCLIP:  # before captions are encoded by a tower of the same file
        check_file("visual_weights", config.visual_weights)
        check_file("audio_weights", config.audio_weights)
    pools = _pools(folder, config, method)
    clips = [clip for pool in pools for clip in pool.clips]
    if not method.needs_captions:
        return _set_up_without_captions(location, config, folder, pools)
    if missing := sum(clip.background is None for clip in clips):
        log.warning(
            "%d of %d training clips have no background caption: they have no background term in OCA, and no pair with "
            "the background in ORI.",
            missing,
            len(clips),
        )
    texts = [text for pool in pools for text in all_captions(pool.clips)]
    location.cache.mkdir(parents=True, exist_ok=True)
    with FileLock(location.cache / ".lock"):  # one process computes, the others read its files
        captions = CaptionTable.build(texts, config.text_encoder, location.cache, **_text_options(config))
        scenes = TrainingScenes(folder.root, pools, captions, config)
        model = _seeded_model(config, scenes, captions.features.shape[1])
        model.method.text.fit(captions.features, config.text_shrinkage)
        if config.crops and not location.root and config.visual_weights is None:
            _load_pretrained(model, config, str(location.media) if location.media else None, location.cache)
    return model, scenes


def _set_up_without_captions(
    location: DataLocation, config: Config, folder: ClipFolder, pools: Sequence[Pool]
) -> tuple[Localizer, TrainingScenes]:
    if config.crops:
        raise ValueError(
            f"Expected `crops` of the method {config.method} to be 0, since crops are pretrained on captions, but got "
            f"{config.crops}"
        )
    scenes = TrainingScenes(folder.root, pools, None, config)
    if not method_class(config.method).needs_class_text:
        return _seeded_model(config, scenes, 0), scenes
    location.cache.mkdir(parents=True, exist_ok=True)
    with FileLock(location.cache / ".lock"):
        names = [name.replace("_", " ") for name in scenes.classes]
        features = encode_captions(names, config.text_encoder, location.cache, **_text_options(config))
    model = _seeded_model(config, scenes, 0)
    model.method.set_class_text(features)
    return model, scenes


def _seeded_model(config: Config, scenes: TrainingScenes, text_features: int) -> Localizer:
    L.seed_everything(config.seed, verbose=False)
    return Localizer(config.as_dict(), text_features, classes=scenes.classes, sources=scenes.collate.slots)


def _text_options(config: Config) -> dict[str, Any]:
    """Options of AudioCLIP's text encoder; the results of a smoke test mean nothing, so its weights can be made up.

    Errors name the option by which the file was given: it can be that of all three towers.
    """
    of_all = config.backbone == AUDIOCLIP and config.text_encoder == config.visual_weights
    argument = "visual_weights" if of_all else "text_encoder"
    return {"tokenizer": config.tokenizer, "allow_stand_in": config.smoke_test, "argument": argument}


def _pools(folder: ClipFolder, config: Config, method: type[Method]) -> list[Pool]:
    """The clips to train on."""
    pools = [folder.training_pool(subset, captions=method.needs_captions) for subset in config.subsets]
    if method.needs_captions:
        pools = [Pool(with_quality(pool.clips, config.caption_quality, config.seed), pool.size) for pool in pools]
    if config.training_scenes == "single":
        # Subsets can share a list, but each clip is one scene.
        clips = {clip.name: clip for pool in pools for clip in pool.clips if len(clip.classes) == 1}
        pools = [Pool(list(clips.values()), 1)]
        if not clips:
            raise ValueError(
                f"Expected clips of one source for `training_scenes` single, but {', '.join(config.subsets)} has none"
            )
    if method.needs_classes:
        if not folder.has_classes:
            raise ValueError(
                f"Expected `method` to be one that needs no classes, which {config.dataset} does not have, but got "
                f"{config.method!r}"
            )
        for clip in (clip for pool in pools for clip in pool.clips):
            if not clip.classes:  # all lines of a list have one form
                raise ValueError(
                    f"Expected the class of clip {clip.name!r} in the training list, since the method {config.method} "
                    "needs it, but it has none"
                )
    return pools


def use_cached_features(
    model: Localizer, location: DataLocation, config: Config, scenes: Sequence[tuple[Scenes, int]]
) -> None:
    """Computes the features of frozen encoders for ``scenes``, unless they are on disk; no epoch computes them again.

    Args:
        model: the model, on the device to compute on.
        location: where the features are kept.
        config: says whether features are kept.
        scenes: the clips, and the largest number of them per scene.
    """
    if not config.cache_features:
        return
    if model.method.needs_waveforms and isinstance(model.audio, Tower) and model.audio.frozen:
        raise ValueError(
            f"Expected `cache_features` to be false for the method {config.method}, which mixes waveforms in training, "
            "but got true"
        )
    for clips, largest_scene in scenes:
        if isinstance(model.visual, Tower) and model.visual.frozen:
            clips.use_features("frames", model.visual, location.cache)
        if isinstance(model.audio, Tower) and model.audio.frozen and largest_scene == 1:
            clips.use_features("sounds", model.audio, location.cache)


@torch.no_grad()
def standardize_features(model: Localizer, scenes: Scenes) -> None:
    """Fits the head's standardization of frozen features, where it has one, to evenly picked training frames."""
    if not isinstance(model.visual, EfficientNetVisualEncoder):
        return
    picked = sorted({i * len(scenes) // STANDARDIZED for i in range(STANDARDIZED)})
    frames = [scenes[i].frame for i in picked]
    features = [
        frame.values.float() if isinstance(frame, Features) else model.visual.features(frame[None].to(model.device))[0]
        for frame in frames
    ]
    model.visual.head.fit(torch.stack(features).to(model.device))


def _load_pretrained(model: Localizer, config: Config, media: str | None, cache: Path) -> None:
    """Loads the pretrained visual encoder of this configuration; pretrains it if no earlier run has done so."""
    targets = model.method.text(
        encode_captions(crop_captions(media), config.text_encoder, cache, **_text_options(config))
    )
    path = cache / f"pretrained-{_fingerprint(config, media, targets)}.pt"
    if path.is_file():
        try:
            model.visual.load_state_dict(read_values(path))
        except (ValueError, RuntimeError, TypeError, AttributeError) as error:  # damaged, or other weights
            raise ValueError(
                f"Expected {path} to hold pretrained weights, but {error}. Delete it to have them made again."
            ) from error
        return
    images, labels = render_crops(config.crops, config.image_size, config.seed, media)
    pretrain(
        model.visual, images, labels, targets, steps=config.pretraining_steps, batch=64, rate=config.pretraining_rate
    )
    with atomic_buffer(path) as buffer:
        torch.save(model.visual.state_dict(), buffer)


def _fingerprint(config: Config, media: str | None, targets: torch.Tensor) -> str:
    """A hash of everything that pretraining depends on."""
    keys = ("seed", "crops", "pretraining_steps", "pretraining_rate", "image_size")
    keys += ("visual_widths", "visual_depths", "visual_stride")
    settings = json.dumps([media, *(config.as_dict()[key] for key in keys)]).encode()
    return hashlib.sha256(settings + targets.numpy().tobytes()).hexdigest()[:16]
