"""A visual encoder on CLIP's image tower; the values of the last attention are its dense features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from .tower import Tower, by_frame, json_values, load_pretrained

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class DenseClip(nn.Module):
    """Computes one feature per patch from normalized pixels, (B, 3, H, W) → (B, D, H/p, W/p).

    CLIP is trained on its class token alone, so the last block fills the patch tokens with global information instead
    of that of their own patches. As in MaskCLIP, the attention of the last block is left out: each patch keeps its own
    value, passed through the output projection. The residual and the MLP of this block, which ClearCLIP identifies as
    sources of noise, are also left out. CLIP's final normalization follows, but not its projection into the joint
    space, since the head learns another space.
    """

    def __init__(self, model: CLIPVisionModel) -> None:
        super().__init__()
        vision = getattr(model, "vision_model", model)
        last = vision.encoder.layers[-1]
        vision.encoder.layers = vision.encoder.layers[:-1]
        self.embeddings, self.pre_norm, self.blocks = vision.embeddings, vision.pre_layrnorm, vision.encoder
        self.norm, self.value, self.out = last.layer_norm1, last.self_attn.v_proj, last.self_attn.out_proj
        self.post_norm = vision.post_layernorm
        self.patch, self.width = model.config.patch_size, model.config.hidden_size

    def forward(self, pixels: Tensor) -> Tensor:
        grid = pixels.shape[-2] // self.patch, pixels.shape[-1] // self.patch
        tokens = self.pre_norm(self.embeddings(pixels, interpolate_pos_encoding=True))
        patches = self.blocks(inputs_embeds=tokens).last_hidden_state[:, 1:]
        features = self.post_norm(self.out(self.value(self.norm(patches))))
        return features.transpose(1, 2).unflatten(2, grid)


class ClipVisualEncoder(Tower):
    """Encodes frames, (B, 3, H, W) uint8 → (B, C, H/p, W/p), with a CLIP tower and a 1×1 head.

    Frames may have any size of at least one patch, since position embeddings are interpolated.

    Args:
        weights: Hugging Face name or local folder of a CLIP model or its vision tower; or the ``architecture`` of an
            encoder, for random weights.
        out: C.
        frozen: whether only the head is trained.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: str | dict[str, Any], out: int, *, frozen: bool = True) -> None:
        super().__init__(frozen=frozen)
        if isinstance(weights, dict):
            model = CLIPVisionModel(CLIPVisionConfig(**weights))
        else:
            model = load_pretrained(CLIPVisionModel, ("clip", "clip_vision_model"), "visual_weights", weights)
        self.architecture = json_values(model.config)
        self.tower = DenseClip(model)
        self.trunk_channels = self.tower.width
        self.head = nn.Conv2d(self.tower.width, out, 1)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)
        self.freeze()

    def features(self, inputs: Tensor) -> Tensor:
        return by_frame(self.tower, (inputs.float() / 255 - self.mean) / self.std)
