"""Metrics of sound source localization: named protocols built on pure functions, as torchmetrics metrics."""

from sslosses.metrics import functional, protocols
from sslosses.metrics.chance import chance_levels
from sslosses.metrics.comparison import Comparison, compare
from sslosses.metrics.discrimination import SilentObjectDiscrimination
from sslosses.metrics.localization import SoundLocalization
from sslosses.metrics.negative_sounds import NegativeSounds, threshold_from
from sslosses.metrics.protocols import Protocol
from sslosses.metrics.result import LocalizationResult
from sslosses.metrics.saliency import center_surround_saliency
from sslosses.metrics.segmentation import AVSBenchSegmentation, SemanticSegmentation
from sslosses.metrics.single import AUC, CAP, PIAP, CIoU, CountingAccuracy, Coverage, LocalizationMetric
from sslosses.metrics.spread import Spread

__all__ = [
    "AUC",
    "CAP",
    "PIAP",
    "AVSBenchSegmentation",
    "CIoU",
    "Comparison",
    "CountingAccuracy",
    "Coverage",
    "LocalizationMetric",
    "LocalizationResult",
    "NegativeSounds",
    "Protocol",
    "SemanticSegmentation",
    "SilentObjectDiscrimination",
    "SoundLocalization",
    "Spread",
    "center_surround_saliency",
    "chance_levels",
    "compare",
    "functional",
    "protocols",
    "threshold_from",
]
