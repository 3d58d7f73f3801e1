"""k-means of unit vectors, with memory that is linear in their number."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sslosses._torch import has_values

#: Vectors whose distances to all centers are in memory at the same time.
_CHUNK = 8192


def cluster(
    directions: Tensor, finite: Tensor, num_clusters: int, generator: torch.Generator, restarts: int, iterations: int
) -> Tensor:
    """The labels (M,) of directions (M, C), -1 for those that are not finite: the best of several runs."""
    best: _Clusters | None = None
    for _ in range(restarts if has_values(directions) else 1):
        centers = _first_centers(directions, finite, num_clusters, generator)
        clusters = _move(directions, finite, centers, iterations)
        if best is None or bool(clusters.inertia < best.inertia):
            best = clusters
    assert best is not None
    return best.labels


class _Clusters(NamedTuple):
    """Labels (M,), squared distances (M,) to the own center, and their sum."""

    labels: Tensor
    distance: Tensor
    inertia: Tensor


def _first_centers(directions: Tensor, finite: Tensor, num_clusters: int, generator: torch.Generator) -> Tensor:
    """k-means++: each center is a feature, drawn in proportion to its squared distance from the earlier centers."""
    weight, square = finite.to(directions.dtype), directions.square().sum(1)
    centers = directions.new_empty(num_clusters, directions.shape[1])
    for k in range(num_clusters):
        # The largest quotient by exponential noise is a draw in proportion to the weights.
        noise = torch.empty(weight.shape, dtype=torch.float64, device=generator.device)
        noise = noise.exponential_(generator=generator).to(weight)
        centers[k] = directions.index_select(0, (weight / noise.clamp(min=1e-30)).argmax().reshape(1))[0]
        distance = (square - 2 * directions @ centers[k] + centers[k].square().sum()).clamp(min=0).where(finite, 0)
        weight = distance if k == 0 else torch.minimum(weight, distance)
    return centers


def _move(directions: Tensor, finite: Tensor, centers: Tensor, iterations: int) -> _Clusters:
    """Move the centers to the means of their clusters until no label changes."""
    clusters = _assign(directions, finite, centers)
    for _ in range(iterations if has_values(directions) else 1):
        centers = cluster_means(directions, clusters.labels, centers.shape[0])
        before, clusters = clusters, _assign(directions, finite, centers)
        if has_values(directions) and torch.equal(before.labels, clusters.labels):
            break
    return clusters


def _assign(directions: Tensor, finite: Tensor, centers: Tensor) -> _Clusters:
    """Assign each feature to the nearest center, and to centers without features the farthest feature."""
    square = centers.square().sum(1)
    closest = [(square - 2 * part @ centers.mT).min(1) for part in torch.split(directions, _CHUNK)]
    labels = torch.cat([part.indices for part in closest])
    distance = torch.cat([part.values for part in closest]) + directions.square().sum(1)
    labels, distance = labels.masked_fill(~finite, -1), distance.clamp(min=0).where(finite, 0)
    if has_values(labels):
        counts = torch.bincount(labels[finite], minlength=centers.shape[0])
        for k in (counts == 0).nonzero()[:, 0].tolist():
            movable = finite & (counts[labels] > 1)
            farthest = distance.masked_fill(~movable, -1).argmax()
            counts[labels[farthest]] -= 1
            counts[k] += 1
            labels[farthest], distance[farthest] = k, 0
    return _Clusters(labels, distance, distance.sum())


def cluster_means(features: Tensor, labels: Tensor, num_clusters: int) -> Tensor:
    """The mean feature of each cluster, (K, C); products, as index_add_ on a GPU would not be deterministic."""
    clusters = torch.arange(num_clusters, device=labels.device)[:, None]
    parts = list(zip(torch.split(features, _CHUNK), torch.split(labels, _CHUNK), strict=True))
    zero = features.new_zeros(num_clusters, 1)
    count = sum(((clusters == part).sum(1, keepdim=True) for _, part in parts), zero).clamp(min=1)
    # Shares, as a sum of large features could overflow.
    shares = (((clusters == part) / count) @ rows for rows, part in parts)
    return sum(shares, features.new_zeros(num_clusters, features.shape[1]))
