"""The model before training, and the scenes that it is trained on."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import lightning as L
import torch
from filelock import FileLock

from ..config import Config
from ..data.folders import ClipFolder, Pool, all_captions
from ..data.loading import TrainingScenes
from ..data.quality import with_quality
from ..data.scenes import Scenes
from ..files import atomic_buffer
from ..model.caption_features import CaptionTable, encode_captions
from ..model.encoders import EfficientNetVisualEncoder, Features, Tower
from ..model.localizer import Localizer
from ..model.weight_files import read_values
from .data_location import DataLocation
from .pretraining import crop_captions, pretrain, render_crops

STANDARDIZED = 200  # training frames whose features give the head's standardization

log = logging.getLogger(__name__)


def set_up_training(location: DataLocation, config: Config, folder: ClipFolder) -> tuple[Localizer, TrainingScenes]:
    """Builds the model, with its caption features and its pretrained visual encoder, and the training scenes."""
    pools = [
        Pool(with_quality(pool.clips, config.caption_quality, config.seed), pool.size)
        for pool in (folder.training_pool(subset) for subset in config.subsets)
    ]
    clips = [clip for pool in pools for clip in pool.clips]
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
        captions = CaptionTable.build(texts, config.text_encoder, location.cache)
        L.seed_everything(config.seed, verbose=False)
        model = Localizer(config.as_dict(), captions.features.shape[1])
        model.text.fit(captions.features, config.text_shrinkage)
        if config.crops and not location.root and config.visual_weights is None:
            _load_pretrained(model, config, str(location.media) if location.media else None, location.cache)
    return model, TrainingScenes(folder.root, pools, captions, config)


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
    targets = model.text(encode_captions(crop_captions(media), config.text_encoder, cache))
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
    keys = ("seed", "crops", "pretraining_steps", "pretraining_rate", "image_size", "visual_widths", "visual_depths")
    settings = json.dumps([media, *(config.as_dict()[key] for key in keys)]).encode()
    return hashlib.sha256(settings + targets.numpy().tobytes()).hexdigest()[:16]
