"""Audio-visual correspondence of cluster centers: the nearest part of a frame belongs to each sound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sslosses._checks import check_count, check_flag, check_floating, check_number, check_option, check_shapes
from sslosses._torch import at_least_float32, autocast_off
from sslosses.distributed import gather_rows
from sslosses.losses._gathering import check_gathering, gathers
from sslosses.losses._inputs import finite_samples
from sslosses.losses._module import LossModule
from sslosses.losses._reduction import REDUCTIONS, reduce_samples
from sslosses.losses.baselines._negatives import NEGATIVES, SWAPS, check_negatives, choose_negatives
from sslosses.similarity import unit
from sslosses.soft_kmeans import soft_kmeans

#: Added to Q under the root, as in the public code: without it the gradient at Q = 0 would be NaN.
_UNDER_ROOT = 1e-9


class ClusterTerms(NamedTuple):
    """Terms of the cluster loss. The first three are scalars, or (B,) with ``reduction="none"``.

    Attributes:
        loss: (positive + negative) / 2.
        positive: Q / 2 of the matching pairs, without gradient.
        negative: the hinge of the mismatched pairs, without gradient; 0 for samples without a negative.
        assignment: (B, K_v, H, W), the share of each pixel in each visual cluster, without gradient; the sum over K_v
            is 1.
        distance: (B, K_v, K_a), between the visual and the audio centers of the same sample, without gradient.
    """

    loss: Tensor
    positive: Tensor
    negative: Tensor
    assignment: Tensor
    distance: Tensor


def _check_options(
    visual_clusters: int,
    audio_clusters: int,
    iterations: int,
    sharpness: float,
    margin: float,
    normalize: bool,
    swap: str,
    gather_distributed: bool | None,
    reduction: str,
) -> float:
    """Check the options, and return the margin as a Python number."""
    check_count("visual_clusters", visual_clusters)
    check_count("audio_clusters", audio_clusters)
    check_count("iterations", iterations)
    check_number("sharpness", sharpness, above=0)
    margin = check_number("margin", margin, above=0)
    check_flag("normalize", normalize)
    check_option("swap", swap, SWAPS)
    check_gathering(gather_distributed)
    check_option("reduction", reduction, REDUCTIONS)
    return margin


def cluster_correspondence_loss(
    visual: Tensor,
    audio: Tensor,
    *,
    visual_clusters: int = 2,
    audio_clusters: int = 1,
    iterations: int = 4,
    sharpness: float = 30.0,
    margin: float = 5.0,
    normalize: bool = False,
    negatives: str | Tensor = "all",
    swap: str = "frame",
    gather_distributed: bool | None = None,
    reduction: str = "mean",
) -> ClusterTerms:
    r"""Computes the contrastive loss of the distance between the parts of a frame and the parts of a sound.

    .. math::
        \mathcal{L}_i = \frac{1}{4} Q_{ii}
            + \frac{1}{4} \operatorname{mean}_{j \in N_i} \max\left(0, m - \sqrt{Q_{ji} + 10^{-9}}\right)^2, \quad
        Q_{ji} = \sum_l \min_k \|o^v_{jk} - o^a_{il}\|^2

    :math:`o^v_{jk}` are the centers of the pixels of frame j and :math:`o^a_{il}` those of the cells of sound i, by
    :func:`~sslosses.soft_kmeans.soft_kmeans`. :math:`N_i` are the negatives and m is the margin.

    The localization map of audio center l is the assignment to its nearest visual center. With the default sharpness
    it is nearly binary; for metrics that need graded maps use the negative distance of each pixel to the audio center.

    The defaults are the published ones. They are for features that are not normalized; with ``normalize=True`` all
    distances are at most 2, so take a margin such as 1.4, and scale β up by the length that the features had. The
    published code draws one negative per sample from the data set; pass the index of a drawn sample of the batch as
    ``negatives`` for that.

    Args:
        visual: (B, C, H, W), floating, visual features.
        audio: (B, C, T, F), floating, audio features of T × F cells in time and frequency.
        visual_clusters: K_v, at least 1: the number of objects and one for the background.
        audio_clusters: K_a, at least 1: the number of sounds. With 1 the center is the mean.
        iterations: of the clustering, at least 1.
        sharpness: β of the clustering, above 0.
        margin: m, above 0.
        normalize: whether the features of all pixels and cells are scaled to length 1 before they are clustered.
        negatives: N_i. ``"all"``: all other samples. ``"shift"``: the next sample, for the last one the first. Or (B,)
            integers, one index of this process's batch per sample. A sample with its own index has no negative.
        swap: what a negative j gives to the mismatched pair. ``"frame"``: Q_ji, as above. ``"sound"``: Q_ij. With
            ``"all"`` only the terms of single samples depend on it.
        gather_distributed: whether ``"all"`` and ``"shift"`` are about the samples of all processes. The loss and (with
            DistributedDataParallel) its gradient are then those of one process that holds the whole batch; see
            :mod:`sslosses.distributed`. An index stays one of this process's batch. None: not chosen.
        reduction: ``"mean"`` or ``"sum"`` over the samples, or ``"none"``: (B,).

    Returns:
        :class:`ClusterTerms`; float64 if an input is, else float32. The negative term is in [0, m² / 2]. With B = 1
        there is no negative. With B = 0 the mean and the sum are zeros that keep their graph. A sample with NaN or inf
        has terms of NaN and is not a negative for the other samples: ``"shift"`` passes over it, and a sample whose
        index it is has no negative. Memory grows as B² · K_v · K_a · C, with ``gather_distributed`` times the number of
        processes, and as that of the clustering.

    Raises:
        TypeError: if an input is not a floating tensor or an option has the wrong type.
        ValueError: if shapes or devices do not fit or an option is out of range or unknown.

    Source: Hu, Nie and Li, "Deep Multimodal Clustering for Unsupervised Audiovisual Learning" (DMC): the authors'
    public code of a simplified version. The paper's form, with projections per cluster, is not this one.

    Example:
        >>> import torch
        >>> visual = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.2, 1.0, 0.8]]).reshape(1, 2, 2, 2).expand(2, 2, 2, 2)
        >>> audio = torch.tensor([[1.0, 0.9], [0.0, 0.1]])[..., None, None]
        >>> terms = cluster_correspondence_loss(visual, audio)
        >>> terms.distance[0].round(decimals=2)  # the second part of frame 0 is where its sound is
        tensor([[1.2800],
                [0.0000]])
    """
    margin = _check_options(
        visual_clusters,
        audio_clusters,
        iterations,
        sharpness,
        margin,
        normalize,
        swap,
        gather_distributed,
        reduction,
    )
    gather = gathers(gather_distributed, "cluster_correspondence_loss")
    check_floating("visual", visual)
    check_floating("audio", audio)
    sizes = check_shapes(visual=(visual, "B C H W"), audio=(audio, "B C T F"))
    if 0 in (sizes["T"], sizes["F"]):
        raise ValueError(f"Expected `audio` to have shape (B, C, T, F) with T, F >= 1, but got {tuple(audio.shape)}")
    check_negatives(negatives, visual=(visual, "B C H W"))
    visual, audio = at_least_float32(visual, audio)
    with autocast_off(visual):
        # A non-finite sample makes only its own loss NaN. It is zeroed, so that it does not enter other gradients.
        finite = finite_samples(visual) & finite_samples(audio)
        pixels, cells = (_points(x, finite, normalize) for x in (visual, audio))
        parts = soft_kmeans(pixels, visual_clusters, iterations=iterations, sharpness=sharpness)
        sounds = soft_kmeans(cells, audio_clusters, iterations=iterations, sharpness=sharpness)
        chosen = choose_negatives(negatives, finite, gather=gather)
        own = _squares(parts.centers, sounds.centers)
        if swap == "frame":
            frames = gather_rows(parts.centers).rows if gather else parts.centers
            mismatched = _squares(chosen.select(frames), sounds.centers[:, None])
        else:
            others = gather_rows(sounds.centers).rows if gather else sounds.centers
            mismatched = _squares(parts.centers[:, None], chosen.select(others))
        positive = _nearest(own) / 2
        hinge = (margin - (_nearest(mismatched) + _UNDER_ROOT).sqrt()).clamp(min=0)
        negative = chosen.mean(hinge.square() / 2)
        valid = torch.ones_like(finite)
        loss, positive, negative = (
            reduce_samples(term.masked_fill(~finite, torch.nan), valid, reduction, all_processes=gather)
            for term in ((positive + negative) / 2, positive.detach(), negative.detach())
        )
        bad = ~finite[:, None, None]
        assignment = parts.assignment.detach().masked_fill(bad, torch.nan)
        distance = own.detach().sqrt().masked_fill(bad, torch.nan)
    return ClusterTerms(loss, positive, negative, assignment.view(*assignment.shape[:2], *visual.shape[2:]), distance)


def _points(features: Tensor, finite: Tensor, normalize: bool) -> Tensor:
    """Features (B, C, ...) as points (B, N, C), 0 for samples with NaN or inf."""
    points = features.flatten(2).mT.where(finite[:, None, None], 0)
    return unit(points, -1) if normalize else points


def _squares(parts: Tensor, sounds: Tensor) -> Tensor:
    """Squared distances between centers (..., K_v, C) and (..., K_a, C): (..., K_v, K_a)."""
    return (parts[..., :, None, :] - sounds[..., None, :, :]).square().sum(-1)


def _nearest(squares: Tensor) -> Tensor:
    """Q: the squared distance of each audio center to its nearest visual center, summed over the audio centers."""
    return squares.amin(-2).sum(-1)


@dataclass(kw_only=True, eq=False, repr=False)
class ClusterCorrespondenceLoss(LossModule):
    """Computes :func:`cluster_correspondence_loss`, whose options are the arguments.

    Raises:
        TypeError: if an option has the wrong type.
        ValueError: if an option is out of range or unknown.

    Example:
        >>> import torch
        >>> visual = torch.tensor([[[[0.0, 1.0]]], [[[4.0, 5.0]]]])
        >>> ClusterCorrespondenceLoss()(visual, torch.tensor([[[[1.0]]], [[[5.0]]]]))  # (5 - 3)² / 4 and (5 - 4)² / 4
        tensor(0.6250)
    """

    visual_clusters: int = 2
    audio_clusters: int = 1
    iterations: int = 4
    sharpness: float = 30.0
    margin: float = 5.0
    normalize: bool = False
    negatives: str = "all"
    swap: str = "frame"
    gather_distributed: bool | None = None
    reduction: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_option("negatives", self.negatives, NEGATIVES)
        options = self._options()
        del options["negatives"]
        _check_options(**options)

    def forward(self, visual: Tensor, audio: Tensor, negatives: Tensor | None = None) -> Tensor:
        """Computes the loss of a batch: a scalar, or (B,) with ``reduction="none"``.

        ``negatives`` is an index as in the function, in place of the option.
        """
        options = self._call_options()
        if negatives is not None:
            options["negatives"] = negatives
        return cluster_correspondence_loss(visual, audio, **options).loss
