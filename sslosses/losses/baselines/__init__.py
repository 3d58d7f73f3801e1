"""Losses of the systems that the paper compares itself with, one file each, by their papers or public code."""

from sslosses.losses.baselines.categories import (
    ActivationPool,
    AlignmentTerms,
    CategoryAlignmentLoss,
    PairCorrespondenceLoss,
    PairTerms,
    category_alignment_loss,
    class_activation_pool,
    pair_correspondence_loss,
)
from sslosses.losses.baselines.class_grouping import (
    ClassGrouping,
    ClassGroups,
)
from sslosses.losses.baselines.dictionary import (
    Dictionary,
    DictionaryConsistencyLoss,
    DictionaryTerms,
    build_dictionary,
    dictionary_consistency_loss,
    object_features,
)
from sslosses.losses.baselines.grouping import (
    GroupingLoss,
    GroupingTerms,
    grouping_loss,
)

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
    "PairCorrespondenceLoss",
    "PairTerms",
    "build_dictionary",
    "category_alignment_loss",
    "class_activation_pool",
    "dictionary_consistency_loss",
    "grouping_loss",
    "object_features",
    "pair_correspondence_loss",
]
