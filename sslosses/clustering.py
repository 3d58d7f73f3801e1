"""Clustering of the pixels that a sound marks: one map per source, also where the sources sound equally."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from sslosses._checks import check_count, check_mask, check_number, check_shapes
from sslosses._objects import check_scene, rows, select
from sslosses._torch import at_least_float32, autocast_off, has_values, safe_divisor
from sslosses.identification import IdentifiedObjects
from sslosses.similarity import similarity_map, unit

# Cosines, and entries of unit vectors, that differ by at most this count as equal. It is above the rounding of float32,
# and the same for float64, which would otherwise see contrasts that float32 does not.
_SAME = 1e-5


@torch.no_grad()
def cluster_objects(
    visual: Tensor,
    audio: Tensor,
    *,
    num_sources: int | Tensor | None = None,
    mask: Tensor | None = None,
    max_sources: int = 2,
    separation_threshold: float = 0.2,
    weight_temperature: float = 0.5,
    start_weight: float = 0.6,
    iterations: int = 10,
    membership_temperature: float = 0.1,
    contrast_weight: float = 2.0,
    sound_weight: float = 0.5,
) -> IdentifiedObjects:
    r"""Computes the maps of the sounding objects by clustering the features of the pixels that the sound marks.

    .. math:: m_k(x) = \frac{S_a(x)}{\sigma_S} + \lambda \frac{d_k(x)}{\sigma_{d_k}}, \quad
        d_k(x) = \mathrm{Sim}(u(x), e_k) - \max_{j \ne k} \mathrm{Sim}(u(x), e_j)

    u(x) is the unit visual feature of pixel x, S_a the similarity map of the audio, :math:`e_k` the center of source k,
    and λ is ``contrast_weight``. A σ is the standard deviation over the pixels that count.

    1. Pixels have weights :math:`w = \mathrm{softmax}_x(S_a / (t_w \sigma_S))`, where :math:`t_w` is
       ``weight_temperature``.
    2. The first center starts as the feature of the pixel with the largest S_a. Each next one starts at the pixel with
       the largest :math:`S_a / \sigma_S - \beta\, c / \sigma_c`. c is the largest cosine of a pixel with the earlier
       centers, and β is ``start_weight``. Of equal pixels, the first is taken.
    3. In each of the ``iterations``, a pixel belongs to the centers by the softmax of its cosines with them, divided by
       ``membership_temperature``. A center moves to the unit vector of :math:`\sum_x w(x)\, p_k(x)\, u(x)`, where
       :math:`p_k` is the share of pixel x that belongs to it.
    4. The maps are those above. A single source has no other center: its map is
       :math:`\gamma\, S_a / \sigma_S + c_1 / \sigma_{c_1}`, where :math:`c_1` is the cosine with its center and γ is
       ``sound_weight``.

    A quotient by a deviation of at most 1e-5 is 0, because such a map is constant except for rounding. Centers that
    start at equal features stay equal, and so do their maps.

    This is a method of this library. The paper's is :func:`~sslosses.identification.identify_objects`.

    Args:
        visual: (B, C, H, W), floating, visual features; any scale.
        audio: (B, C), floating, audio features; any scale.
        num_sources: the number K of sources if known, an int >= 1 or (B,) integers >= 0. Then every sample has K
            objects, even if some of them are equal. None if unknown.
        mask: (B, H, W) bool, True for pixels that count. The others may hold any value, such as the padding of frames
            of different sizes. None if all pixels count.
        max_sources: largest number of sources that is looked for if it is unknown, at least 1.
        separation_threshold: in [0, 2]. If the number is unknown, it is the largest K up to ``max_sources`` whose
            centers differ pairwise by 1 - cosine of at least this.
        weight_temperature: above 0. Small values leave only the pixels with the largest S_a.
        start_weight: at least 0. Large values start centers far from each other.
        iterations: number of times that the centers move, at least 1.
        membership_temperature: above 0. Small values let each pixel belong to one center only.
        contrast_weight: λ, at least 0; for samples with several sources.
        sound_weight: γ, at least 0; for samples with one source. 0 leaves the cosine with the center only. Larger
            values keep the map from silent objects that look like the sounding one.

    Returns:
        :class:`~sslosses.identification.IdentifiedObjects` without gradient; float64 if an input is, else float32. Its
        prototypes are the centers, of length 1, and its peaks are the S_a at the largest value of each map. Pixels
        outside ``mask`` have the smallest value that their map has inside. M is K, the largest K, or the largest number
        of objects in a sample. A sample with NaN, inf or no pixel that counts has no objects. In a compiled or
        exported graph sizes can't depend on values: M is K if that is an int, else ``max_sources``, which is then also
        the largest number in a tensor that counts.

    Raises:
        TypeError: if an input is not a floating tensor, ``mask`` is not boolean or an option has the wrong type.
        ValueError: if shapes or devices do not fit or an option is out of range.

    Source: this library.

    Example:
        >>> import torch
        >>> visual = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]).T.reshape(1, 3, 1, 3)
        >>> objects = cluster_objects(visual, torch.tensor([[8.0, 6.0, 2.0]]), num_sources=2)
        >>> objects.valid, objects.peaks  # the left and the middle pixel sound, the right one is silent
        (tensor([[True, True]]), tensor([[0.7845, 0.5883]]))
        >>> objects.maps[0, :, 0].argmax(-1)
        tensor([0, 1])
    """
    num_sources = check_scene(visual, audio, num_sources)
    if mask is not None:
        check_mask("mask", mask)
        check_shapes(visual=(visual, "B C H W"), mask=(mask, "B H W"))
    max_sources = check_count("max_sources", max_sources)
    iterations = check_count("iterations", iterations)
    separation_threshold = check_number("separation_threshold", separation_threshold, least=0, most=2)
    weight_temperature = check_number("weight_temperature", weight_temperature, above=0)
    membership_temperature = check_number("membership_temperature", membership_temperature, above=0)
    start_weight = check_number("start_weight", start_weight, least=0)
    contrast_weight = check_number("contrast_weight", contrast_weight, least=0)
    sound_weight = check_number("sound_weight", sound_weight, least=0)
    visual, audio = at_least_float32(visual, audio)
    with autocast_off(visual):
        scene = _scene(visual, audio, mask)
        weights = _softmax(scene.sound.masked_fill(~scene.counted, -torch.inf), weight_temperature, 1)
        starts = _starts(scene, _most_centers(num_sources, max_sources), start_weight)
        move = partial(_move, scene.features, weights, starts, iterations, membership_temperature)
        if num_sources is None:
            centers, count = _find(move, starts, separation_threshold)
        else:
            count = _counts(num_sources, starts)
            centers = move(count)
        maps = _maps(scene, centers, count, contrast_weight, sound_weight)
        objects = _sorted(scene, maps, centers, count)
        maps, *others = select(objects, objects.valid, num_sources)
    return IdentifiedObjects(maps.view(*maps.shape[:2], *visual.shape[2:]), *others)


class _Scene(NamedTuple):
    """What a batch of B samples of N pixels is clustered by.

    Attributes:
        features: (B, C, N), unit features u of the pixels.
        similarity: (B, N), S_a.
        sound: (B, N), S_a over its deviation.
        counted: (B, N) bool, True for pixels that count.
    """

    features: Tensor
    similarity: Tensor
    sound: Tensor
    counted: Tensor


def _scene(visual: Tensor, audio: Tensor, mask: Tensor | None) -> _Scene:
    if mask is not None:
        visual = visual.masked_fill(~mask[:, None], 0)
    similarity = similarity_map(visual, audio).flatten(1)
    counted = torch.ones_like(similarity, dtype=torch.bool) if mask is None else mask.flatten(1)
    sound = _over_deviation(similarity[:, None], counted)[:, 0]
    return _Scene(unit(visual.flatten(2), 1), similarity, sound, counted)


def _over_deviation(maps: Tensor, counted: Tensor) -> Tensor:
    """Maps (B, K, N) over their standard deviation, 0 for constant maps."""
    share = counted[:, None].to(maps.dtype)
    share = share / share.sum(-1, keepdim=True)
    difference = maps - (maps * share).sum(-1, keepdim=True)
    deviation = (difference.square() * share).sum(-1, keepdim=True).sqrt()
    constant = deviation <= _SAME
    return (maps / deviation.masked_fill(constant, 1)).masked_fill(constant, 0)


def _softmax(values: Tensor, temperature: float, dim: int) -> Tensor:
    # Not values / temperature, which overflows for small temperatures.
    difference = values - values.amax(dim, keepdim=True)
    return (difference / safe_divisor(temperature, values.dtype)).softmax(dim)


def _most_centers(num_sources: int | Tensor | None, max_sources: int) -> int:
    """The largest number of centers in a sample, at least 1."""
    if isinstance(num_sources, int):
        return num_sources
    if num_sources is None or not has_values(num_sources) or not num_sources.numel():
        return max_sources
    return max(int(num_sources.max()), 1)


def _counts(num_sources: int | Tensor, starts: Tensor) -> Tensor:
    """The number of centers per sample, (B,)."""
    if isinstance(num_sources, Tensor):
        return num_sources
    return torch.full((starts.shape[0],), num_sources, device=starts.device)


def _present(centers: Tensor, count: Tensor) -> Tensor:
    """Which of the centers (B, K, C) exist, (B, K)."""
    return torch.arange(centers.shape[1], device=count.device) < count[:, None]


def _starts(scene: _Scene, most: int, start_weight: float) -> Tensor:
    """The features at which the centers start, (B, K, C)."""
    score, starts, nearest = scene.sound, [], torch.full_like(scene.sound, -torch.inf)
    for _ in range(most):
        pixel = score.masked_fill(~scene.counted, -torch.inf).argmax(1, keepdim=True)
        starts.append(rows(scene.features.mT, pixel))
        nearest = torch.maximum(nearest, (starts[-1] @ scene.features)[:, 0])
        score = scene.sound - start_weight * _over_deviation(nearest[:, None], scene.counted)[:, 0]
    return torch.cat(starts, 1)


def _move(
    features: Tensor, weights: Tensor, starts: Tensor, iterations: int, temperature: float, count: Tensor
) -> Tensor:
    """The centers (B, K, C) after all iterations; those beyond the count of a sample stay where they start."""
    present = _present(starts, count)[..., None]
    # Rounding would grow with each iteration and drive equal centers apart, so they move as one.
    equal = ((starts[:, :, None] - starts[:, None]).abs() <= _SAME).all(-1)
    first = equal.to(torch.int8).argmax(-1)
    centers = starts
    for _ in range(iterations):
        memberships = _softmax((centers @ features).masked_fill(~present, -torch.inf), temperature, 1)
        moved = unit((weights[:, None] * memberships) @ features.mT, -1)
        moved = moved.where((moved != 0).any(-1, keepdim=True), centers)  # without members it stays
        centers = rows(moved, first)
    return centers


def _find(move: Callable[[Tensor], Tensor], starts: Tensor, separation_threshold: float) -> tuple[Tensor, Tensor]:
    """The centers (B, K, C) and the largest number of them that are far enough apart, (B,)."""
    count = torch.ones_like(starts[:, 0, 0], dtype=torch.int64)
    centers = move(count)
    for k in range(2, starts.shape[1] + 1):
        trial = move(torch.full_like(count, k))
        cosines = (trial[:, :k] @ trial[:, :k].mT).clamp(-1, 1)
        itself = torch.eye(k, dtype=torch.bool, device=trial.device)
        apart = 1 - cosines.masked_fill(itself, -1).amax((1, 2)) >= separation_threshold
        centers = trial.where(apart[:, None, None], centers)
        count = count.masked_fill(apart, k)
    return centers, count


def _contrast(cosines: Tensor, present: Tensor) -> Tensor:
    """The cosine with each center minus the largest with another one, if there is one, (B, K, N)."""
    if cosines.shape[1] == 1:
        return cosines
    best, index = cosines.masked_fill(~present[..., None], -torch.inf).topk(2, dim=1)
    is_best = index[:, :1] == torch.arange(cosines.shape[1], device=index.device)[:, None]
    rival = torch.where(is_best, best[:, 1:], best[:, :1])
    return cosines - rival.masked_fill(rival == -torch.inf, 0)


def _maps(scene: _Scene, centers: Tensor, count: Tensor, contrast_weight: float, sound_weight: float) -> Tensor:
    contrast = _over_deviation(_contrast(centers @ scene.features, _present(centers, count)), scene.counted)
    sound = scene.sound[:, None]
    alone = (count == 1)[:, None, None]
    return torch.where(alone, sound_weight * sound + contrast, sound + contrast_weight * contrast)


def _sorted(scene: _Scene, maps: Tensor, centers: Tensor, count: Tensor) -> IdentifiedObjects:
    """Objects with maps (B, K, N), by decreasing peak."""
    counted = scene.counted[:, None]
    peaks = scene.similarity.gather(1, maps.masked_fill(~counted, -torch.inf).argmax(-1))
    maps = maps.where(counted, maps.masked_fill(~counted, torch.inf).amin(-1, keepdim=True))
    usable = scene.counted.any(1) & scene.similarity.isfinite().all(1)  # the similarity of NaN and inf is NaN
    valid = _present(centers, count) & usable[:, None]
    order = peaks.masked_fill(~valid, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return IdentifiedObjects(*(rows(values, order) for values in (maps, valid, centers, peaks)))
