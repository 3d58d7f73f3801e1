"""Losses of the systems that the paper compares itself with, one file each, by their papers or public code."""

from sslosses.losses.baselines.attention import (
    Attended,
    AttentionPairLoss,
    AttentionPairTerms,
    attend,
    attention_pair_loss,
)
from sslosses.losses.baselines.clusters import ClusterCorrespondenceLoss, ClusterTerms, cluster_correspondence_loss
from sslosses.losses.baselines.correspondence import (
    CorrespondenceTerms,
    MultipleInstanceCorrespondenceLoss,
    multiple_instance_correspondence_loss,
)

__all__ = [
    "Attended",
    "AttentionPairLoss",
    "AttentionPairTerms",
    "ClusterCorrespondenceLoss",
    "ClusterTerms",
    "CorrespondenceTerms",
    "MultipleInstanceCorrespondenceLoss",
    "attend",
    "attention_pair_loss",
    "cluster_correspondence_loss",
    "multiple_instance_correspondence_loss",
]
