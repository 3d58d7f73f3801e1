"""Metrics of masks, as torchmetrics metrics: AVSBench's of binary masks, and those of classes."""

from sslosses.metrics.segmentation.binary import AVSBenchSegmentation
from sslosses.metrics.segmentation.semantic import SemanticSegmentation

__all__ = ["AVSBenchSegmentation", "SemanticSegmentation"]
