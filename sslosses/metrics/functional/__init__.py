"""Metrics as pure functions of batched tensors, on any device, in float32 or float64."""

from sslosses.metrics.functional.assignment import GreedyAssignment, greedy_assignment, optimal_assignment
from sslosses.metrics.functional.auc import AUC_THRESHOLDS, area_under_success, success_auc, success_rate
from sslosses.metrics.functional.average_precision import (
    average_precision,
    binary_average_precision,
    swapped_average_precision,
)
from sslosses.metrics.functional.binarize import (
    binarize_above_upper_median,
    binarize_area,
    binarize_from_upper_median,
    binarize_from_value,
    binarize_truth_area,
    fixed_range_normalize,
    min_max_normalize,
    upper_median,
)
from sslosses.metrics.functional.boxes import boxes_to_truths
from sslosses.metrics.functional.ciou import ciou, smoothed_iou
from sslosses.metrics.functional.detection import detection_average_precision, detection_f1, detection_max_f1
from sslosses.metrics.functional.discrimination import Discrimination, silent_object_discrimination
from sslosses.metrics.functional.resize import resize_bicubic, resize_bilinear
from sslosses.metrics.functional.segmentation import ClassAreas, class_areas, f_measure_curve, foreground_iou

__all__ = [
    "AUC_THRESHOLDS",
    "ClassAreas",
    "Discrimination",
    "GreedyAssignment",
    "area_under_success",
    "average_precision",
    "binarize_above_upper_median",
    "binarize_area",
    "binarize_from_upper_median",
    "binarize_from_value",
    "binarize_truth_area",
    "binary_average_precision",
    "boxes_to_truths",
    "ciou",
    "class_areas",
    "detection_average_precision",
    "detection_f1",
    "detection_max_f1",
    "f_measure_curve",
    "fixed_range_normalize",
    "foreground_iou",
    "greedy_assignment",
    "min_max_normalize",
    "optimal_assignment",
    "resize_bicubic",
    "resize_bilinear",
    "silent_object_discrimination",
    "smoothed_iou",
    "success_auc",
    "success_rate",
    "swapped_average_precision",
    "upper_median",
]
