"""Metrics of sound source localization: named protocols built on pure functions, as torchmetrics metrics."""

from sslosses.metrics import functional, protocols
from sslosses.metrics.chance import chance_levels
from sslosses.metrics.discrimination import SilentObjectDiscrimination
from sslosses.metrics.localization import SoundLocalization
from sslosses.metrics.protocols import Protocol
from sslosses.metrics.result import LocalizationResult
from sslosses.metrics.segmentation import AVSBenchSegmentation, SemanticSegmentation
from sslosses.metrics.single import AUC, CAP, PIAP, CIoU, CountingAccuracy, Coverage, LocalizationMetric

__all__ = [
    "AUC",
    "CAP",
    "PIAP",
    "AVSBenchSegmentation",
    "CIoU",
    "CountingAccuracy",
    "Coverage",
    "LocalizationMetric",
    "LocalizationResult",
    "Protocol",
    "SemanticSegmentation",
    "SilentObjectDiscrimination",
    "SoundLocalization",
    "chance_levels",
    "functional",
    "protocols",
]
