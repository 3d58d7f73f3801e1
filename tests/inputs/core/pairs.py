"""How the losses of matching and mismatched pairs, attention and soft k-means are called."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from inputs.core.subject import Subject

FEATURES = {"visual": "B C H W", "audio": "B C"}
VECTORS = {"embedding": "B C", "target": "B C"}
MAPS = {"visual": "B C H W", "audio": "B C T F"}


def subjects() -> Iterator[Subject]:
    """The subjects of this family; where only directions count, also with vectors of any length."""
    per_sample = {"none": {"reduction": "none"}}
    names = tuple(FEATURES)
    common: dict[str, Any] = {"samples": names, "vectors": names, "maps": True, **per_sample}
    name = "multiple_instance_correspondence_loss"
    unit = {"normalize": True, "negative_bins": 2, "swap": "frame"}
    yield Subject(name, FEATURES, {}, "products", **common)
    yield Subject(name, FEATURES, unit, "cosines", scaled=names, **common)
    yield Subject(name, FEATURES, {"negatives": "shift"}, "shift", light=True, **common)
    yield Subject("MultipleInstanceCorrespondenceLoss", FEATURES, {}, light=True, **common)

    shapes = {"visual": "B C H W", "query": "B C"}
    names = tuple(shapes)
    yield Subject("attend", shapes, {}, "", names, scaled=("query",), vectors=names, maps=True)

    names = tuple(VECTORS)
    common = {"samples": names, "vectors": names, **per_sample}
    margin = {"form": "margin", "normalize": False, "negatives": "shift", "swap": "frame"}
    yield Subject("attention_pair_loss", VECTORS, {}, "softmax", scaled=names, **common)
    yield Subject("attention_pair_loss", VECTORS, margin, "margin", **common)
    yield Subject("AttentionPairLoss", VECTORS, {}, scaled=names, light=True, **common)

    names = tuple(MAPS)
    common = {"samples": names, "vectors": names, "maps": True, **per_sample}
    unit = {"normalize": True, "margin": 1.4, "negatives": "shift", "swap": "sound", "audio_clusters": 2}
    yield Subject("cluster_correspondence_loss", MAPS, {}, "distances", **common)
    yield Subject("cluster_correspondence_loss", MAPS, unit, "cosines", scaled=names, **common)
    yield Subject("ClusterCorrespondenceLoss", MAPS, {}, light=True, **common)

    points = {"points": "B N C"}
    yield Subject("soft_kmeans", points, {"num_centers": 2}, "strided", ("points",), vectors=("points",))
    given = points | {"init": "B K C"}
    yield Subject("soft_kmeans", given, {"num_centers": 2}, "given", tuple(given), vectors=tuple(given), light=True)
