"""Metrics: the pure functions, the classes, protocols, results, chance levels, intervals, controls, masks."""

from __future__ import annotations

from inputs.metrics import controls, functions, localization, protocols, segmentation, states, videos

CLASSES = [
    *functions.CLASSES,
    *localization.CLASSES,
    *states.CLASSES,
    *protocols.CLASSES,
    *videos.CLASSES,
    *controls.CLASSES,
    *segmentation.CLASSES,
]
