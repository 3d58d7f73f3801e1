"""AudioCLIP's image tower, which is CLIP's ResNet-50, and maps of features from it."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .sizes import FULL, GRID, Sizes
from .trunk import EXPANSION, build_stages

HEAD = 64  # channels per head of the attention
Map = Literal["values", "tokens"]
MAPS: tuple[Map, ...] = get_args(Map)


class AttentionPool(nn.Module):
    """Self-attention over the mean of a map and its places, (B, D, h, w) → (B, 1 + h·w, E).

    Its first token is CLIP's embedding of an image. Position embeddings are interpolated if the map is not 7 × 7.
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.randn(1 + GRID**2, channels) / channels**0.5)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(channels, channels) for _ in range(3))
        self.c_proj = nn.Linear(channels, out)
        self.heads = channels // HEAD

    def forward(self, features: Tensor) -> Tensor:
        tokens = torch.cat([features.mean((2, 3))[:, None], features.flatten(2).transpose(1, 2)], dim=1)
        tokens = tokens + self._positions(*features.shape[2:])
        query, key, value = (
            projection(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.c_proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))

    def _positions(self, height: int, width: int) -> Tensor:
        if (height, width) == (GRID, GRID):
            return self.positional_embedding
        mean, places = self.positional_embedding.split([1, GRID**2])
        grid = places.T.view(1, -1, GRID, GRID)
        resized = F.interpolate(grid, (height, width), mode="bicubic", align_corners=False)
        return torch.cat([mean, resized[0].flatten(1).T])


class ImageTower(nn.Module):
    """Encodes normalized pixels, (B, 3, H, W) → (B, E), with H and W of at least 32.

    Args:
        sizes: the sizes of the networks.
    """

    def __init__(self, sizes: Sizes = FULL) -> None:
        super().__init__()
        width, stem = sizes.width, sizes.width // 2
        self.conv1 = nn.Conv2d(3, stem, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.conv2 = nn.Conv2d(stem, stem, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(stem)
        self.conv3 = nn.Conv2d(stem, width, 3, 1, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.layer1, self.layer2, self.layer3, self.layer4 = build_stages(width, sizes.depths, 1, pooled=True)
        self.attnpool = AttentionPool(EXPANSION * width * 8, sizes.embedding)

    def features(self, pixels: Tensor) -> Tensor:
        """Computes the last map, (B, 3, H, W) → (B, D, H/32, W/32)."""
        x = pixels
        for convolution, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            x = F.relu(norm(convolution(x)))
        x = F.avg_pool2d(x, 2)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return x

    def forward(self, pixels: Tensor) -> Tensor:
        return self.attnpool(self.features(pixels))[:, 0]


class ImageMap(nn.Module):
    """Computes features of places in AudioCLIP's joint space, (B, 3, H, W) → (B, E, H/32, W/32).

    - ``"values"``: the value of each place, passed through the output projection of the attention. As in MaskCLIP, no
      place attends to others, and no position embeddings are added.
    - ``"tokens"``: the outputs of the attention at the places, as in T-VSL. Each place attends to all others.

    Args:
        tower: the tower, which is then part of this module.
        kind: which of the two.
    """

    def __init__(self, tower: ImageTower, kind: Map) -> None:
        super().__init__()
        if kind not in MAPS:
            raise ValueError(f"Expected `kind` to be one of {', '.join(MAPS)}, but got {kind!r}")
        pool = tower.attnpool
        del tower.attnpool
        self.kind, self.trunk = kind, tower
        if kind == "values":  # without the parts that it does not use, which would stay without gradients
            self.value, self.out = pool.v_proj, pool.c_proj
        else:
            self.pool = pool

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.trunk.features(pixels)
        if self.kind == "values":
            places = self.out(self.value(features.flatten(2).transpose(1, 2)))
        else:
            places = self.pool(features)[:, 1:]
        return places.transpose(1, 2).unflatten(2, features.shape[2:])
