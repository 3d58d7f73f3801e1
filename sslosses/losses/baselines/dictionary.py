"""DSOL: a dictionary of object features, and the class distribution that it shares with the sound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sslosses._checks import (
    check_count,
    check_flag,
    check_floating,
    check_number,
    check_option,
    check_shapes,
)
from sslosses._torch import at_least_float32, autocast_off, has_values
from sslosses.losses._gathering import check_gathering, gathers
from sslosses.losses._inputs import check_scalar, finite_samples
from sslosses.losses._module import LossModule
from sslosses.losses._reduction import REDUCTIONS, reduce_samples
from sslosses.losses.baselines._kmeans import cluster, cluster_means
from sslosses.similarity import unit

DILATIONS = ("all", "interior", "none")
DIRECTIONS = ("audio||visual", "visual||audio")


class Dictionary(NamedTuple):
    """Clusters of object features.

    Attributes:
        rows: (K, C), the mean feature of each cluster.
        labels: (M,) int64, the cluster of each feature, -1 for features with NaN or inf.
    """

    rows: Tensor
    labels: Tensor


class DictionaryTerms(NamedTuple):
    """Terms of the dictionary consistency loss.

    Attributes:
        loss: scalar, or (B,) with ``reduction="none"``.
        visual_logits: (B, K), the mean of each map, without gradient.
        maps: (B, K, H, W), the maps G, without gradient.
    """

    loss: Tensor
    visual_logits: Tensor
    maps: Tensor


@torch.no_grad()
def object_features(visual: Tensor, localization: Tensor, *, threshold: float = 0.05, dilation: str = "all") -> Tensor:
    r"""Computes one feature per frame, pooled from the cells that sound.

    .. math:: o = \frac{1}{HW} \sum_x m(x) V(x), \quad m = \mathrm{dilate}(1[l(x) > t])

    V(x) is the visual feature of cell x, l the localization map, t the threshold. The sum is divided by the number of
    all cells, not by that of the cells in the mask.

    Args:
        visual: (B, C, H, W), floating, visual features.
        localization: (B, H, W), floating, in [0, 1], for example the logistic function of a scaled similarity map.
        threshold: t. Cells with a larger value are in the mask.
        dilation: ``"all"``: the 4 neighbors of a cell in the mask are in it, too; ``"interior"``, as in the public
            code: cells on the frame's border do not spread; ``"none"``.

    Returns:
        (B, C) without gradient, zero where no cell reaches the threshold; float64 if an input is, else float32. A
        sample with NaN or inf has a feature of NaN.

    Raises:
        TypeError: if an input is not a floating tensor or an option has the wrong type.
        ValueError: if shapes or devices do not fit or an option is unknown.

    Source: Hu et al., "Discriminative Sounding Objects Localization via Self-supervised Audiovisual Matching" (DSOL),
    the first stage of its public code; not compared with the paper's text.

    Example:
        >>> import torch
        >>> visual = torch.tensor([[[[6.0, 3.0, 9.0]]]])
        >>> sounding = torch.tensor([[[0.9, 0.0, 0.0]]])
        >>> object_features(visual, sounding)  # (6 + 3) / 3
        tensor([[3.]])
        >>> object_features(visual, sounding, dilation="none")
        tensor([[2.]])
    """
    threshold = check_number("threshold", threshold)
    check_option("dilation", dilation, DILATIONS)
    check_floating("visual", visual)
    check_floating("localization", localization)
    check_shapes(visual=(visual, "B C H W"), localization=(localization, "B H W"))
    visual, localization = at_least_float32(visual, localization)
    with autocast_off(visual):
        finite = finite_samples(visual) & finite_samples(localization)
        mask = localization > threshold
        if dilation != "none":
            mask = _dilated(mask, interior=dilation == "interior")
        cells = visual.shape[-2:].numel()
        pooled = (visual.where(mask[:, None], 0) / cells).sum((2, 3))
        return pooled.masked_fill(~finite[:, None], torch.nan)


def _dilated(mask: Tensor, *, interior: bool) -> Tensor:
    """The mask (B, H, W) and the 4 neighbors of its cells, with ``interior`` of those not on the border."""
    inner = torch.zeros_like(mask)
    kept = slice(1, -1) if interior else slice(None)
    inner[:, kept, kept] = mask[:, kept, kept]
    padded = F.pad(inner, (1, 1, 1, 1))
    rows, columns = padded[:, :, 1:-1], padded[:, 1:-1]
    return mask | rows[:, 2:] | rows[:, :-2] | columns[:, :, 2:] | columns[:, :, :-2]


@torch.no_grad()
def build_dictionary(
    features: Tensor, num_clusters: int, *, generator: torch.Generator, restarts: int = 10, iterations: int = 100
) -> Dictionary:
    r"""Computes a dictionary of objects by k-means.

    .. math:: r_k = \frac{1}{|C_k|} \sum_{i \in C_k} o_i

    :math:`o_i` are the features, and :math:`C_k` the clusters of their directions :math:`o_i / \|o_i\|`. The rows of
    the dictionary are the means of the features themselves. Each of the restarts begins with k-means++. The one whose
    directions have the smallest sum of squared distances to their centers is kept.

    Args:
        features: (M, C), floating, for example from :func:`object_features` for a whole data set; any length.
        num_clusters: K, at least 1. At least K features must be finite.
        generator: source of the random numbers, on any device. The same state gives the same clusters.
        restarts: number of times that k-means is run, at least 1.
        iterations: largest number of times that the centers of one run move, at least 1.

    Returns:
        :class:`Dictionary` without gradient; float64 if the input is, else float32. No cluster is empty: a center that
        loses all its features gets the feature that is farthest from its own center. Memory grows as M · C + K · C.

    Raises:
        TypeError: if ``features`` is not a floating tensor or an option has the wrong type.
        ValueError: if the shape does not fit, there are fewer than K finite features, or an option is out of range.

    Source: Hu et al., "Discriminative Sounding Objects Localization via Self-supervised Audiovisual Matching" (DSOL),
    the first stage of its public code; not compared with the paper's text. How k-means starts and restarts is ours.

    Example:
        >>> import torch
        >>> features = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 1.0]])
        >>> dictionary = build_dictionary(features, 2, generator=torch.Generator().manual_seed(0))
        >>> dictionary.rows[dictionary.labels]
        tensor([[2., 0.],
                [2., 0.],
                [0., 1.]])
    """
    num_clusters = check_count("num_clusters", num_clusters)
    restarts = check_count("restarts", restarts)
    iterations = check_count("iterations", iterations)
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"Expected `generator` to be a torch.Generator, but got {type(generator).__name__}")
    check_floating("features", features)
    check_shapes(features=(features, "M C"))
    (features,) = at_least_float32(features)
    with autocast_off(features):
        finite = finite_samples(features)
        if has_values(features) and int(finite.sum()) < num_clusters:
            raise ValueError(
                f"Expected `features` to have at least {num_clusters} rows without NaN and inf, one for each cluster, "
                f"but got {int(finite.sum())}"
            )
        features = features.where(finite[:, None], 0)
        labels = cluster(unit(features, 1), finite, num_clusters, generator, restarts, iterations)
        return Dictionary(cluster_means(features, labels, num_clusters), labels)


def _check_options(direction: str, per_class_mean: bool, gather_distributed: bool | None, reduction: str) -> None:
    check_option("direction", direction, DIRECTIONS)
    check_flag("per_class_mean", per_class_mean)
    check_gathering(gather_distributed)
    check_option("reduction", reduction, REDUCTIONS)


def dictionary_consistency_loss(
    visual: Tensor,
    localization: Tensor,
    dictionary: Tensor,
    audio_logits: Tensor,
    scale: float | Tensor,
    bias: float | Tensor,
    *,
    direction: str = "audio||visual",
    per_class_mean: bool = True,
    gather_distributed: bool | None = None,
    reduction: str = "mean",
) -> DictionaryTerms:
    r"""Computes how much the classes that are seen where it sounds differ from those that are heard.

    .. math::
        \mathcal{L} = \frac{1}{K} \mathrm{KL}(q \,\|\, p), \quad q = \mathrm{softmax}_k(a_k), \quad
        p = \mathrm{softmax}_k \Big( \frac{1}{HW} \sum_x G_k(x) \Big)

        G_k(x) = (s \, \langle r_k, V(x) \rangle + t) \, l(x)

    V(x) is the visual feature of cell x, l the localization map, :math:`r_k` a row of the dictionary, s is ``scale``, t
    is ``bias``, and :math:`a_k` are the logits of a frozen classifier of sounds, the teacher. The bias adds the same
    number to all classes: it has no effect on the loss, and its gradient is 0.

    Args:
        visual: (B, C, H, W), floating, visual features, of the same network as those in the dictionary.
        localization: (B, H, W), floating, in [0, 1].
        dictionary: (K, C), floating, for example ``rows`` of :func:`build_dictionary`.
        audio_logits: (B, K), floating, the logits of the teacher; without gradient.
        scale: s, a number or a tensor with one entry.
        bias: t, a number or a tensor with one entry.
        direction: ``"audio||visual"``: KL(q || p), as in the public code; ``"visual||audio"``: KL(p || q), perhaps the
            paper's (unverified).
        per_class_mean: whether the divergence is divided by K, as in the public code.
        gather_distributed: whether the mean or sum is over the samples of all processes; see
            :mod:`sslosses.distributed`. None: not chosen.
        reduction: ``"mean"`` or ``"sum"`` over the samples, or ``"none"``: (B,).

    Returns:
        :class:`DictionaryTerms`; float64 if an input is, else float32. The loss is at least 0, and 0 if p = q. With
        B = 0 the mean and the sum are zeros that keep their graph. A sample with NaN or inf has terms of NaN.

    Raises:
        TypeError: if an input is not a floating tensor or an option has the wrong type.
        ValueError: if shapes or devices do not fit or an option is unknown.

    Source: Hu et al., "Discriminative Sounding Objects Localization via Self-supervised Audiovisual Matching" (DSOL),
    the second stage of its public code; not compared with the paper's text.

    Example:
        >>> import torch
        >>> visual = torch.tensor([[[[1.0, 0.0, 2.0, 0.0]], [[0.0, 1.0, 0.0, 1.0]]]])
        >>> localization = torch.tensor([[[0.9, 0.1, 0.8, 0.2]]])
        >>> heard = torch.tensor([[2.0, 0.0]])
        >>> terms = dictionary_consistency_loss(visual, localization, torch.eye(2), heard, 1.0, 0.0)
        >>> terms.loss, terms.visual_logits
        (tensor(0.0779), tensor([[0.6250, 0.0750]]))
    """
    _check_options(direction, per_class_mean, gather_distributed, reduction)
    gather = reduction != "none" and gathers(gather_distributed, "dictionary_consistency_loss")
    arguments = {
        "visual": (visual, "B C H W"),
        "localization": (localization, "B H W"),
        "dictionary": (dictionary, "K C"),
        "audio_logits": (audio_logits, "B K"),
    }
    for name, (value, _) in arguments.items():
        check_floating(name, value)
    check_shapes(**arguments)
    visual, localization, dictionary, audio_logits = at_least_float32(*(value for value, _ in arguments.values()))
    scale, bias = check_scalar("scale", scale, visual), check_scalar("bias", bias, visual)
    with autocast_off(visual):
        finite = finite_samples(visual) & finite_samples(localization) & finite_samples(audio_logits)
        # Zeroed, so that a non-finite sample does not enter the gradients of what all samples share.
        visual = visual.where(finite[:, None, None, None], 0)
        localization = localization.where(finite[:, None, None], 0)
        products = (dictionary @ visual.flatten(2)).view(-1, dictionary.shape[0], *visual.shape[2:])
        maps = (scale * products + bias) * localization[:, None]
        visual_logits = maps.mean((2, 3))
        seen = visual_logits.log_softmax(1)
        heard = audio_logits.detach().where(finite[:, None], 0).log_softmax(1)
        if direction == "visual||audio":
            seen, heard = heard, seen
        divergence = (heard.exp() * (heard - seen)).sum(1)
        if per_class_mean:
            divergence = divergence / max(dictionary.shape[0], 1)
        loss, visual_logits = divergence.masked_fill(~finite, torch.nan), visual_logits.detach()
        loss = reduce_samples(loss, torch.ones_like(finite), reduction, all_processes=gather)
    bad = ~finite[:, None]
    return DictionaryTerms(
        loss,
        visual_logits.masked_fill(bad, torch.nan),
        maps.detach().masked_fill(bad[..., None, None], torch.nan),
    )


@dataclass(kw_only=True, eq=False, repr=False)
class DictionaryConsistencyLoss(LossModule):
    """Computes :func:`dictionary_consistency_loss`, whose options are the arguments.

    Raises:
        TypeError: if an option has the wrong type.
        ValueError: if an option is unknown.

    Example:
        >>> import torch
        >>> loss = DictionaryConsistencyLoss(per_class_mean=False)
        >>> visual, localization = torch.zeros(1, 2, 1, 1), torch.ones(1, 1, 1)
        >>> loss(visual, localization, torch.eye(2), torch.zeros(1, 2), 1.0, 0.0)
        tensor(0.)
    """

    direction: str = "audio||visual"
    per_class_mean: bool = True
    gather_distributed: bool | None = None
    reduction: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_options(**self._options())

    def forward(
        self,
        visual: Tensor,
        localization: Tensor,
        dictionary: Tensor,
        audio_logits: Tensor,
        scale: float | Tensor,
        bias: float | Tensor,
    ) -> Tensor:
        """Computes the loss of a batch: a scalar, or (B,) with ``reduction="none"``."""
        options = self._call_options()
        return dictionary_consistency_loss(visual, localization, dictionary, audio_logits, scale, bias, **options).loss

    def gather_is_open(self) -> bool:
        """Whether ``gather_distributed`` makes a difference and was not chosen."""
        return self.gather_distributed is None and self.reduction != "none"
