"""Losses. Each is a pure function that returns named terms, and a module that calls it and returns one tensor."""

from sslosses.losses.baselines import (
    ActivationPool,
    AlignmentTerms,
    CategoryAlignmentLoss,
    ClassGrouping,
    ClassGroups,
    Dictionary,
    DictionaryConsistencyLoss,
    DictionaryTerms,
    GroupingLoss,
    GroupingTerms,
    PairCorrespondenceLoss,
    PairTerms,
    build_dictionary,
    category_alignment_loss,
    class_activation_pool,
    dictionary_consistency_loss,
    grouping_loss,
    object_features,
    pair_correspondence_loss,
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
    "ActivationPool",
    "AlignmentTerms",
    "CategoryAlignmentLoss",
    "ClassGrouping",
    "ClassGroups",
    "Dictionary",
    "DictionaryConsistencyLoss",
    "DictionaryTerms",
    "GroupingLoss",
    "GroupingTerms",
    "OCALoss",
    "ORILoss",
    "ObjectAwareContrastiveLoss",
    "ObjectAwareObjective",
    "ObjectAwareTerms",
    "ObjectRegionIsolationLoss",
    "ObjectRegionSeparationLoss",
    "ObjectiveTerms",
    "PairCorrespondenceLoss",
    "PairTerms",
    "RegionIsolationTerms",
    "RegionSeparationTerms",
    "TriMapContrastiveLoss",
    "TriMapTerms",
    "build_dictionary",
    "category_alignment_loss",
    "class_activation_pool",
    "dictionary_consistency_loss",
    "grouping_loss",
    "object_aware_contrastive_loss",
    "object_features",
    "object_region_isolation_loss",
    "object_region_separation_loss",
    "pair_correspondence_loss",
    "trimap_contrastive_loss",
]
