"""Collects features and maps of a trained model for the pictures of docs/."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import diagrams
import torch
from avsl.data.composed.arrangement import Scene, SceneObject
from avsl.data.composed.composer import DrawnSource, captions
from avsl.data.folders import Clip
from avsl.evaluation.held_out import HeldOutScenes
from avsl.evaluation.legend import assigned_maps, source_labels
from avsl.evaluation.predict import predict
from avsl.evaluation.score import chance_metrics, run_metrics
from avsl.evaluation.sheet import picture_of
from avsl.model.caption_features import encode_captions
from avsl.model.encoders import Encoded
from avsl.model.localizer import Localizer
from matplotlib.figure import Figure
from torch import Tensor

from sslosses import background_mask, foreground_mask, masked_pool, similarity_map
from sslosses.similarity import cosine


class Features(NamedTuple):
    """Features of scenes: F_v (B, C, H, W), l_a (B, C), F_r^p (B, K, C), l_r^n (B, C), and their captions."""

    visual: Tensor
    audio: Tensor
    foreground: Tensor
    background: Tensor
    captions: list[list[str]]

    @property
    def reference_maps(self) -> Tensor:
        """S_r, (B, K + 1, H, W), the background last."""
        return similarity_map(self.visual, torch.cat([self.foreground, self.background[:, None]], dim=1))


def scene_captions(held_out: HeldOutScenes, index: int) -> list[str]:
    """The captions of a test scene as in training: one per source, then the background caption."""
    number = held_out.test.scenes[index][0]
    clip: Clip = held_out.test.clips[number]
    names = [(n, True) for n in clip.classes] + [(n, False) for n in held_out.silent[number].classes]
    texts = captions(Scene(tuple(SceneObject(n, s, (0, 0, 1, 1)) for n, s in names)), DrawnSource())
    return [*texts["foreground"], texts["background"]]


@torch.no_grad()
def encode(model: Localizer, held_out: HeldOutScenes, indices: list[int]) -> Encoded:
    examples = [held_out.scenes[held_out.test.scenes[i]] for i in indices]
    return model.encode(torch.stack([e.frame for e in examples]), torch.stack([e.waveform for e in examples]))


@torch.no_grad()
def features(model: Localizer, held_out: HeldOutScenes, indices: list[int], cache: Path) -> Features:
    texts = [scene_captions(held_out, i) for i in indices]
    flat = [text for scene in texts for text in scene]
    references = model.method.text(encode_captions(flat, model.config.text_encoder, cache))
    references = references.view(len(texts), len(texts[0]), -1)
    return Features(
        *model.method.features(encode(model, held_out, indices)), references[:, :-1], references[:, -1], texts
    )


def pipeline_picture(model: Localizer, held_out: HeldOutScenes, index: int, cache: Path) -> Figure:
    """Draws the steps from frame to score for a duet."""
    scene, example = features(model, held_out, [index], cache), held_out.scenes[held_out.test.scenes[index]]
    shown = held_out._replace(
        test=held_out.test._replace(scenes=[held_out.test.scenes[index]], boxes=[held_out.test.boxes[index]])
    )
    prediction = predict(model, shown)
    scores = dict(run_metrics(shown, prediction))
    chance = chance_metrics(shown, tuple(prediction.sound.shape[1:]))["whole frame"]
    auc = scores["duet AUC"], chance["duet AUC"]
    one, two = source_labels(shown, 0)
    sound = similarity_map(scene.visual, scene.audio)[0]
    made = diagrams.Scene(
        picture=picture_of(held_out, index),
        sound=example.waveform,
        classes=(one, two),
        boxes=[list(boxes) for boxes in held_out.test.boxes[index]],
        captions=scene.captions[0],
        visual=scene.visual[0],
        sound_map=sound,
        caption_maps=scene.reference_maps[0],
        maps=prediction.maps[0, assigned_maps(shown, prediction, 0)],
        score="Maps and boxes (white)\ngive the score, by the\nprotocol “paper”:\n\n"
        f"AUC {auc[0]:.0f} %; the whole\nframe as map: {auc[1]:.0f} %",
    )
    return diagrams.draw_pipeline(made)


def oca_picture(model: Localizer, held_out: HeldOutScenes, indices: tuple[int, int, int], cache: Path) -> Figure:
    """Draws the pairs of OCA for the first of three solos; the third one has its class, the second has another."""
    scenes, config = features(model, held_out, list(indices), cache), model.config
    sound = similarity_map(scenes.visual, scenes.audio)
    masks = foreground_mask(sound, alpha=config.alpha_foreground, omega=config.omega)
    rest = background_mask(sound, alpha=config.alpha_background, omega=config.omega)
    sounding = masked_pool(scenes.visual, sound, alpha=config.alpha_foreground, omega=config.omega)
    silent = masked_pool(scenes.visual, sound, alpha=config.alpha_background, omega=config.omega, foreground=False)
    reference, other = scenes.foreground[0, 0], scenes.background[0]
    pictures = [picture_of(held_out, index) for index in indices]
    names = [source_labels(held_out, index)[0] for index in indices]

    def pair(k: int, name: str, feature: Tensor, caption: Tensor, region: Tensor, attracts: bool) -> diagrams.Pair:
        value = float(cosine(feature, caption))
        left_out = k > 0 and value > config.tau
        result = diagrams.LEFT_OUT if left_out else diagrams.PULL if attracts else diagrams.PUSH
        return diagrams.Pair(pictures[k], region, name, value, result)

    positive = [
        pair(0, f"clip A: where the sound is\n({names[0]})", sounding[0], reference, masks[0], True),
        pair(0, "clip A: the rest of the frame\n(with silent things)", silent[0], reference, rest[0], False),
        pair(1, f"clip B: where its sound is\n({names[1]})", sounding[1], reference, masks[1], False),
        pair(2, f"clip C: where its sound is\n({names[2]} again, too alike)", sounding[2], reference, masks[2], False),
    ]
    negative = [
        pair(0, "clip A: the rest of the frame\n(with silent things)", silent[0], other, rest[0], True),
        pair(0, f"clip A: where the sound is\n({names[0]})", sounding[0], other, masks[0], False),
    ]
    return diagrams.draw_oca(*scenes.captions[0], positive, negative, config.tau)
