"""The baselines' losses as plain torch code: each equation of the library's documentation, the shortest way.

Losses that compare all frames with all sounds build the full B × B × H × W tensor, as public code does. The others are
a few products, or a loop over the samples. Nothing guards against NaN, underflow or missing samples.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ALPHA_FOREGROUND, ALPHA_BACKGROUND, OMEGA = 0.65, 0.4, 0.03


def all_maps(visual: Tensor, vectors: Tensor) -> Tensor:
    """Cosines of the pixels of all frames with all vectors, (B, G, H, W)."""
    return torch.einsum("bchw,gc->bghw", F.normalize(visual, dim=1), F.normalize(vectors, dim=1))


def own_maps(visual: Tensor, vectors: Tensor) -> Tensor:
    """Cosines of the pixels of each frame with its vector, (B, H, W)."""
    return torch.einsum("bchw,bc->bhw", F.normalize(visual, dim=1), F.normalize(vectors, dim=1))


def off_diagonal(values: Tensor) -> Tensor:
    return values[~torch.eye(len(values), dtype=torch.bool, device=values.device)]


def naive_trimap(visual: Tensor, audio: Tensor, temperature: float = 0.07) -> Tensor:
    maps = all_maps(visual, audio)
    inside = torch.sigmoid((maps - ALPHA_FOREGROUND) / OMEGA)
    outside = 1 - torch.sigmoid((maps - ALPHA_BACKGROUND) / OMEGA)
    sounding = (inside * maps).sum((2, 3)) / inside.sum((2, 3))
    silent = ((outside * maps).sum((2, 3)) / outside.sum((2, 3))).diagonal()
    logits = torch.cat([sounding, silent[:, None]], 1) / temperature
    return F.cross_entropy(logits, torch.arange(len(visual), device=visual.device))


def naive_best_place(visual: Tensor, audio: Tensor, temperature: float = 0.03) -> Tensor:
    logits = all_maps(visual, audio).amax((2, 3)) / temperature
    own = torch.arange(len(visual), device=visual.device)
    return F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)


def naive_correspondence(
    visual: Tensor, audio: Tensor, scale: Tensor, bias: Tensor, normalize: bool = False, bins: int = 1
) -> Tensor:
    maps = all_maps(visual, audio) if normalize else torch.einsum("bchw,gc->bghw", visual, audio)
    match = torch.sigmoid(scale * maps + bias)
    own = match.amax((2, 3)).diagonal()
    others = off_diagonal(F.adaptive_max_pool2d(match, bins))
    return (-own.log().mean() - (1 - others).log().mean()) / 2


def naive_dictionary(
    visual: Tensor, localization: Tensor, dictionary: Tensor, audio_logits: Tensor, scale: Tensor, bias: Tensor
) -> Tensor:
    maps = (scale * torch.einsum("kc,bchw->bkhw", dictionary, visual) + bias) * localization[:, None]
    seen, heard = maps.mean((2, 3)).log_softmax(1), audio_logits.softmax(1)
    return F.kl_div(seen, heard, reduction="batchmean") / len(dictionary)


def naive_attention(visual: Tensor, query: Tensor, target: Tensor) -> Tensor:
    attention = own_maps(visual, query).relu().flatten(1).softmax(1)
    return naive_pair_distances(torch.einsum("bcp,bp->bc", visual.flatten(2), attention), target)


def naive_pair_distances(embedding: Tensor, target: Tensor) -> Tensor:
    """The softmax form of the attention loss, from the differences of all pairs, (B, B, C)."""
    embedding, target = F.normalize(embedding, dim=1), F.normalize(target, dim=1)
    distances = (embedding[:, None] - target).norm(dim=2)
    return off_diagonal((distances.diagonal()[:, None] - distances).sigmoid().square()).mean()


def naive_clusters(visual: Tensor, audio: Tensor, margin: float = 5.0) -> Tensor:
    pixels, sounds = visual.flatten(2).mT, audio.flatten(2).mean(2)
    centers = pixels[:, [0, pixels.shape[1] // 2]]
    for _ in range(4):
        distances = (centers[:, :, None] - pixels[:, None]).norm(dim=3)
        shares = (-30 * distances).softmax(1)
        centers = shares / shares.sum(2, keepdim=True) @ pixels
    squares = (centers[:, None] - sounds[:, None]).square().sum(3).amin(2)
    hinge = (margin - off_diagonal(squares + 1e-9).sqrt()).relu().square()
    return squares.diagonal().mean() / 4 + hinge.mean() / 4


def naive_pair_logits(logits: Tensor) -> Tensor:
    return (F.softplus(-logits.diagonal()).mean() + F.softplus(off_diagonal(logits)).mean()) / 2


def naive_pool(features: Tensor, weight: Tensor) -> Tensor:
    maps = torch.einsum("bcp,kc->bkp", features.flatten(2), weight).relu().detach()
    return torch.einsum("bkp,bcp->bkc", maps, features.flatten(2)) / maps.sum(2, keepdim=True).clamp(min=1e-8)


def naive_alignment(
    visual: Tensor, audio: Tensor, visual_probability: Tensor, audio_probability: Tensor, margin: float = 1.4
) -> Tensor:
    distances = 2 - 2 * F.normalize(audio, dim=2).flatten(0, 1) @ F.normalize(visual, dim=2).flatten(0, 1).T
    active = (audio_probability > 0.3).flatten()[:, None] & (visual_probability > 0.3).flatten()
    same = torch.eye(len(active), dtype=torch.bool, device=active.device)
    hinge = (margin - distances[active & ~same].sqrt()).relu().square()
    return distances[active & same].mean() + hinge.mean()


def naive_cycle_walk(visual: Tensor, nodes: Tensor, start_nodes: Tensor, temperature: float = 0.07) -> Tensor:
    losses = []
    for frames, ends, starts in zip(visual, nodes, start_nodes, strict=True):
        to_frame = (all_maps(frames, starts).amax((2, 3)).T / temperature).softmax(1)
        to_node = (all_maps(frames, ends).amax((2, 3)) / temperature).softmax(1)
        losses.append(-(to_frame @ to_node).diagonal().log().mean())
    return torch.stack(losses).mean()


def naive_grouping(
    visual: Tensor,
    audio_groups: Tensor,
    sources: Tensor,
    token_logits: Tensor,
    visual_logits: Tensor,
    audio_logits: Tensor,
    visual_present: Tensor,
    audio_present: Tensor,
    temperature: float = 0.03,
) -> Tensor:
    own = torch.arange(len(visual), device=visual.device)
    classes = torch.arange(len(token_logits), device=visual.device)
    pixels, localization = F.normalize(visual, dim=1), []
    for classes_heard in sources.T:
        sounds = audio_groups[own, classes_heard] / temperature
        scores = torch.einsum("bchw,gc->bghw", pixels, sounds).amax((2, 3))
        localization.append(F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own))
    presence = [
        F.binary_cross_entropy_with_logits(logits, present.to(logits.dtype))
        for logits, present in ((visual_logits, visual_present), (audio_logits, audio_present))
    ]
    return torch.stack(localization).mean() + F.cross_entropy(token_logits, classes) + sum(presence)


def naive_object_clustering(visual: Tensor, audio: Tensor) -> Tensor:
    """A loop over samples, prototypes and groups."""
    total = visual.new_zeros(())
    for features, sound in zip(visual, audio, strict=True):
        similarity = F.cosine_similarity(features, sound[:, None, None], dim=0).flatten()
        parts = F.normalize(features.flatten(1).T, dim=1) * similarity[:, None]
        silent = 1 - torch.sigmoid((similarity - ALPHA_BACKGROUND) / OMEGA)
        background = (parts * silent[:, None]).mean(0)
        prototypes = parts[_find_peaks(parts.detach(), similarity.detach(), background.detach())]
        for group in _merge(prototypes.detach(), background.detach()):
            outside = [j for j in range(len(prototypes)) if j not in group]
            others = background + prototypes[outside].mean(0) if outside else background
            anchor = prototypes[group[-1]]
            attraction = 1 - F.cosine_similarity(anchor, prototypes[group].mean(0), dim=0)
            total = total + attraction + F.cosine_similarity(anchor, others, dim=0)
    return total / len(visual)


def _find_peaks(parts: Tensor, similarity: Tensor, background: Tensor) -> list[int]:
    free = torch.ones_like(similarity, dtype=torch.bool)
    peaks: list[int] = []
    while bool(free.any()):
        peak = int(similarity.masked_fill(~free, -torch.inf).argmax())
        if peaks and similarity[peak] < 0.1:
            break
        peaks.append(peak)
        claimed = free & ((parts - parts[peak]).norm(dim=1) < (parts - background).norm(dim=1))
        if not bool(claimed.any()):
            break
        free = free & ~claimed
    return peaks


def _merge(prototypes: Tensor, background: Tensor) -> list[list[int]]:
    """Chains of prototypes that are alike, without those that are background."""
    silent = F.cosine_similarity(prototypes, background[None], dim=1) > 0.7
    groups: list[list[int]] = []
    for j in range(len(prototypes)):
        if silent[j]:
            continue
        alike = F.cosine_similarity(prototypes[j : j + 1], prototypes, dim=1) > 0.6
        linked = [group for group in groups if any(alike[k] for k in group)]
        merged = sorted(k for group in linked for k in group)
        groups = [group for group in groups if group not in linked] + [[*merged, j]]
    return groups


def naive_text_guided(
    visual: Tensor, audio: Tensor, class_text: Tensor, sources: Tensor, scale: float = 100.0
) -> Tensor:
    """T-VSL without its gates: cross-entropies of what names pick, their contrast, and the presence of the classes."""
    names = F.normalize(class_text, dim=1)
    text, total = names[sources], torch.zeros(())
    picks = []
    for features in (visual, audio):
        tokens = F.normalize(features.flatten(2), dim=1)
        mask = F.normalize(torch.einsum("bcp,bkc->bkp", tokens, text), dim=2)
        picks.append(F.normalize(torch.einsum("bkp,bcp->bkc", mask, tokens), dim=2).flatten(0, 1))
        total = total + F.cross_entropy(scale * picks[-1] @ names.mT, sources.flatten())
    logits = scale * picks[0] @ picks[1].mT
    own = torch.arange(len(logits))
    total = total + (F.cross_entropy(logits, own) + F.cross_entropy(logits.mT, own)) / 2
    means = torch.cat([F.normalize(visual, dim=1).mean((2, 3)), audio.mean((2, 3))], dim=1)
    presence = scale / 2**0.5 * F.normalize(means, dim=1) @ torch.cat([names, names], dim=1).mT
    present = F.one_hot(sources, len(names)).amax(1).to(presence.dtype)
    return total + F.binary_cross_entropy_with_logits(presence, present)
