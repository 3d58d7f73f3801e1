"""Metrics: the pure functions, SoundLocalization and the other classes, protocols, results, chance levels, masks."""

from __future__ import annotations

from inputs.metrics import functions, localization, protocols, segmentation, states

CLASSES = [*functions.CLASSES, *localization.CLASSES, *states.CLASSES, *protocols.CLASSES, *segmentation.CLASSES]
