"""Soft k-means with a gradient: centers of a set of points, and the shares of each point in them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sslosses._checks import check_count, check_floating, check_number, check_option, check_shapes
from sslosses._torch import at_least_float32, autocast_off

#: Squared distances below this count as this one. A center starts at a point, where a distance has no gradient.
_LEAST_SQUARE = 1e-10


class Clusters(NamedTuple):
    """Clusters of B sets of N points.

    Attributes:
        centers: (B, K, C).
        assignment: (B, K, N), the share of each point in each cluster, at least 0; sums to 1 over K. The centers are
            the means with these shares as weights.
    """

    centers: Tensor
    assignment: Tensor


def soft_kmeans(
    points: Tensor,
    num_centers: int,
    *,
    iterations: int = 4,
    sharpness: float = 30.0,
    init: str | Tensor = "strided",
) -> Clusters:
    r"""Computes clusters of points that belong to each center by a share.

    Each of the ``iterations`` computes the shares c from the centers o, then the centers from the shares:

    .. math::
        c_{kn} = \frac{e^{-\beta \|o_k - u_n\|}}{\sum_j e^{-\beta \|o_j - u_n\|}}, \quad
        o_k = \frac{\sum_n c_{kn} u_n}{\sum_n c_{kn}}

    :math:`u_n` are the points and β is ``sharpness``. The gradient goes through all iterations. Both quotients are
    computed in log space, so a center that no point is near stays a mean of points. Computed as they stand, both can
    be 0/0 in float32 at distances of 4 or more.

    Args:
        points: (B, N, C), floating, N at least 1.
        num_centers: K, at least 1. With K = 1 the center is the mean.
        iterations: number of times that the centers move, at least 1.
        sharpness: β, above 0, in units of 1 / distance. Scaling the points by s is the same as scaling β by s.
        init: where the centers start. ``"strided"``: at the points with the indices 0, s, 2s, … for s = ⌊N / K⌋, so
            the order of the points matters. With more centers than points, all start at the first point and stay equal.
            Or (B, K, C), floating, which may have a gradient.

    Returns:
        :class:`Clusters`; float64 if an input is, else float32. The centers are in the convex hull of the points. A
        set with NaN or inf has clusters of NaN and does not affect the others. Distances below 1e-5 count as 1e-5.
        Memory for the gradient grows as iterations · B · K · N · C.

    Raises:
        TypeError: if an input is not a floating tensor or an option has the wrong type.
        ValueError: if shapes or devices do not fit or an option is out of range or unknown.

    Source: Hu et al., "Deep Multimodal Clustering for Unsupervised Audiovisual Learning" (DMC): the authors' public
    code of a simplified version, which the defaults are from.

    Example:
        >>> import torch
        >>> points = torch.tensor([[[0.0, 0.0], [0.0, 0.2], [1.0, 1.0], [1.0, 0.8]]])
        >>> clusters = soft_kmeans(points, 2)
        >>> clusters.centers.round(decimals=4)
        tensor([[[0.0000, 0.1000],
                 [1.0000, 0.9000]]])
        >>> clusters.assignment.round()
        tensor([[[1., 1., 0., 0.],
                 [0., 0., 1., 1.]]])
    """
    num_centers = check_count("num_centers", num_centers)
    iterations = check_count("iterations", iterations)
    sharpness = check_number("sharpness", sharpness, above=0)
    check_floating("points", points)
    sizes = check_shapes(points=(points, "B N C"))
    if sizes["N"] == 0:
        raise ValueError(f"Expected `points` to have shape (B, N, C) with N >= 1, but got {tuple(points.shape)}")
    if isinstance(init, Tensor):
        check_floating("init", init)
        check_shapes(points=(points, "B N C"), init=(init, "B K C"))
        if init.shape[1] != num_centers:
            raise ValueError(
                f"Expected `init` to have shape (B, K, C) with K = {num_centers} as in `num_centers`, but got "
                f"{tuple(init.shape)}"
            )
        points, centers = at_least_float32(points, init)
    else:
        check_option("init", init, ("strided",))
        (points,) = at_least_float32(points)
        stride = sizes["N"] // num_centers
        centers = points[:, torch.arange(num_centers, device=points.device) * stride]
    # The clustering of pixels in clustering.py is not this one: its shares come from cosines, its centers are unit
    # vectors weighted by the sound, and it has no gradient.
    with autocast_off(points):
        shares = points
        # A single center is the mean after the first iteration.
        for _ in range(iterations if num_centers > 1 else 1):
            # Not the expanded square, which cancels for points near a center. One center at a time, which is several
            # times as fast on a CPU: the differences from all centers would be too large for its allocator to reuse.
            square = torch.stack([(center - points).square().sum(-1) for center in torch.split(centers, 1, 1)], 1)
            shares = (-sharpness * square.clamp(min=_LEAST_SQUARE).sqrt()).log_softmax(1)
            centers = shares.softmax(-1) @ points
        return Clusters(centers, shares.exp())
