"""Losses. Each is a pure function that returns named terms, and a module that calls it and returns one tensor."""

from sslosses.losses.baselines import (
    BestPlaceContrastiveLoss,
    BestPlaceTerms,
    ClusteringTerms,
    CycleWalkLoss,
    CycleWalkTerms,
    ObjectClusteringLoss,
    SharedNodesWarning,
    best_place_contrastive_loss,
    cycle_walk_loss,
    object_clustering_loss,
)
from sslosses.losses.object_aware import (
    ObjectAwareContrastiveLoss,
    ObjectAwareTerms,
    object_aware_contrastive_loss,
)
from sslosses.losses.objective import ObjectAwareObjective, ObjectiveTerms
from sslosses.losses.region_isolation import (
    ObjectRegionIsolationLoss,
    RegionIsolationTerms,
    object_region_isolation_loss,
)
from sslosses.losses.region_separation import (
    ObjectRegionSeparationLoss,
    RegionSeparationTerms,
    object_region_separation_loss,
)
from sslosses.losses.trimap import TriMapContrastiveLoss, TriMapTerms, trimap_contrastive_loss

OCALoss = ObjectAwareContrastiveLoss
ORILoss = ObjectRegionIsolationLoss

__all__ = [
    "BestPlaceContrastiveLoss",
    "BestPlaceTerms",
    "ClusteringTerms",
    "CycleWalkLoss",
    "CycleWalkTerms",
    "OCALoss",
    "ORILoss",
    "ObjectAwareContrastiveLoss",
    "ObjectAwareObjective",
    "ObjectAwareTerms",
    "ObjectClusteringLoss",
    "ObjectRegionIsolationLoss",
    "ObjectRegionSeparationLoss",
    "ObjectiveTerms",
    "RegionIsolationTerms",
    "RegionSeparationTerms",
    "SharedNodesWarning",
    "TriMapContrastiveLoss",
    "TriMapTerms",
    "best_place_contrastive_loss",
    "cycle_walk_loss",
    "object_aware_contrastive_loss",
    "object_clustering_loss",
    "object_region_isolation_loss",
    "object_region_separation_loss",
    "trimap_contrastive_loss",
]
