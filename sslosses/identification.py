"""Iterative object identification: maps of sounding objects whose number may be unknown."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sslosses._checks import check_count, check_number
from sslosses._objects import check_scene, rows, select
from sslosses._prototypes import find_prototypes, group_prototypes, shares
from sslosses._torch import at_least_float32, autocast_off
from sslosses.masks import ALPHA_BACKGROUND, OMEGA, background_mask
from sslosses.similarity import similarity_map


class IdentifiedObjects(NamedTuple):
    """The objects of a batch, sorted by decreasing peak, in M slots per sample.

    Attributes:
        maps: (B, M, H, W), higher where the object is. The scale is that of the function that returns them.
        valid: (B, M) bool, True for slots that hold an object; the other slots are 0.
        prototypes: (B, M, C), the feature that stands for the object.
        peaks: (B, M), the audio-visual similarity S_a at the pixel that stands out most in the object.
    """

    maps: Tensor
    valid: Tensor
    prototypes: Tensor
    peaks: Tensor


@torch.no_grad()
def identify_objects(
    visual: Tensor,
    audio: Tensor,
    *,
    num_sources: int | Tensor | None = None,
    peak_threshold: float = 0.1,
    background_threshold: float = 0.7,
    merge_threshold: float = 0.6,
    alpha_background: float = ALPHA_BACKGROUND,
    omega: float = OMEGA,
    max_iterations: int | None = None,
) -> IdentifiedObjects:
    r"""Computes the maps of the sounding objects, one by one, starting at the most similar pixel.

    .. math:: E(x) = F_v(x) S_a(x), \quad e_0 = \frac{1}{HW} \sum_x E(x) M^n(x)

    F_v(x) is the visual feature of pixel x, S_a the similarity map of the audio, M^n its background mask
    (:func:`~sslosses.masks.background_mask`) and :math:`e_0` the background prototype.

    1. The unclaimed pixel with the largest S_a gives the next prototype :math:`e_1 = E(x)`. Its map is
       :math:`-\|E(x) - e_1\|`. It claims the unclaimed pixels with :math:`\|E(x) - e_1\| < \|E(x) - e_0\|`.
    2. Step 1 is repeated until no pixel is newly claimed or the largest unclaimed S_a is below ``peak_threshold``. So
       the first prototype is always found, however low its peak is.
    3. Prototypes whose cosine with :math:`e_0` is above ``background_threshold`` are background.
    4. A prototype that is not background is linked to each earlier one with a cosine above ``merge_threshold``, which
       may be background. Prototypes that are linked, directly or through others, are one object. Its map is the mean of
       the maps of its prototypes that are not background.

    These are the rules of the public code of Kim et al.

    ``visual`` is not normalized: distances, unlike cosines, depend on the length of a pixel's feature.

    Args:
        visual: (B, C, H, W), floating, visual features F_v.
        audio: (B, C), floating, audio features l_a.
        num_sources: the number K of sources if known, an int >= 1 or (B,) integers. The K objects with the largest
            peaks are kept. If there are fewer, ``valid`` is False for the remaining slots. None if unknown.
        peak_threshold: smallest similarity at which a second or later prototype can start. To leave out low objects,
            the first included, test ``peaks``.
        background_threshold: cosine in [-1, 1].
        merge_threshold: cosine in [-1, 1].
        alpha_background: similarity at which M^n is one half.
        omega: width of the step of M^n, above 0.
        max_iterations: largest number of prototypes per sample, at least 1; None for H · W, which is never reached in
            practice.

    Returns:
        :class:`IdentifiedObjects` without gradient; float64 if an input is, else float32. Its maps are at most 0, its
        prototypes are the means of each object's prototypes that are not background, and its peaks are the largest S_a
        of each object. M is K, the largest K, or the largest number of objects in a sample (which may be 0). A sample
        with NaN or inf has no objects. In a compiled or exported graph sizes can't depend on values: M is K if that is
        an int, else the largest number of prototypes. Pass ``max_iterations`` there, because the graph contains every
        iteration.

    Raises:
        TypeError: if an input is not a floating tensor or an option has the wrong type.
        ValueError: if shapes or devices do not fit or an option is out of range.

    Source: Um et al., section 3.1; Kim et al., "Learning to Visually Localize Sound Sources from Mixtures without Prior
    Source Knowledge".

    Example:
        >>> import torch
        >>> visual = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]).T.reshape(1, 3, 1, 3)
        >>> objects = identify_objects(visual, torch.tensor([[8.0, 6.0, 2.0]]))
        >>> objects.valid, objects.peaks  # the left and the middle pixel sound, the right one is silent
        (tensor([[True, True]]), tensor([[0.7845, 0.5883]]))
        >>> objects.maps[0, :, 0].argmax(-1)
        tensor([0, 1])
    """
    num_sources = check_scene(visual, audio, num_sources)
    if max_iterations is not None:
        check_count("max_iterations", max_iterations)
    peak_threshold = check_number("peak_threshold", peak_threshold)
    alpha_background = check_number("alpha_background", alpha_background)
    background_threshold = check_number("background_threshold", background_threshold, least=-1, most=1)
    merge_threshold = check_number("merge_threshold", merge_threshold, least=-1, most=1)
    visual, audio = at_least_float32(visual, audio)
    with autocast_off(visual):
        similarity = similarity_map(visual, audio)
        silent = background_mask(similarity, alpha=alpha_background, omega=omega)
        # Squares of very long or short features leave the range of float32, so the largest entry is scaled to 1.
        largest = visual.abs().amax((1, 2, 3))[:, None, None]
        scale = largest.masked_fill(largest == 0, 1)
        features = (visual * similarity[:, None]).flatten(2).transpose(1, 2) / scale
        background = (features * silent.flatten(1)[..., None]).mean(1)
        found = find_prototypes(features, similarity.flatten(1), background, peak_threshold, max_iterations)
        prototypes, peaks = rows(features, found.pixels), similarity.flatten(1).gather(1, found.pixels)
        member = group_prototypes(
            prototypes, found.valid, background, background_threshold, merge_threshold, link_through_background=True
        )
        valid = member.any(-1)
        share = shares(member, features.dtype)
        fields = (share @ found.maps * scale, valid, share @ prototypes * scale, peaks.where(valid, 0))
        maps, *others = select(fields, valid, num_sources)
    return IdentifiedObjects(maps.view(*maps.shape[:2], *similarity.shape[1:]), *others)
