"""The baselines' losses beside their naive forms, and batches for both."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import naive_baselines as naive
import torch
import torch.nn.functional as F
from losses import Inputs, Loss, inputs
from naive_losses import EPSILON, ITERATIONS, naive_oca, naive_ori
from torch import Tensor

from sslosses import (
    AttentionPairLoss,
    BestPlaceContrastiveLoss,
    CategoryAlignmentLoss,
    ClusterCorrespondenceLoss,
    CycleWalkLoss,
    DictionaryConsistencyLoss,
    GroupingLoss,
    ObjectAwareObjective,
    ObjectClusteringLoss,
    OCALoss,
    ORILoss,
    PairCorrespondenceLoss,
    TextGuidedLoss,
    TriMapContrastiveLoss,
    attend,
    class_activation_pool,
    multiple_instance_correspondence_loss,
)


class Sizes(NamedTuple):
    """Sizes of a batch: pixels of a map, cells of a spectrogram's map, classes, and sources of a mixture."""

    batch: int
    channels: int
    pixels: tuple[int, int] = (14, 7)
    cells: tuple[int, int] = (9, 7)
    classes: int = 20
    sources: int = 2


SMALL = Sizes(batch=6, channels=24, pixels=(4, 3), cells=(4, 3), classes=4)


class Case(NamedTuple):
    """A loss of the library, its naive form, and their inputs.

    Attributes:
        naive_samples: samples that the naive form is measured with; None for the whole batch.
        atol: largest accepted difference of values, and relative difference of gradients, in float64.
    """

    library: Loss
    naive: Loss
    inputs: Callable[[Sizes], Inputs]
    naive_samples: int | None = None
    atol: float = 1e-9


def shared(sizes: Sizes) -> Inputs:
    """Frames, sounds, and references of foreground and background."""
    return inputs(sizes.batch, sizes.channels, *sizes.pixels, sizes.sources, "cpu")


def pair(sizes: Sizes) -> Inputs:
    return shared(sizes)[:2]


def references(sizes: Sizes) -> Inputs:
    visual, _, foreground, background = shared(sizes)
    return visual, foreground, background


def triple(sizes: Sizes) -> Inputs:
    visual, audio, _, target = shared(sizes)
    return visual, audio, target


def vectors(sizes: Sizes) -> Inputs:
    return triple(sizes)[1:]


def unit_features(sizes: Sizes) -> Inputs:
    """Features of length 1 of pixels and of a spectrogram's cells: longer ones underflow in the naive clustering."""
    visual, audio, *_ = shared(sizes)
    cells = audio[..., None, None] + torch.randn(*audio.shape, *sizes.cells, generator=_generator())
    return tuple(F.normalize(x.detach(), dim=1).requires_grad_() for x in (visual, cells))


def calibrated(scale: float, bias: float) -> Callable[[Sizes], Inputs]:
    def make(sizes: Sizes) -> Inputs:
        return *pair(sizes), torch.tensor(scale, requires_grad=True), torch.tensor(bias, requires_grad=True)

    return make


def dictionary(sizes: Sizes) -> Inputs:
    generator, (visual, *_) = _generator(), shared(sizes)
    localization = torch.rand(sizes.batch, *sizes.pixels, generator=generator)
    rows = torch.randn(sizes.classes, sizes.channels, generator=generator)
    heard = torch.randn(sizes.batch, sizes.classes, generator=generator)
    return visual, localization.requires_grad_(), rows, heard, *calibrated(0.1, 0.0)(sizes)[2:]


def pair_logits(sizes: Sizes) -> Inputs:
    return (torch.randn(sizes.batch, sizes.batch, generator=_generator()).requires_grad_(),)


def probabilities(sizes: Sizes) -> Inputs:
    """Probabilities in frame and sound: each sample has as many active classes as a mixture has sources."""
    active = torch.rand(sizes.batch, sizes.classes, generator=_generator()).argsort(1) < sizes.sources
    return 0.8 * active.float() + 0.1, 0.7 * active.float() + 0.1


def class_vectors(sizes: Sizes) -> Inputs:
    shape, generator = (sizes.batch, sizes.classes, sizes.channels), _generator()
    each = [torch.randn(shape, generator=generator).requires_grad_() for _ in range(2)]
    return *each, *probabilities(sizes)


def class_features(sizes: Sizes) -> Inputs:
    generator = _generator()
    weights = [torch.randn(sizes.classes, sizes.channels, generator=generator) for _ in range(2)]
    return *unit_features(sizes), *weights, *probabilities(sizes)


def groups_of_frames(sizes: Sizes) -> Inputs:
    """The frames of the batch in groups, each of as many frames as a mixture has sources, with two nodes per frame."""
    visual, audio, foreground, _ = shared(sizes)
    nodes = (audio, foreground[:, 0])
    return tuple(x.detach().unflatten(0, (-1, sizes.sources)).requires_grad_() for x in (visual, *nodes))


def class_groups(sizes: Sizes) -> Inputs:
    generator, (visual, *_) = _generator(), shared(sizes)
    batch, classes = sizes.batch, sizes.classes
    groups = 0.05 * torch.randn(batch, classes, sizes.channels, generator=generator)
    logits = [torch.randn(count, classes, generator=generator) for count in (classes, batch, batch)]
    sources = torch.randint(classes, (batch, sizes.sources), generator=generator)
    present = torch.zeros(batch, classes, dtype=torch.bool).scatter(1, sources, True)
    return visual, groups.requires_grad_(), sources, *(x.requires_grad_() for x in logits), present, present.clone()


def named_sources(sizes: Sizes) -> Inputs:
    generator = _generator()
    names = torch.randn(sizes.classes, sizes.channels, generator=generator)
    return *unit_features(sizes), names, torch.randint(sizes.classes, (sizes.batch, sizes.sources), generator=generator)


def scenes(sizes: Sizes) -> Inputs:
    """Frames with one sounding region per source of a mixture, and one region of background."""
    generator, parts = _generator(), sizes.sources + 1
    directions = torch.randn(sizes.batch, parts, sizes.channels, generator=generator)
    field = torch.randn(sizes.batch, parts, 4, 3, generator=generator)
    region = F.interpolate(field, sizes.pixels, mode="bilinear").argmax(1)
    noise = 0.5 * torch.randn(sizes.batch, sizes.channels, *sizes.pixels, generator=generator)
    visual = directions[torch.arange(sizes.batch)[:, None, None], region].movedim(-1, 1) + noise
    return visual.contiguous().requires_grad_(), directions[:, :-1].sum(1).requires_grad_()


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def attention(visual: Tensor, query: Tensor, target: Tensor) -> Tensor:
    return AttentionPairLoss()(attend(visual, query).pooled, target)


def correspondence(visual: Tensor, audio: Tensor, scale: Tensor, bias: Tensor, **options: Any) -> Tensor:
    return multiple_instance_correspondence_loss(visual, audio, scale, bias, **options).loss


def pooled_alignment(pool: Loss, align: Loss) -> Loss:
    def loss(visual: Tensor, audio: Tensor, seen: Tensor, heard: Tensor, *active: Tensor) -> Tensor:
        return align(pool(visual, seen), pool(audio, heard), *active)

    return loss


def naive_objective(visual: Tensor, audio: Tensor, foreground: Tensor, background: Tensor) -> Tensor:
    return naive_oca(visual, audio, foreground, background) + 0.1 * naive_ori(visual, foreground, background)


def cases() -> dict[str, Case]:
    ori = ORILoss(epsilon=EPSILON, max_iter=ITERATIONS, tol=1e-3)
    alignment, clustering = CategoryAlignmentLoss(), ObjectClusteringLoss()
    # The naive ORI runs all its iterations, and its graph takes gigabytes.
    iterated: dict[str, Any] = {"naive_samples": 4, "atol": 1e-2}
    return {
        "OCA": Case(OCALoss(), naive_oca, shared),
        "ORI": Case(ori, naive_ori, references, **iterated),
        "objective": Case(ObjectAwareObjective(ori=ori), naive_objective, shared, **iterated),
        "LVS: tri-map": Case(TriMapContrastiveLoss(), naive.naive_trimap, pair),
        "Attention10k: attention and pairs": Case(attention, naive.naive_attention, triple),
        "Attention10k: pairs": Case(AttentionPairLoss(), naive.naive_pair_distances, vectors),
        "OTS: correspondence": Case(correspondence, naive.naive_correspondence, calibrated(0.01, -1.0)),
        "DMC: clusters": Case(ClusterCorrespondenceLoss(), naive.naive_clusters, unit_features),
        "CoarseToFine, first stage: pairs": Case(PairCorrespondenceLoss(), naive.naive_pair_logits, pair_logits),
        "CoarseToFine, second stage: pooling and alignment": Case(
            pooled_alignment(lambda features, weight: class_activation_pool(features, weight).pooled, alignment),
            pooled_alignment(naive.naive_pool, naive.naive_alignment),
            class_features,
        ),
        "CoarseToFine, second stage: alignment": Case(alignment, naive.naive_alignment, class_vectors),
        "DSOL, first stage: correspondence": Case(
            partial(correspondence, normalize=True, swap="frame"),
            partial(naive.naive_correspondence, normalize=True),
            calibrated(5.0, 0.0),
        ),
        "DSOL, second stage: correspondence": Case(
            partial(correspondence, normalize=True, swap="frame", negative_bins=2),
            partial(naive.naive_correspondence, normalize=True, bins=2),
            calibrated(5.0, 0.0),
        ),
        "DSOL, second stage: dictionary": Case(DictionaryConsistencyLoss(), naive.naive_dictionary, dictionary),
        "Mix-and-Localize: cycle walk": Case(CycleWalkLoss(), naive.naive_cycle_walk, groups_of_frames),
        "EZ-VSL: best place": Case(BestPlaceContrastiveLoss(), naive.naive_best_place, pair),
        "AVGN: grouping": Case(GroupingLoss(), naive.naive_grouping, class_groups),
        "T-VSL: picks by names": Case(TextGuidedLoss(), naive.naive_text_guided, named_sources),
        "NoPrior: objects": Case(clustering, naive.naive_object_clustering, scenes),
        "NoPrior: objects, every pixel unlike": Case(clustering, naive.naive_object_clustering, pair),
    }
