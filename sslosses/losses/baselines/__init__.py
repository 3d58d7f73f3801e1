"""Losses of the systems that the paper compares itself with, one file each, by their papers or public code."""

from sslosses.losses.baselines.attention import (
    Attended,
    AttentionPairLoss,
    AttentionPairTerms,
    attend,
    attention_pair_loss,
)
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
from sslosses.losses.baselines.clusters import (
    ClusterCorrespondenceLoss,
    ClusterTerms,
    cluster_correspondence_loss,
)
from sslosses.losses.baselines.correspondence import (
    CorrespondenceTerms,
    MultipleInstanceCorrespondenceLoss,
    multiple_instance_correspondence_loss,
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
    "Attended",
    "AttentionPairLoss",
    "AttentionPairTerms",
    "CategoryAlignmentLoss",
    "ClassGrouping",
    "ClassGroups",
    "ClusterCorrespondenceLoss",
    "ClusterTerms",
    "CorrespondenceTerms",
    "Dictionary",
    "DictionaryConsistencyLoss",
    "DictionaryTerms",
    "GroupingLoss",
    "GroupingTerms",
    "MultipleInstanceCorrespondenceLoss",
    "PairCorrespondenceLoss",
    "PairTerms",
    "attend",
    "attention_pair_loss",
    "build_dictionary",
    "category_alignment_loss",
    "class_activation_pool",
    "cluster_correspondence_loss",
    "dictionary_consistency_loss",
    "grouping_loss",
    "multiple_instance_correspondence_loss",
    "object_features",
    "pair_correspondence_loss",
]
