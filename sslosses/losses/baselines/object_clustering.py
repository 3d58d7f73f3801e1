"""The object clustering loss of NoPrior, on the objects that are found one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sslosses._checks import check_count, check_flag, check_number, check_option
from sslosses._objects import check_scene, rows
from sslosses._prototypes import find_prototypes, group_prototypes, shares
from sslosses._torch import at_least_float32, autocast_off
from sslosses.distributed import gather_rows
from sslosses.losses._gathering import check_gathering, gathers
from sslosses.losses._inputs import finite_samples
from sslosses.losses._module import LossModule
from sslosses.losses._reduction import REDUCTIONS, reduce_samples
from sslosses.masks import ALPHA_BACKGROUND, OMEGA, background_mask
from sslosses.similarity import similarity_map, unit

ANCHORS = ("last", "peak", "every")
PADDINGS = ("own", "batch")


class ClusteringTerms(NamedTuple):
    """Terms of object clustering: scalars, or (B,) with ``reduction="none"``.

    Attributes:
        loss: the sum of attraction and repulsion.
        attraction: sum over the groups of 1 - cosine of the anchor and its group's mean, without gradient.
        repulsion: sum over the groups of the cosine of the anchor and what is outside of its group, without gradient.
        objects: the number of groups, without gradient.
    """

    loss: Tensor
    attraction: Tensor
    repulsion: Tensor
    objects: Tensor


def _check_options(
    peak_threshold: float,
    background_threshold: float,
    merge_threshold: float,
    alpha_background: float,
    omega: float,
    anchor: str,
    padding: str,
    link_through_background: bool,
    max_iterations: int | None,
    gather_distributed: bool | None,
    reduction: str,
) -> None:
    check_number("peak_threshold", peak_threshold)
    check_number("background_threshold", background_threshold, least=-1, most=1)
    check_number("merge_threshold", merge_threshold, least=-1, most=1)
    check_number("alpha_background", alpha_background)
    check_number("omega", omega, above=0)
    check_option("anchor", anchor, ANCHORS)
    check_option("padding", padding, PADDINGS)
    check_flag("link_through_background", link_through_background)
    if max_iterations is not None:
        check_count("max_iterations", max_iterations)
    check_gathering(gather_distributed)
    check_option("reduction", reduction, REDUCTIONS)


def object_clustering_loss(
    visual: Tensor,
    audio: Tensor,
    *,
    peak_threshold: float = 0.1,
    background_threshold: float = 0.7,
    merge_threshold: float = 0.6,
    alpha_background: float = ALPHA_BACKGROUND,
    omega: float = OMEGA,
    anchor: str = "last",
    padding: str = "own",
    link_through_background: bool = False,
    max_iterations: int | None = None,
    gather_distributed: bool | None = None,
    reduction: str = "mean",
) -> ClusteringTerms:
    r"""Computes the clustering loss of NoPrior: an object's prototypes are pulled together, and away from the others.

    .. math::
        \mathcal{L} = \sum_g \left[ 1 - \mathrm{Sim}(e_{a_g}, p_g) + \mathrm{Sim}(e_{a_g}, n_g) \right], \quad
        p_g = \operatorname{mean}_{j \in g} e_j, \quad n_g = e_0 + \operatorname{mean}_{j \notin g} e_j

    The prototypes :math:`e_j`, the background prototype :math:`e_0` and the groups g are found as in
    :func:`~sslosses.identification.identify_objects`, on unit visual features. :math:`a_g` is the anchor of group g,
    one of its prototypes. j runs over all prototypes of the sample, also those that are background. Each group that is
    not background has a term, in [-1, 3]. Which pixels are prototypes and which groups they form has no gradient. The
    features and similarities of these pixels have one, and so has :math:`e_0`.

    The objective of NoPrior is this loss plus :func:`~sslosses.losses.trimap_contrastive_loss`.

    Args:
        visual: (B, C, H, W), floating, visual features; any scale.
        audio: (B, C), floating, audio features; any scale.
        peak_threshold: smallest similarity at which a second or later prototype can start. The first one always does.
        background_threshold: cosine with e_0, in [-1, 1], above which a prototype is background.
        merge_threshold: cosine of two prototypes, in [-1, 1], above which they are one object.
        alpha_background: similarity at which the mask of e_0 is one half.
        omega: width of the step of this mask, above 0.
        anchor: the anchor of a group: ``"last"``, its last prototype, which has the lowest peak (the public code);
            ``"peak"``, its first; or ``"every"``, the mean of the term over all of its prototypes.
        padding: what :math:`n_g` averages over. ``"own"``: the prototypes of the sample. Without one outside the group,
            :math:`n_g = e_0`. ``"batch"`` (the public code): also as many zero vectors as the sample has fewer
            prototypes than the largest number in the batch. Then a sample's loss depends on the others of its batch.
            Without anything outside, the group has no term.
        link_through_background: whether prototypes that resemble the same earlier background prototype are one object,
            as in the public code and in :func:`~sslosses.identification.identify_objects`.
        max_iterations: largest number of prototypes per sample, at least 1; None for H · W. Pass it in a compiled or
            exported graph, which contains every iteration.
        gather_distributed: whether the mean or sum is over the samples of all processes, and the largest number of
            ``padding="batch"`` is theirs, so that the loss and (with DistributedDataParallel) its gradient are those of
            one process that holds the whole batch; see :mod:`sslosses.distributed`. None: not chosen.
        reduction: ``"mean"`` or ``"sum"`` over the samples, or ``"none"``: (B,).

    Returns:
        :class:`ClusteringTerms`; float64 if an input is, else float32. A group whose anchor is a zero vector has no
        term. Without any term the loss is a zero that keeps its graph. A sample with NaN or inf has terms of NaN.

    Raises:
        TypeError: if an input is not a floating tensor or an option has the wrong type.
        ValueError: if shapes or devices do not fit or an option is out of range or unknown.

    Source: the public code of Kim et al., "Learning to Visually Localize Sound Sources from Mixtures without Prior
    Source Knowledge"; the equations of the paper are not compared with it. The code adds 1e-6 to differences before it
    takes their length; this function does not. ``anchor="last"``, ``padding="batch"`` and
    ``link_through_background=True`` are the code's.

    Example:
        >>> import torch
        >>> visual = torch.tensor([[1.0, 0.8, 0.0, 0.0, 0.0], [0.0, 0.6, 1.0, 0.6, 0.0], [0.0, 0.0, 0.0, 0.8, 1.0]])
        >>> terms = object_clustering_loss(visual[None, :, None], torch.tensor([[8.0, 6.0, 2.0]]), merge_threshold=0.65)
        >>> terms.loss, terms.objects  # the prototypes are pixels 2 to 5; the last two are background
        (tensor(1.1100), tensor(2.))
    """
    _check_options(
        peak_threshold,
        background_threshold,
        merge_threshold,
        alpha_background,
        omega,
        anchor,
        padding,
        link_through_background,
        max_iterations,
        gather_distributed,
        reduction,
    )
    check_scene(visual, audio, None)
    contrasts = padding == "batch" or reduction != "none"
    gather = contrasts and gathers(gather_distributed, "object_clustering_loss")
    visual, audio = at_least_float32(visual, audio)
    with autocast_off(visual):
        # A non-finite sample makes only its own loss NaN. It is zeroed, so that it does not enter other gradients.
        finite = finite_samples(visual) & finite_samples(audio)
        visual, audio = visual.where(finite[:, None, None, None], 0), audio.where(finite[:, None], 0)
        similarity = similarity_map(visual, audio)
        silent = background_mask(similarity, alpha=alpha_background, omega=omega)
        features = (unit(visual, 1) * similarity[:, None]).flatten(2).mT.contiguous()
        background = (features * silent.flatten(1)[..., None]).mean(1)
        with torch.no_grad():
            found = find_prototypes(features, similarity.flatten(1), background, peak_threshold, max_iterations)
            member = group_prototypes(
                rows(features, found.pixels),
                found.valid,
                background,
                background_threshold,
                merge_threshold,
                link_through_background=link_through_background,
            )
            count = _largest_count(found.valid, gather) if padding == "batch" else found.valid.sum(1)[:, None]
        prototypes = rows(features, found.pixels)
        attraction, repulsion = _attraction_and_repulsion(
            prototypes, found.valid, member, background, count, anchor, padding
        )
        objects = member.any(-1).sum(1).to(features.dtype)
        everything = torch.ones_like(finite)
        loss, *reported = (
            reduce_samples(term.masked_fill(~finite, torch.nan), everything, reduction, all_processes=gather)
            for term in (attraction + repulsion, attraction.detach(), repulsion.detach(), objects)
        )
    return ClusteringTerms(loss, *reported)


def _largest_count(valid: Tensor, gather: bool) -> Tensor:
    """The largest number of prototypes in a sample of the batch, or of all processes."""
    count = valid.any(0).sum()  # a sample's prototypes come first
    return gather_rows(count[None].to(torch.float32)).rows.amax() if gather else count


def _attraction_and_repulsion(
    prototypes: Tensor, valid: Tensor, member: Tensor, background: Tensor, count: Tensor, anchor: str, padding: str
) -> tuple[Tensor, Tensor]:
    """Both terms (B,), summed over groups; ``count`` is the number of prototypes, padding included."""
    dtype = prototypes.dtype
    directions = unit(prototypes, -1)
    center = shares(member, dtype) @ prototypes
    number = count - member.sum(-1)
    outside = (valid[:, None] & ~member).to(dtype) @ prototypes / number.clamp(min=1).to(dtype)[..., None]
    counted = (directions.detach() != 0).any(-1)[:, None]
    if padding == "batch":
        counted = counted & (number > 0)[..., None]
    weights = _anchors(member, anchor, dtype).where(counted, 0)
    # Entry (g, j) is the term of group g with prototype j as its anchor.
    attraction = 1 - unit(center, -1) @ directions.mT
    repulsion = unit(background[:, None] + outside, -1) @ directions.mT
    return (weights * attraction).sum((1, 2)), (weights * repulsion).sum((1, 2))


def _anchors(member: Tensor, anchor: str, dtype: torch.dtype) -> Tensor:
    """Weights (B, G, T) of the prototypes as anchors of each group."""
    if anchor == "every":
        return shares(member, dtype)
    order = member if anchor == "peak" else member.flip(-1)
    chosen = order & (order.cumsum(-1) == 1)
    return (chosen if anchor == "peak" else chosen.flip(-1)).to(dtype)


@dataclass(kw_only=True, eq=False, repr=False)
class ObjectClusteringLoss(LossModule):
    """Computes :func:`object_clustering_loss`, whose options are the arguments.

    Raises:
        TypeError: if an option has the wrong type.
        ValueError: if an option is out of range or unknown.

    Example:
        >>> import torch
        >>> visual = torch.tensor([[1.0, 0.35], [0.0, 0.93675]])
        >>> clustering = ObjectClusteringLoss()
        >>> clustering(visual[None, :, None], torch.tensor([[1.0, 0.0]]))  # the second pixel is background
        tensor(0.3500)
    """

    peak_threshold: float = 0.1
    background_threshold: float = 0.7
    merge_threshold: float = 0.6
    alpha_background: float = ALPHA_BACKGROUND
    omega: float = OMEGA
    anchor: str = "last"
    padding: str = "own"
    link_through_background: bool = False
    max_iterations: int | None = None
    gather_distributed: bool | None = None
    reduction: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_options(**self._options())

    def forward(self, visual: Tensor, audio: Tensor) -> Tensor:
        """Computes the loss of a batch: a scalar, or (B,) with ``reduction="none"``."""
        return object_clustering_loss(visual, audio, **self._call_options()).loss

    def gather_is_open(self) -> bool:
        """Whether ``gather_distributed`` makes a difference and was not chosen."""
        contrasts = self.padding == "batch" or self.reduction != "none"
        return self.gather_distributed is None and contrasts
