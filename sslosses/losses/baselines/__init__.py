"""Losses of the systems that the paper compares itself with, one file each, by their papers or public code."""

from sslosses.losses.baselines.best_place import (
    BestPlaceContrastiveLoss,
    BestPlaceTerms,
    best_place_contrastive_loss,
)
from sslosses.losses.baselines.cycle_walk import CycleWalkLoss, CycleWalkTerms, SharedNodesWarning, cycle_walk_loss
from sslosses.losses.baselines.object_clustering import (
    ClusteringTerms,
    ObjectClusteringLoss,
    object_clustering_loss,
)

__all__ = [
    "BestPlaceContrastiveLoss",
    "BestPlaceTerms",
    "ClusteringTerms",
    "CycleWalkLoss",
    "CycleWalkTerms",
    "ObjectClusteringLoss",
    "SharedNodesWarning",
    "best_place_contrastive_loss",
    "cycle_walk_loss",
    "object_clustering_loss",
]
