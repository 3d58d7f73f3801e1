"""Metrics as pure functions of batched tensors, on any device, in float32 or float64."""

from sslosses.metrics.functional.assignment import GreedyAssignment, greedy_assignment
from sslosses.metrics.functional.auc import AUC_THRESHOLDS, area_under_success, success_auc, success_rate
from sslosses.metrics.functional.average_precision import average_precision, binary_average_precision
from sslosses.metrics.functional.binarize import binarize_above_upper_median, min_max_normalize, upper_median
from sslosses.metrics.functional.ciou import ciou
from sslosses.metrics.functional.discrimination import Discrimination, silent_object_discrimination
from sslosses.metrics.functional.resize import resize_bicubic

__all__ = [
    "AUC_THRESHOLDS",
    "Discrimination",
    "GreedyAssignment",
    "area_under_success",
    "average_precision",
    "binarize_above_upper_median",
    "binary_average_precision",
    "ciou",
    "greedy_assignment",
    "min_max_normalize",
    "resize_bicubic",
    "silent_object_discrimination",
    "success_auc",
    "success_rate",
    "upper_median",
]
