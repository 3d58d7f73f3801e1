"""Losses of the systems that the paper compares itself with, one file each, by their papers or public code."""

from sslosses.losses.baselines.attention import (
    Attended,
    AttentionPairLoss,
    AttentionPairTerms,
    attend,
    attention_pair_loss,
)
from sslosses.losses.baselines.best_place import (
    BestPlaceContrastiveLoss,
    BestPlaceTerms,
    best_place_contrastive_loss,
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
from sslosses.losses.baselines.cycle_walk import (
    CycleWalkLoss,
    CycleWalkTerms,
    SharedNodesWarning,
    cycle_walk_loss,
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
from sslosses.losses.baselines.object_clustering import (
    ClusteringTerms,
    ObjectClusteringLoss,
    object_clustering_loss,
)
from sslosses.losses.baselines.text_guidance import (
    TextGuidedHeads,
    TextGuidedQueries,
    text_guided_maps,
    text_guided_queries,
)
from sslosses.losses.baselines.text_guided import (
    TextGuidedLoss,
    TextGuidedTerms,
    text_guided_loss,
)

__all__ = [
    "ActivationPool",
    "AlignmentTerms",
    "Attended",
    "AttentionPairLoss",
    "AttentionPairTerms",
    "BestPlaceContrastiveLoss",
    "BestPlaceTerms",
    "CategoryAlignmentLoss",
    "ClassGrouping",
    "ClassGroups",
    "ClusterCorrespondenceLoss",
    "ClusterTerms",
    "ClusteringTerms",
    "CorrespondenceTerms",
    "CycleWalkLoss",
    "CycleWalkTerms",
    "Dictionary",
    "DictionaryConsistencyLoss",
    "DictionaryTerms",
    "GroupingLoss",
    "GroupingTerms",
    "MultipleInstanceCorrespondenceLoss",
    "ObjectClusteringLoss",
    "PairCorrespondenceLoss",
    "PairTerms",
    "SharedNodesWarning",
    "TextGuidedHeads",
    "TextGuidedLoss",
    "TextGuidedQueries",
    "TextGuidedTerms",
    "attend",
    "attention_pair_loss",
    "best_place_contrastive_loss",
    "build_dictionary",
    "category_alignment_loss",
    "class_activation_pool",
    "cluster_correspondence_loss",
    "cycle_walk_loss",
    "dictionary_consistency_loss",
    "grouping_loss",
    "multiple_instance_correspondence_loss",
    "object_clustering_loss",
    "object_features",
    "pair_correspondence_loss",
    "text_guided_loss",
    "text_guided_maps",
    "text_guided_queries",
]
