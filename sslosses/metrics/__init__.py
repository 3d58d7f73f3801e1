"""Metrics of sound source localization: named protocols built on pure functions, as torchmetrics metrics.

The metric classes are imported when they are first used. They need torchmetrics, which takes seconds to import, while
protocols and pure functions need torch only.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sslosses.metrics import functional, protocols
from sslosses.metrics.protocols import Protocol

if TYPE_CHECKING:
    from sslosses.metrics.chance import chance_levels
    from sslosses.metrics.comparison import Comparison, compare
    from sslosses.metrics.discrimination import SilentObjectDiscrimination
    from sslosses.metrics.localization import SoundLocalization
    from sslosses.metrics.negative_sounds import NegativeSounds, threshold_from
    from sslosses.metrics.result import LocalizationResult
    from sslosses.metrics.saliency import center_surround_saliency
    from sslosses.metrics.segmentation import AVSBenchSegmentation, SemanticSegmentation
    from sslosses.metrics.single import AUC, CAP, PIAP, CIoU, CountingAccuracy, Coverage, LocalizationMetric
    from sslosses.metrics.spread import Spread

#: The module of each name above.
_MODULES = {
    "AUC": "single",
    "AVSBenchSegmentation": "segmentation",
    "CAP": "single",
    "CIoU": "single",
    "Comparison": "comparison",
    "CountingAccuracy": "single",
    "Coverage": "single",
    "LocalizationMetric": "single",
    "LocalizationResult": "result",
    "NegativeSounds": "negative_sounds",
    "PIAP": "single",
    "SemanticSegmentation": "segmentation",
    "SilentObjectDiscrimination": "discrimination",
    "SoundLocalization": "localization",
    "Spread": "spread",
    "center_surround_saliency": "saliency",
    "chance_levels": "chance",
    "compare": "comparison",
    "threshold_from": "negative_sounds",
}

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


def __getattr__(name: str) -> Any:
    """Imports the module of ``name`` and returns the object."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
