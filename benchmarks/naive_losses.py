"""The paper's losses as plain torch code: equations as printed, loops, gradients through all iterations."""

from __future__ import annotations

from itertools import combinations

import torch
import torch.nn.functional as F
from peers import SinkhornDistance
from torch import Tensor

from sslosses.transport import grid_positions, pointcloud_cost

EPSILON, ITERATIONS = 0.05, 100


def naive_oca(visual: Tensor, audio: Tensor, foreground: Tensor, background: Tensor) -> Tensor:
    """Eqs. 1-6 with a loop over samples, and the masks and the pooling as printed."""
    sounding, silent = [], []
    for features, sound in zip(visual, audio, strict=True):
        similarity = F.cosine_similarity(features, sound[:, None, None], dim=0)
        inside = torch.sigmoid((similarity - 0.65) / 0.03)
        outside = 1 - torch.sigmoid((similarity - 0.4) / 0.03)
        sounding.append((features * inside).mean((1, 2)))
        silent.append((features * outside).mean((1, 2)))
    references = foreground.mean(1)
    losses = []
    for i in range(len(visual)):
        positive = F.cosine_similarity(sounding[i], references[i], dim=0, eps=1e-30).exp()
        hard = F.cosine_similarity(silent[i], references[i], dim=0, eps=1e-30).exp()
        soft = torch.zeros_like(positive)
        for j in range(len(visual)):
            other = F.cosine_similarity(sounding[j], references[i], dim=0, eps=1e-30)
            if j != i and other <= 0.7:
                soft = soft + other.exp()
        frg = -torch.log(positive / (positive + hard + soft))
        positive = F.cosine_similarity(silent[i], background[i], dim=0, eps=1e-30).exp()
        hard = F.cosine_similarity(sounding[i], background[i], dim=0, eps=1e-30).exp()
        losses.append((frg - torch.log(positive / (positive + hard))) / 2)
    return torch.stack(losses).mean()


def naive_ori(visual: Tensor, foreground: Tensor, background: Tensor) -> Tensor:
    """Eq. 7 with a loop over samples and pairs. The distance is symmetric, so every unordered pair counts twice."""
    positions = grid_positions(*visual.shape[-2:], dtype=visual.dtype, device=visual.device)
    sinkhorn = SinkhornDistance(EPSILON, ITERATIONS, half_step=True)
    total = visual.new_zeros(())
    for i, features in enumerate(visual):
        references = torch.cat([foreground[i], background[i, None]])
        maps = [F.cosine_similarity(features, r[:, None, None], dim=0).flatten() for r in references]
        for first, second in combinations(maps, 2):
            total = total + 2 * sinkhorn(pointcloud_cost(first, 1 - second, positions, positions).dense()[None]).sum()
    return total / len(visual)
