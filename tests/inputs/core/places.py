"""Baselines that contrast best places, walk between frames and sounds, or cluster objects; and maps of objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from inputs.core.subject import Subject

FEATURES = {"visual": "B C H W", "audio": "B C"}
GROUPS = {"visual": "B K C H W", "nodes": "B K C", "start_nodes": "B K C"}
MAPS = {"sound": "B H W", "prior": "B H W"}


def subjects() -> Iterator[Subject]:
    none = {"reduction": "none"}
    for shapes, names in (
        (FEATURES, ("best_place_contrastive_loss", "BestPlaceContrastiveLoss")),
        (GROUPS, ("cycle_walk_loss", "CycleWalkLoss")),
        (FEATURES, ("object_clustering_loss", "ObjectClusteringLoss")),
    ):
        arguments = tuple(shapes)
        common: dict[str, Any] = {"samples": arguments, "scaled": arguments, "vectors": arguments, "maps": True}
        yield Subject(names[0], shapes, none=none, **common)
        if names[0] == "object_clustering_loss":
            options = {"padding": "batch", "anchor": "every", "link_through_background": True}
            yield Subject(names[0], shapes, options, "batch", none=none, **common)
        yield Subject(names[1], shapes, none=none, light=True, **common)
    yield Subject("object_prior", {"features": "B C H W"}, samples=("features",), vectors=("features",), maps=True)
    yield Subject("blend_maps", MAPS, samples=tuple(MAPS), scaled=tuple(MAPS), maps=True)
