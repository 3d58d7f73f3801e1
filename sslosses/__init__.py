"""Losses, optimal-transport solvers, masks and metrics for audio-visual sound source localization."""

from sslosses.clustering import cluster_objects
from sslosses.identification import IdentifiedObjects, identify_objects
from sslosses.losses import (
    ObjectAwareContrastiveLoss,
    ObjectAwareObjective,
    ObjectAwareTerms,
    ObjectiveTerms,
    ObjectRegionIsolationLoss,
    ObjectRegionSeparationLoss,
    OCALoss,
    ORILoss,
    RegionIsolationTerms,
    RegionSeparationTerms,
    TriMapContrastiveLoss,
    TriMapTerms,
    object_aware_contrastive_loss,
    object_region_isolation_loss,
    object_region_separation_loss,
    trimap_contrastive_loss,
)
from sslosses.masks import (
    TriMapMasks,
    background_mask,
    foreground_mask,
    hard_mask,
    mask_weights,
    masked_pool,
    straight_through_mask,
    trimap_masks,
)
from sslosses.similarity import cosine, cross_similarity_map, similarity_map

__version__ = "0.1.0"

__all__ = [
    "IdentifiedObjects",
    "OCALoss",
    "ORILoss",
    "ObjectAwareContrastiveLoss",
    "ObjectAwareObjective",
    "ObjectAwareTerms",
    "ObjectRegionIsolationLoss",
    "ObjectRegionSeparationLoss",
    "ObjectiveTerms",
    "RegionIsolationTerms",
    "RegionSeparationTerms",
    "TriMapContrastiveLoss",
    "TriMapMasks",
    "TriMapTerms",
    "background_mask",
    "cluster_objects",
    "cosine",
    "cross_similarity_map",
    "foreground_mask",
    "hard_mask",
    "identify_objects",
    "mask_weights",
    "masked_pool",
    "object_aware_contrastive_loss",
    "object_region_isolation_loss",
    "object_region_separation_loss",
    "similarity_map",
    "straight_through_mask",
    "trimap_contrastive_loss",
    "trimap_masks",
]
